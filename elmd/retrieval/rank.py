"""Emotion-aware ranking: meaning, emotion and diversity as pure functions."""

from collections.abc import Mapping, Sequence

import numpy as np

from elmd.config import Strict
from elmd.types import Demonstration


class Weights(Strict):
    """How much each part counts in the score of a demonstration; `diversity` is 1 - λ of MMR."""

    meaning: float = 1.0
    user_emotion: float = 0.12
    reply_emotion: float = 0.07
    diversity: float = 0.15


def agreement(label: str | None, scores: Mapping[str, float]) -> float:
    """Return the probability that `scores` gives to `label`, in [0, 1]; 0 for no label."""
    return scores.get(label, 0.0) if label else 0.0


def score(item: Demonstration, user: Mapping[str, float], reply: Mapping[str, float], weights: Weights) -> float:
    """Return similarity plus weighted agreement with the user's emotion and with the predicted reply emotion."""
    return (
        weights.meaning * item.similarity
        + weights.user_emotion * agreement(item.user_emotion, user)
        + weights.reply_emotion * agreement(item.emotion, reply)
    )


def rank(
    items: Sequence[Demonstration],
    vectors: np.ndarray,
    user: Mapping[str, float],
    reply: Mapping[str, float],
    k: int,
    weights: Weights,
) -> list[Demonstration]:
    """Choose k of `items` by score and diversity, best first (maximal marginal relevance, Carbonell and Goldstein 1998).

    Args:
        items: Candidates.
        vectors: (n, dimension) unit rows of the candidates' replies or contexts, for their likeness to each other.
        user: Distribution of the user's emotion.
        reply: Distribution of the reply's emotion.
        k: How many to choose.
        weights: Weights of the parts.
    """
    scores = np.array([score(item, user, reply, weights) for item in items])
    likeness = vectors @ vectors.T
    chosen: list[int] = []
    while len(chosen) < min(k, len(items)):
        nearest = likeness[:, chosen].max(axis=1) if chosen else np.zeros(len(items))
        marginal = (1 - weights.diversity) * scores - weights.diversity * nearest
        marginal[chosen] = -np.inf
        chosen.append(int(marginal.argmax()))
    return [items[i] for i in chosen]
