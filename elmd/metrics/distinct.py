"""Distinct-1 and Distinct-2: the share of different n-grams among all n-grams of all replies."""

from collections.abc import Sequence

import numpy as np

from elmd.metrics._base import Floats, Measure, Of, Settings, different, signature
from elmd.metrics._tokens import UNITS, Tokenizer, tokenizers
from elmd.types import Judged

ORDERS = (1, 2)
NAMES = tuple(f"distinct_{n}_{unit}" for unit in UNITS for n in ORDERS)


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return corpus Distinct-n, 0-100 (Li et al. 2016, "A Diversity-Promoting Objective Function").

    It falls as a corpus grows, so only runs over the same rows compare. The reference is not looked at.
    """
    return tuple(
        Measure(
            f"distinct_{n}_{tokenizer.unit}",
            signature(f"distinct|{tokenizer.signature}", order=n, level="corpus", n=len(rows)),
            _distinct(rows, tokenizer, n),
            kinds=True,
        )
        for tokenizer in tokenizers(settings.language)
        for n in ORDERS
    )


def _distinct(rows: Sequence[Judged], tokenizer: Tokenizer, order: int) -> Of:
    numbers: dict[tuple[str, ...], int] = {}
    row_of: list[int] = []
    kind_of: list[int] = []
    for index, row in enumerate(rows):
        for ngram in ngrams(tokenizer.tokenize(row.hypothesis), order):
            row_of.append(index)
            kind_of.append(numbers.setdefault(ngram, len(numbers)))
    kinds = different(row_of, kind_of)
    totals = _totals(row_of, len(rows))

    def share(counts: Floats) -> Floats:
        found: Floats = 100.0 * kinds(counts) / np.maximum(counts @ totals, 1.0)
        return found

    return share


def ngrams(tokens: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """Return every n-gram, the last one too: `len(tokens) - order + 1` of them."""
    return [tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1)]


def _totals(row_of: list[int], rows: int) -> Floats:
    return np.bincount(np.asarray(row_of, dtype=np.int64), minlength=rows).astype(np.float64)
