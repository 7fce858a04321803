"""BLEU-1 to BLEU-4 of the whole corpus, and the mean BLEU-1 to BLEU-4 of single replies (sacrebleu)."""

from collections.abc import Sequence

import numpy as np

from elmd.metrics._base import Floats, Measure, Of, Settings, mean, pooled, signature
from elmd.metrics._tokens import UNITS, Tokenizer, tokenizers
from elmd.types import Judged

ORDERS = (1, 2, 3, 4)
LEVELS = ("bleu", "sentence_bleu")
NAMES = tuple(f"{level}_{n}_{unit}" for unit in UNITS for level in LEVELS for n in ORDERS)

_LONGEST = max(ORDERS)


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return BLEU-n, 0-100, for each tokeniser of the language (Papineni et al. 2002, "BLEU").

    Smoothing is "exp" (Chen and Cherry 2014, method 3). A corpus score has no effective order, as in
    `sacrebleu.corpus_bleu`, save that an order for which neither side holds a single n-gram is left out.
    A sentence score has effective order.
    """
    return tuple(measure for tokenizer in tokenizers(settings.language) for measure in _measures(rows, tokenizer))


def _measures(rows: Sequence[Judged], tokenizer: Tokenizer) -> list[Measure]:
    table = _statistics(rows, tokenizer)
    found = []
    for level in LEVELS:
        for n in ORDERS:
            of = pooled(table, _corpus(n)) if level == "bleu" else mean([_sentence(row, n) for row in table.tolist()])
            name = f"{level}_{n}_{tokenizer.unit}"
            found.append(Measure(name, _signature(level, n, len(rows), tokenizer), of))
    return found


def _statistics(rows: Sequence[Judged], tokenizer: Tokenizer) -> Floats:
    """Return (rows, 14): lengths of reply and reference, matches and totals of 4 orders, whether either has the order."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", effective_order=True, max_ngram_order=_LONGEST, force=True)
    table = []
    for row in rows:
        hypothesis, reference = (" ".join(tokenizer.tokenize(text)) for text in (row.hypothesis, row.reference))
        score = bleu.sentence_score(hypothesis, [reference])
        longer = max(score.sys_len, score.ref_len)
        table.append([score.sys_len, score.ref_len, *score.counts, *score.totals, *(longer >= n for n in ORDERS)])
    return np.asarray(table, dtype=np.float64)


def _corpus(order: int) -> Of:
    return lambda sums: np.asarray([_pooled_bleu(row, order) for row in sums.tolist()])


def _pooled_bleu(row: list[float], order: int) -> float:
    held = sum(count > 0 for count in row[2 + 2 * _LONGEST :][:order])
    return _bleu(row, held, effective=False) if held else 0.0


def _sentence(row: list[float], order: int) -> float:
    return _bleu(row, order, effective=True)


def _bleu(row: list[float], order: int, effective: bool) -> float:
    from sacrebleu.metrics.bleu import BLEU

    counts = [int(number) for number in row]
    return BLEU.compute_bleu(
        correct=counts[2:][:order],
        total=counts[2 + _LONGEST :][:order],
        sys_len=counts[0],
        ref_len=counts[1],
        smooth_method="exp",
        effective_order=effective,
        max_ngram_order=order,
    ).score


def _signature(level: str, order: int, n: int, tokenizer: Tokenizer) -> str:
    whole = level == "bleu"
    parts = {"level": "corpus" if whole else "mean-of-sentences", "nrefs": 1, "eff": "no" if whole else "yes"}
    return signature(f"bleu|{tokenizer.signature}", "sacrebleu", order=order, **parts, smooth="exp", n=n)
