"""The face reader: the expressions of the sampled frames of a stretch of time to one EmotionState."""

import numpy as np

from elmd.config import Strict
from elmd.labels import EKMAN
from elmd.types import EmotionState, Features

_SCORE = "score"


class Config(Strict):
    """How frames become a state."""

    softness: float = 0.15
    """Share of the probability that is spread evenly: an expression net trained on posed photographs is too sure."""


class FaceReader:
    """Reads the emotion of a face from what the face extractor measured."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()

    def read(self, features: Features, start: float, end: float) -> EmotionState | None:
        """Return the state between two moments in seconds; None where no face was seen.

        It is the mean of the frames' probabilities, each weighted by how sure the detector was of the face.
        """
        seen = features.between(start, end)
        if not len(seen):
            return None
        weights = seen.column(_SCORE)
        shares = np.stack([seen.column(label) for label in EKMAN], 1)
        mean = (shares * weights[:, None]).sum(0) / weights.sum()
        soft = (1 - self.config.softness) * mean + self.config.softness / len(EKMAN)
        state = EmotionState.from_scores(dict(zip(EKMAN, soft.tolist(), strict=True)), "vision")
        return EmotionState(state.label, state.scores, "vision", start, end)
