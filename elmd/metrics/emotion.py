"""Accuracy, macro-F1 and weighted-F1 of the reply's and the user's emotion, beside always saying the commonest."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from elmd.labels import EKMAN
from elmd.metrics._base import Floats, Measure, Settings, pooled, signature
from elmd.types import Judged

Pair = tuple[str | None, str | None]
"""The annotated and the predicted label."""

_PAIRS: dict[str, Callable[[Judged], Pair]] = {
    "reply_emotion": lambda row: (row.reference_emotion, row.emotion),
    "user_emotion": lambda row: (row.given_user_emotion, row.user_emotion),
}


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return the agreement of predicted with annotated emotions over EKMAN, 0-100.

    `reply_emotion` compares the emotion chosen for the reply with the one the person's reply had; `user_emotion` the
    one read from the user with the annotated one. Rows without annotation are left out; an annotated row without
    a prediction is wrong. Where no row has both there is no score. The commonest label is taken from the
    annotations scored, so `*_majority_*` is what knowing only the label's distribution brings.
    """
    found: list[Measure] = []
    for field, pair_of in _PAIRS.items():
        pairs = [pair_of(row) for row in rows]
        if any(truth and guess for truth, guess in pairs):
            commonest = _commonest([truth for truth, _ in pairs if truth])
            found += _measures(field, "own", pairs)
            found += _measures(f"{field}_majority", f"always-{commonest}", [(truth, commonest) for truth, _ in pairs])
    return tuple(found)


def _measures(name: str, predictor: str, pairs: Sequence[Pair]) -> list[Measure]:
    table = np.stack([_confusion(truth, guess) for truth, guess in pairs])
    n = sum(truth is not None for truth, _ in pairs)
    unpredicted = sum(truth is not None and guess is None for truth, guess in pairs)
    parts = {"predictor": predictor, "unpredicted": unpredicted, "n": n}
    return [
        Measure(
            f"{name}_{statistic}",
            signature("emotion", statistic=statistic, labels="ekman7", **parts),
            pooled(table, finish),
        )
        for statistic, finish in _STATISTICS.items()
    ]


def _commonest(labels: Sequence[str]) -> str:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _confusion(truth: str | None, guess: str | None) -> Floats:
    """Return a flat 7 x 8 table with one 1: annotated by predicted label, the last column for no prediction."""
    table = np.zeros((len(EKMAN), len(EKMAN) + 1))
    if truth is not None:
        table[EKMAN.index(truth), EKMAN.index(guess) if guess is not None else -1] = 1.0
    return table.ravel()


def _unpack(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return hits, annotated and predicted numbers of each label, each (resamples, 7)."""
    table = sums.reshape(len(sums), len(EKMAN), len(EKMAN) + 1)
    return np.einsum("bii->bi", table[:, :, :-1]), table.sum(axis=2), table[:, :, :-1].sum(axis=1)


def _accuracy(sums: Floats) -> Floats:
    hits, annotated, _ = _unpack(sums)
    return _percent(hits.sum(axis=1), annotated.sum(axis=1))


def _macro_f1(sums: Floats) -> Floats:
    """Average F1 over the labels that are annotated or predicted at least once, as scikit-learn does."""
    f1, annotated, predicted = _f1(sums)
    return _percent(f1.sum(axis=1), (annotated + predicted > 0).sum(axis=1))


def _weighted_f1(sums: Floats) -> Floats:
    f1, annotated, _ = _f1(sums)
    return _percent((f1 * annotated).sum(axis=1), annotated.sum(axis=1))


def _f1(sums: Floats) -> tuple[Floats, Floats, Floats]:
    hits, annotated, predicted = _unpack(sums)
    return 2 * hits / np.maximum(annotated + predicted, 1.0), annotated, predicted


def _percent(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, 100.0 * part / np.maximum(whole, 1.0), np.nan)


_STATISTICS = {"accuracy": _accuracy, "macro_f1": _macro_f1, "weighted_f1": _weighted_f1}
NAMES = tuple(f"{field}{kind}_{s}" for field in _PAIRS for kind in ("", "_majority") for s in _STATISTICS)
