"""BERTScore-style precision, recall and F1: token vectors matched greedily by cosine (needs an encoder)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from elmd.errors import UsageError
from elmd.metrics._base import Measure, Settings, Vectors, mean, signature
from elmd.types import Judged

NAMES = ("embedding_precision", "embedding_recall", "embedding_f1")
ON_DEMAND = True

_ROWS_AT_ONCE = 256
"""Bounds memory: the token vectors of 10,000 pairs would take about a gigabyte."""

Matrix = npt.NDArray[np.float32]


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return the mean precision, recall and F1, 0-100 (Zhang et al. 2020, "BERTScore").

    No idf weights and no rescaling by a baseline: unrelated texts do not score 0, so read differences. A cosine below
    0 counts as 0; a blank reply or reference scores 0.

    Raises:
        UsageError: When the settings hold no `vectors`.
    """
    if settings.vectors is None:
        raise UsageError("the metric 'embedding' needs an encoder: give evaluate() a `vectors` callable")
    parts = {"encoder": settings.encoder, "idf": "no", "rescale": "no", "level": "mean", "n": len(rows)}
    sign = signature("bertscore-style", **parts)
    table = np.asarray([score for batch in _batches(rows) for score in _scores(batch, settings.vectors)])
    return tuple(Measure(name, sign, mean(table[:, column])) for column, name in enumerate(NAMES))


def _batches(rows: Sequence[Judged]) -> list[Sequence[Judged]]:
    return [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]


def _scores(rows: Sequence[Judged], vectors: Vectors) -> list[tuple[float, float, float]]:
    pairs = [(row.hypothesis, row.reference) for row in rows]
    texts = sorted({text for pair in pairs for text in pair if text.strip()})
    # A text is encoded once, so that a reply equal to its reference has equal vectors.
    unit = {text: _unit(matrix) for text, matrix in zip(texts, vectors(texts) if texts else [], strict=True)}
    return [_match(unit.get(hypothesis), unit.get(reference)) for hypothesis, reference in pairs]


def _unit(matrix: Matrix) -> Matrix:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True).astype(np.float32)
    unit: Matrix = matrix / np.maximum(norms, np.float32(1e-12))
    return unit


def _match(hypothesis: Matrix | None, reference: Matrix | None) -> tuple[float, float, float]:
    if hypothesis is None or reference is None or not len(hypothesis) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = np.clip(hypothesis @ reference.T, 0.0, 1.0)
    precision, recall = float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean())
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return 100 * precision, 100 * recall, 100 * f1
