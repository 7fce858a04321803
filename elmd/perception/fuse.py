"""Late fusion: what words, voice and face say of an emotion becomes one state.

A logarithmic opinion pool of likelihood ratios: log p(e) = log pi(e) + sum_m w_m (log p_m(e) - log pi_m(e)) + constant,
where pi_m is what modality m says when nothing is the matter. So a face that looks as faces of talking people look adds
nothing, and cannot drown clear words; an unusual face adds what is unusual about it. Genest and Zidek 1986, "Combining
Probability Distributions", is the survey of such pools.
"""

from collections.abc import Mapping

import numpy as np

from elmd.config import Strict
from elmd.labels import EKMAN
from elmd.types import EmotionState, Modality

FLOOR = 0.01
"""Least probability that a modality may give an emotion: none can rule one out."""


class Config(Strict):
    """How much each modality counts, and what it says at rest."""

    text: float = 1.0
    """Weight of the words."""
    audio: float = 0.5
    vision: float = 0.7
    rest_text: float = 0.3
    """Probability of neutral in what the words say when nothing is the matter; the rest is spread evenly."""
    rest_audio: float = 0.4
    rest_vision: float = 0.6
    prior: float = 0.3
    """Probability of neutral before anything is read."""


def fuse(states: Mapping[Modality, EmotionState], config: Config | None = None) -> EmotionState:
    """Return the fused state of what each modality says; of one modality alone, that state as it is.

    Raises ValueError when there is none.
    """
    if not states:
        raise ValueError("nothing to fuse")
    if len(states) == 1:
        return next(iter(states.values()))
    config = config or Config()
    total = np.log(_at_rest(config.prior))
    for modality, state in states.items():
        said = np.maximum([state.scores[label] for label in EKMAN], FLOOR)
        usual = _at_rest(float(getattr(config, f"rest_{modality}")))
        total = total + float(getattr(config, modality)) * (np.log(said / said.sum()) - np.log(usual))
    shares = np.exp(total - total.max())
    fused = EmotionState.from_scores(dict(zip(EKMAN, shares.tolist(), strict=True)), "fused")
    starts, ends = zip(*((state.start, state.end) for state in states.values()), strict=True)
    known = [time for time in starts if time is not None], [time for time in ends if time is not None]
    return EmotionState(fused.label, fused.scores, "fused", min(known[0], default=None), max(known[1], default=None))


def _at_rest(neutral: float) -> np.ndarray:
    other = (1 - neutral) / (len(EKMAN) - 1)
    return np.array([neutral if label == "neutral" else other for label in EKMAN])
