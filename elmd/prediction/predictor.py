"""The reply-emotion predictor: logistic regression over the words of the context and the course of emotions.

Weights on disk: `predictor.safetensors` (weight (7, features), bias (7,)) and `predictor.json` (encoder and revision).
It sees the turns before the reply only, never the reply.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from elmd.config import Strict
from elmd.errors import AssetError
from elmd.labels import EKMAN
from elmd.types import Dialogue, EmotionState

SHIPPED = "weights/reply-emotion"
COURSE = 3
"""How many last turns the course of emotions covers."""


class Config(Strict):
    """Which weights predict the emotion of the reply."""

    weights: str | None = None
    """A folder written by `elmd train predictor`; the shipped weights when None."""


def course_features(dialogue: Dialogue, states: Sequence[EmotionState]) -> np.ndarray:
    """Return the course of emotions, (COURSE * 8,) float32.

    For each of the last COURSE turns, newest first: its seven scores, and 1 if the person to answer said it, else 0;
    zeros where the dialogue is shorter. `states` are those of the last turns, oldest first.
    """
    features = np.zeros((COURSE, len(EKMAN) + 1), np.float32)
    newest_first = list(zip(reversed(dialogue.turns), reversed(states), strict=False))[:COURSE]
    for row, (turn, state) in zip(features, newest_first, strict=False):
        row[: len(EKMAN)] = [state.scores[label] for label in EKMAN]
        row[-1] = turn.speaker == dialogue.last.speaker
    return features.ravel()


class ReplyEmotionPredictor:
    """Predicts the emotion of the reply from the context's vector and the course of emotions; loads on first use."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()

    @cached_property
    def folder(self) -> Path:
        """Where the weights lie."""
        folder = Path(self.config.weights) if self.config.weights else Path(str(resources.files("elmd") / SHIPPED))
        if not (folder / "predictor.safetensors").is_file():
            raise AssetError(f"{folder} holds no reply-emotion predictor; train one: elmd train predictor")
        return folder

    def predict(self, vector: np.ndarray, course: np.ndarray, encoder: str) -> EmotionState:
        """Return the reply's emotion.

        Args:
            vector: (dimension,) the context as the retrieval encoder sees it.
            course: What `course_features` returns.
            encoder: Name of the encoder that made `vector`; raises AssetError when the weights want another.
        """
        weight, bias, learned_on = self._weights
        if encoder != learned_on or weight.shape[1] != len(vector) + len(course):
            raise AssetError(f"{self.folder} was trained on encoder {learned_on}, not {encoder}; train it again")
        logits = weight @ np.concatenate([vector, course]) + bias
        shares = np.exp(logits - logits.max())
        return EmotionState.from_scores(dict(zip(EKMAN, shares.tolist(), strict=True)), "fused")

    @cached_property
    def _weights(self) -> tuple[np.ndarray, np.ndarray, str]:
        from safetensors.numpy import load_file

        tensors = load_file(self.folder / "predictor.safetensors")
        facts = json.loads((self.folder / "predictor.json").read_text(encoding="utf-8"))
        return tensors["weight"], tensors["bias"], facts["encoder"]
