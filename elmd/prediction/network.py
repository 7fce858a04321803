"""The transformer over a dialogue that predicts the emotion of the reply: a token a turn, and one that asks.

Weights on disk: `transformer.safetensors` (every member of the ensemble) and `predictor.json` (shape and encoder).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.errors import AssetError
from elmd.labels import EKMAN
from elmd.prediction.predictor import FACTS, Encoder, ReplyEmotionPredictor
from elmd.prediction.scenes import ANSWERER, ASKER, NOBODY, Scenes, arrange, look, scores
from elmd.types import Dialogue, EmotionState

WEIGHTS = "transformer.safetensors"
INERTIA = 2.0
"""Where training starts: the log-odds that a person goes on feeling what they felt when they spoke last."""
KINDS = ("text", "emotions", "vision")
TEXT, EMOTIONS, VISION = range(3)
_MEMORY = 4096
"""Sentence vectors kept, so that a turn of a growing dialogue is encoded once."""


class NetworkConfig(Strict):
    """Size of the network."""

    turns: int = 8
    """How many last turns it sees."""
    width: int = 64
    layers: int = 1
    heads: int = 4
    dropout: float = 0.3
    text_components: int = 96
    """Principal components of the sentence vectors that are kept."""
    vision_components: int = 16
    """Few, as whole frames show the show: more of them are learned by heart and do not carry over."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A batch of contexts as tensors.

    Attributes:
        values: Text (b, turns, components), emotions (b, turns, 7), vision (b, turns, components), float32.
        there: Which of the three is known of each turn, (3, b, turns) bool.
        roles: As in `Scenes`, (b, turns).
    """

    values: tuple[Tensor, Tensor, Tensor]
    there: Tensor
    roles: Tensor


class Components(nn.Module):
    """Principal components of vectors, learned once from the train split and scaled alike; at most their width.

    Args:
        width: Of the vectors, may be 0.
        count: How many components are kept; vectors that are not wider are standardised instead.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, min(width, count)))
        self.mean: Tensor
        self.basis: Tensor

    def learn(self, rows: Tensor) -> None:
        """Set mean and basis by (n, width) vectors."""
        if not rows.numel():
            return
        self.mean.copy_(rows.mean(0))
        if self.basis.shape[0] == self.basis.shape[1]:
            self.basis.copy_(torch.diag(0.5 / (rows.std(0) + 1e-3)))
            return
        _, sizes, directions = torch.linalg.svd(rows - self.mean, full_matrices=False)
        spread = sizes[0] / len(rows) ** 0.5 / 3
        known = min(len(directions), self.basis.shape[1])
        self.basis[:, :known] = directions[:known].T / spread

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (..., components)."""
        return (vectors - self.mean) @ self.basis


class Network(nn.Module):
    """One transformer: what was said, felt and seen at each turn, attended to by a token that stands for the reply.

    Beside it a short way: what the answerer and the asker felt in their last turns adds to the scores directly. What they
    felt is what the network makes of the turns: of the emotion that was read or given, of words and looks.

    Args:
        config: Its size.
        text, vision: Components of a sentence vector and of visual features; vision may be 0.
    """

    def __init__(self, config: NetworkConfig, text: int, vision: int) -> None:
        super().__init__()
        labels, width = len(EKMAN), config.width
        self.inputs = nn.ModuleList(nn.Linear(size, width) for size in (text, labels, vision))
        self.missing = nn.Parameter(torch.zeros(3, width))
        self.role = nn.Embedding(4, width)
        self.distance = nn.Embedding(config.turns, width)
        self.query = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.turn_head = nn.Linear(width, labels)
        self.reply_head = nn.Linear(width, labels)
        self.trust = nn.Parameter(torch.tensor(0.5))
        self.recency = nn.Parameter(-torch.arange(config.turns).float().repeat(2, 1))
        self.inertia = nn.Parameter(torch.cat([INERTIA * torch.eye(labels), torch.zeros(labels, labels)]))
        for table in (self.role, self.distance):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return logits of the reply's emotion, (b, 7), and of each turn's own, (b, turns, 7)."""
        text, emotions, vision = inputs.values
        values = (self.dropout(text), emotions, self.dropout(vision))
        pairs = zip(self.inputs, values, inputs.there, self.missing, strict=True)
        parts = [torch.where(there[..., None], linear(values), missing) for linear, values, there, missing in pairs]
        turns = self.dropout(sum(parts)) + self.role(inputs.roles) + self.distance.weight
        absent = nn.functional.pad(inputs.roles == NOBODY, (1, 0), value=False)
        tokens = torch.cat([self.query.expand(len(turns), 1, -1), turns], 1)
        hidden = self.dropout(self.norm(self.encoder(tokens, src_key_padding_mask=absent)))
        told = emotions.clamp(min=1e-3).log() * inputs.there[EMOTIONS][..., None]
        felt = self.turn_head(hidden[:, 1:]) + self.trust * told
        return self.reply_head(hidden[:, 0]) + self._go_on(inputs.roles, felt.softmax(-1)), felt

    def _go_on(self, roles: Tensor, felt: Tensor) -> Tensor:
        """The short way: the emotions of answerer and asker, recent turns weighing more, to logits (b, 7)."""
        pooled = []
        for role, recency in zip((ANSWERER, ASKER), self.recency, strict=True):
            said = roles == role
            weights = torch.where(said, recency, -1e4).softmax(-1) * said
            pooled.append((weights[..., None] * felt).sum(1))
        return torch.cat(pooled, 1) @ self.inertia


class Ensemble(nn.Module):
    """Networks that learned from different parts of the train split; the mean of their probabilities decides.

    Args:
        config: Size of each.
        text, vision: Width of a sentence vector and of visual features; vision may be 0.
        members: How many networks.
    """

    def __init__(self, config: NetworkConfig, text: int, vision: int, members: int) -> None:
        super().__init__()
        self.config = config
        self.text = Components(text, config.text_components)
        self.vision = Components(max(1, vision), config.vision_components)
        self.vision_width = vision
        sizes = self.text.basis.shape[1], self.vision.basis.shape[1]
        self.networks = [Network(config, *sizes) for _ in range(members)]
        self.members = nn.ModuleList(self.networks)

    def learn_components(self, scenes: Scenes) -> None:
        """Set how vectors are brought to components."""
        self.text.learn(torch.from_numpy(scenes.text))
        if self.vision_width:
            self.vision.learn(torch.from_numpy(scenes.vision[scenes.seen]))

    def inputs(self, scenes: Scenes, modalities: Sequence[str] = KINDS) -> "Table":
        """Return contexts as the networks take them, without the modalities that are not named."""
        vision = scenes.vision if self.vision_width else np.zeros((len(scenes.text), 1), np.float32)
        values = (torch.from_numpy(scenes.text), torch.from_numpy(scenes.emotions), torch.from_numpy(vision))
        there = torch.ones(3, len(scenes.text), dtype=torch.bool)
        there[VISION] = torch.from_numpy(scenes.seen)
        there &= torch.tensor([name in modalities for name in KINDS])[:, None]
        with torch.no_grad():
            brought = (self.text(values[0]), values[1], self.vision(values[2]))
        return Table(brought, there, torch.from_numpy(scenes.turns), torch.from_numpy(scenes.roles))

    @torch.inference_mode()
    def probabilities(self, table: "Table") -> np.ndarray:
        """Return the probability of every label of EKMAN, (n, 7) float32."""
        self.eval()
        everything = table.rows(torch.arange(len(table.roles)))
        found = [member(everything)[0].softmax(-1) for member in self.networks]
        mean: np.ndarray = torch.stack(found).mean(0).numpy()
        return mean


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`Scenes` as tensors with components in place of vectors; `there` is (3, u)."""

    values: tuple[Tensor, Tensor, Tensor]
    there: Tensor
    turns: Tensor
    roles: Tensor

    def rows(self, rows: Tensor) -> Inputs:
        """Return some contexts as a batch."""
        turns, roles = self.turns[rows], self.roles[rows]
        text, emotions, vision = self.values
        there = self.there[:, turns] & (roles != NOBODY)
        return Inputs((text[turns], emotions[turns], vision[turns]), there, roles)


class TransformerPredictor(ReplyEmotionPredictor):
    """The ensemble behind the predictor's interface; looks at vision where the utterances have it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._vectors: dict[str, np.ndarray] = {}

    @property
    def turns(self) -> int:
        """How many last turns it looks at."""
        return self._config.turns

    def predict(
        self, dialogue: Dialogue, states: Sequence[EmotionState], vector: np.ndarray, encoder: Encoder
    ) -> EmotionState:
        """Return the reply's emotion; `vector` is not used, as every turn has its own."""
        self.check(encoder)
        inputs = self._ensemble.inputs(self.scene(dialogue, states, encoder), self.facts["modalities"])
        shares = self._ensemble.probabilities(inputs)[0]
        return EmotionState.from_scores(dict(zip(EKMAN, shares.tolist(), strict=True)), "fused")

    def scene(self, dialogue: Dialogue, states: Sequence[EmotionState], encoder: Encoder) -> Scenes:
        """Return what is seen of a dialogue: the whole input of a prediction."""
        utterances, places, roles = arrange([dialogue], self.turns)
        emotions = scores([*reversed(states)][: self.turns])
        vision, seen = look(utterances, Path(), self.facts["vision"])
        return Scenes(self._encode([u.text for u in utterances], encoder), emotions, vision, seen, places, roles)

    def _encode(self, texts: Sequence[str], encoder: Encoder) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if len(self._vectors) + len(new) > _MEMORY:
            self._vectors.clear()
            new = [*dict.fromkeys(texts)]
        if new:
            self._vectors |= dict(zip(new, encoder.encode(new), strict=True))
        return np.array([self._vectors[text] for text in texts], np.float32)

    @cached_property
    def _config(self) -> NetworkConfig:
        return NetworkConfig.model_validate(self.facts["network"])

    @cached_property
    def _ensemble(self) -> Ensemble:
        from safetensors.torch import load_file

        ensemble = Ensemble(self._config, self.facts["dimension"], self.facts["vision"], self.facts["members"])
        try:
            ensemble.load_state_dict(load_file(self.folder / WEIGHTS))
        except RuntimeError as error:
            raise AssetError(f"{self.folder / WEIGHTS} does not fit {FACTS}; train it again") from error
        return ensemble.eval()


def save(ensemble: Ensemble, out: Path, facts: dict[str, Any]) -> None:
    """Write the weights of an ensemble and what they need to be used again."""
    from safetensors.torch import save_file

    from elmd.files import write_text

    save_file({name: value.contiguous() for name, value in ensemble.state_dict().items()}, out / WEIGHTS)
    shape = {
        "network": ensemble.config.model_dump(),
        "dimension": len(ensemble.text.mean),
        "vision": ensemble.vision_width,
        "members": len(ensemble.members),
    }
    write_text(out / FACTS, json.dumps({**facts, **shape}) + "\n")
