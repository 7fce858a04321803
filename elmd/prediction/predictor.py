"""REP: what predicts the emotion of the reply from the turns before it. Nothing of the reply itself is ever seen.

A folder of weights holds `predictor.json` (the encoder, and what else belongs to it) and either `predictor.safetensors`
(logistic regression: weight (7, features), bias (7,)) or `transformer.safetensors` (`elmd.prediction.network`).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from elmd.config import Strict
from elmd.errors import AssetError
from elmd.labels import EKMAN
from elmd.types import Dialogue, EmotionState

SHIPPED = "weights/reply-emotion"
FACTS = "predictor.json"
COURSE = 3
"""How many last turns the course of emotions of the logistic regression covers."""


class Config(Strict):
    """Which weights predict the emotion of the reply."""

    weights: str | None = None
    """A folder written by `elmd train predictor`; the shipped weights when None."""


class Encoder(Protocol):
    """What a predictor needs of an embedder."""

    name: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (n, dimension) float32."""


class ReplyEmotionPredictor(ABC):
    """Predicts the emotion of the reply; loads on first use.

    Args:
        folder: Where the weights lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def turns(self) -> int:
        """How many last turns it looks at."""

    @abstractmethod
    def predict(
        self, dialogue: Dialogue, states: Sequence[EmotionState], vector: np.ndarray, encoder: Encoder
    ) -> EmotionState:
        """Return the reply's emotion; raises AssetError when the weights want another encoder.

        Args:
            dialogue: The turns before the reply.
            states: The emotions of the last `turns` of them (or all, if there are fewer), oldest first.
            vector: (dimension,) the context as retrieval encodes it.
            encoder: What made `vector`.
        """

    def check(self, encoder: Encoder) -> None:
        """Raise AssetError if the weights were learned with another encoder."""
        if encoder.name != self.facts["encoder"]:
            raise AssetError(
                f"{self.folder} was trained on encoder {self.facts['encoder']}, not {encoder.name}; train it again"
            )

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `predictor.json` says."""
        found: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        return found


class LinearPredictor(ReplyEmotionPredictor):
    """Logistic regression over the context's vector and the course of emotions."""

    turns = COURSE

    def predict(
        self, dialogue: Dialogue, states: Sequence[EmotionState], vector: np.ndarray, encoder: Encoder
    ) -> EmotionState:
        """Return the reply's emotion."""
        self.check(encoder)
        weight, bias = self._weights
        features = np.concatenate([vector, course_features(dialogue, states)])
        if weight.shape[1] != len(features):
            raise AssetError(f"{self.folder} was trained on vectors of another length; train it again")
        logits = weight @ features + bias
        shares = np.exp(logits - logits.max())
        return EmotionState.from_scores(dict(zip(EKMAN, shares.tolist(), strict=True)), "fused")

    @cached_property
    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        from safetensors.numpy import load_file

        tensors = load_file(self.folder / "predictor.safetensors")
        return tensors["weight"], tensors["bias"]


def open_predictor(config: Config) -> ReplyEmotionPredictor:
    """Return the predictor whose weights lie in the configured folder; raises AssetError if there are none."""
    folder = Path(config.weights) if config.weights else Path(str(resources.files("elmd") / SHIPPED))
    if (folder / "transformer.safetensors").is_file():
        from elmd.prediction.network import TransformerPredictor

        return TransformerPredictor(folder)
    if not (folder / "predictor.safetensors").is_file():
        raise AssetError(f"{folder} holds no reply-emotion predictor; train one: elmd train predictor")
    return LinearPredictor(folder)


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
