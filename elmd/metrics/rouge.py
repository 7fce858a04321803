"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures, averaged over replies (rouge-score with elmd's tokenisers)."""

from collections.abc import Sequence
from typing import Any

from elmd.metrics._base import Measure, Settings, mean, signature
from elmd.metrics._tokens import UNITS, Tokenizer, tokenizers
from elmd.types import Judged

KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""elmd's names and rouge-score's."""

NAMES = tuple(f"{kind}_{unit}" for unit in UNITS for kind in KINDS)


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return ROUGE F (beta 1), 0-100, without stemming (Lin 2004, "ROUGE").

    rouge-score's own tokeniser keeps Latin letters and digits only, so that Chinese scores 0; it is not used.
    Where reply and reference are one token each, there is no bigram on either side and ROUGE-2 is their ROUGE-1.
    """
    return tuple(measure for tokenizer in tokenizers(settings.language) for measure in _measures(rows, tokenizer))


def _measures(rows: Sequence[Judged], tokenizer: Tokenizer) -> list[Measure]:
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(list(KINDS.values()), tokenizer=tokenizer)
    per_row = [_scores(rouge, row, tokenizer) for row in rows]
    parts = {"f": "beta1", "level": "mean", "stem": "no", "n": len(rows)}
    return [
        Measure(
            f"{kind}_{tokenizer.unit}",
            signature(f"{kind}|{tokenizer.signature}", "rouge-score", **parts),
            mean([row[key] for row in per_row]),
        )
        for kind, key in KINDS.items()
    ]


def _scores(rouge: Any, row: Judged, tokenizer: Tokenizer) -> dict[str, float]:
    found = rouge.score(row.reference, row.hypothesis)
    scores = {key: 100.0 * float(found[key].fmeasure) for key in KINDS.values()}
    if max(len(tokenizer.tokenize(text)) for text in (row.hypothesis, row.reference)) == 1:
        scores["rouge2"] = scores["rouge1"]
    return scores
