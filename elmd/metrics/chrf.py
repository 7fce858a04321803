"""chrF: the F2 of character 1- to 6-grams of the whole corpus (sacrebleu)."""

from collections.abc import Sequence

import numpy as np

from elmd.metrics._base import Measure, Settings, pooled, signature
from elmd.types import Judged

NAMES = ("chrf",)


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return corpus chrF2, 0-100 (Popović 2015, "chrF"). White space is left out; English is lower-cased."""
    from sacrebleu.metrics.chrf import CHRF

    lowercase = settings.language == "en"
    chrf = CHRF(lowercase=lowercase)
    hypotheses, references = [row.hypothesis for row in rows], [row.reference for row in rows]
    # sacrebleu's own bootstrap uses these two methods; it has no public name for them.
    table = np.asarray(chrf._extract_corpus_statistics(hypotheses, [references]), dtype=np.float64)
    of = pooled(table, lambda sums: np.asarray([chrf._compute_f_score(row) for row in sums.tolist()]))
    parts = {"case": "lc" if lowercase else "mixed", "nrefs": 1, "eff": "yes", "nc": 6, "nw": 0, "space": "no"}
    return (Measure("chrf", signature("chrf2", "sacrebleu", **parts, level="corpus", n=len(rows)), of),)
