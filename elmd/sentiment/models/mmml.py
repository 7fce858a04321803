"""MMML: text and audio cross-attend, fuse, and each predicts for itself too (Wu et al., NAACL 2024).

Paper: "Multimodal Multi-loss Fusion Network for Sentiment Analysis". The paper fine-tunes an encoder for each modality;
here features come in. Choices made here:

- Features are mapped to one width, smaller than the encoders' 768, with sinusoidal positions: features of frames know
  nothing of their order. The vector of a whole modality is the mean of its frames, for the text too (the official code
  takes RoBERTa's pooled first token).
- With more than two modalities, each one's queries attend over the frames of all others one after the other; with two
  this is the paper's encoder.
- Losses are absolute errors, as in the official code. Earlier utterances (its context variant) are not read.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention, AttentionLayer, masked_mean, positions
from elmd.types import MODALITIES, Modality


class Config(Strict):
    """Sizes of MMML."""

    modalities: list[Modality] = Field(["text", "audio"], min_length=2)
    """Those to use; the paper's are text and audio."""
    fusion: Literal["concat", "pooled", "transformer"] = "concat"
    """Fuse the class tokens (v1), these with the means of the frames (v2), or all frames by a transformer (v3)."""
    width: int = 128
    heads: int = 8
    layers: int = Field(5, ge=1)
    """Cross-modality encoder layers."""
    fusion_layers: int = Field(3, ge=1)
    """Of the transformers of `fusion = "transformer"`."""
    dropout: float = 0.3
    weight: float = 1.0
    """Of the loss of each modality."""


class Model(SentimentModel):
    """Cross-modality encoder over several streams, a fusion network, and a head for each stream."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width, outputs = config.width, shape.target.outputs
        # In one order whatever the recipe's, so that the same seed makes the same model.
        self.used = [m for m in MODALITIES if m in config.modalities]
        for m in MODALITIES:
            self.absent[m].requires_grad_(m in self.used)
        self.project = nn.ModuleDict({m: nn.Linear(shape.widths[m], width) for m in self.used})
        self.token = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(1, 1, width)) for m in self.used})
        self.encoder = nn.ModuleList([CrossModalityLayer(self.used, config) for _ in range(config.layers)])
        self.fuse = FUSIONS[config.fusion](self.used, config)
        self.head = _head(len(self.used) * self.fuse.width, width, outputs, config.dropout)
        self.heads = nn.ModuleDict(
            {m: nn.Sequential(nn.Dropout(config.dropout), nn.Linear(width, outputs)) for m in self.used}
        )

    def forward(self, batch: Batch) -> Prediction:
        """Encode, fuse and predict from all streams and from each; see `SentimentModel`."""
        inputs = self.inputs(batch)
        frames = {m: self._projected(m, inputs[m]) for m in self.used}
        whole = {m: masked_mean(frames[m]) for m in self.used}
        states = {m: torch.cat([self.token[m].expand(len(batch), -1, -1), frames[m].values], 1) for m in self.used}
        masks = {m: nn.functional.pad(frames[m].mask, (1, 0), value=True) for m in self.used}
        for layer in self.encoder:
            states = layer(states, masks)
        fused = [self.fuse(m, states[m], whole[m], frames[m], masks[m]) for m in self.used]
        return Prediction(self.head(torch.cat(fused, -1)), {m: self.heads[m](whole[m]) for m in self.used})

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the error of the fused prediction and of each modality's, by its own labels where the data has them."""
        loss = self.target.loss(prediction.output, batch.labels)
        for m in self.used:
            labels = batch.unimodal.get(m, batch.labels)
            loss = loss + self.config.weight * self.target.loss(prediction.extras[m], labels)
        return loss

    def _projected(self, modality: Modality, frames: Frames) -> Frames:
        length = frames.values.shape[1]
        placed = self.project[modality](frames.values) + positions(length, self.config.width, frames.values.device)
        return Frames(placed, frames.lengths)


class CrossModalityLayer(nn.Module):
    """Every stream attends over the others, then over itself, then passes a feed-forward part; norms come after."""

    def __init__(self, modalities: list[Modality], config: Config) -> None:
        super().__init__()
        self.cross = nn.ModuleDict({m: Attend(config) for m in modalities})
        self.own = nn.ModuleDict({m: Attend(config) for m in modalities})
        self.feed = nn.ModuleDict({m: Feed(config) for m in modalities})

    def forward(self, states: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Return the streams' states, each (B, L, width)."""
        crossed = {}
        for m in states:
            others = [o for o in states if o != m]
            memory, mask = torch.cat([states[o] for o in others], 1), torch.cat([masks[o] for o in others], 1)
            crossed[m] = self.cross[m](states[m], memory, mask)
        return {m: self.feed[m](self.own[m](crossed[m], crossed[m], masks[m])) for m in states}


class Attend(nn.Module):
    """Attention with a residual and a layer norm after it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, dropout=config.dropout)
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.width)

    def forward(self, values: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Return (B, L, width)."""
        normed: Tensor = self.norm(values + self.dropout(self.attention(values, memory, mask)))
        return normed


class Feed(nn.Module):
    """A feed-forward part with a residual and a layer norm after it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = 4 * config.width
        self.feed = nn.Sequential(nn.Linear(config.width, hidden), nn.ReLU(), nn.Linear(hidden, config.width))
        self.dropout, self.norm = nn.Dropout(config.dropout), nn.LayerNorm(config.width)

    def forward(self, values: Tensor) -> Tensor:
        """Return (B, L, width)."""
        normed: Tensor = self.norm(values + self.dropout(self.feed(values)))
        return normed


class Concat(nn.Module):
    """Version 1: a stream's class token."""

    def __init__(self, modalities: list[Modality], config: Config) -> None:
        super().__init__()
        self.width = config.width

    def forward(self, modality: Modality, states: Tensor, whole: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """Return (B, self.width)."""
        return states[:, 0]


class Pooled(nn.Module):
    """Version 2: the class token together with the modality's own mean, through a layer."""

    def __init__(self, modalities: list[Modality], config: Config) -> None:
        super().__init__()
        self.width = config.width
        self.mix = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * config.width, config.width), nn.ReLU())
                for m in modalities
            }
        )

    def forward(self, modality: Modality, states: Tensor, whole: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """Return (B, self.width)."""
        mixed: Tensor = self.mix[modality](torch.cat([whole, states[:, 0]], -1))
        return mixed


class Transformed(nn.Module):
    """Version 3: each frame together with what it was before the encoder, through a transformer with a class token."""

    def __init__(self, modalities: list[Modality], config: Config) -> None:
        super().__init__()
        self.width = 2 * config.width
        self.token = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(1, 1, self.width)) for m in modalities})
        self.blocks = nn.ModuleDict({m: nn.ModuleList(self._blocks(config)) for m in modalities})

    def forward(self, modality: Modality, states: Tensor, whole: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        """Return (B, self.width)."""
        both = torch.cat([frames.values, states[:, 1:]], -1)
        values = torch.cat([self.token[modality].expand(len(both), -1, -1), both], 1)
        *first, last = self.blocks[modality].children()
        for block in first:
            values = block(values, mask)
        # Only the class token is read, so the last block computes that alone.
        token: Tensor = last(values[:, :1], mask, values)
        return token[:, 0]

    def _blocks(self, config: Config) -> list[AttentionLayer]:
        return [
            AttentionLayer(self.width, config.heads, dropout=config.dropout, norm_first=False)
            for _ in range(config.fusion_layers)
        ]


FUSIONS: dict[str, type[Concat] | type[Pooled] | type[Transformed]] = {
    "concat": Concat,
    "pooled": Pooled,
    "transformer": Transformed,
}


def _head(width: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 2 * hidden // 3), nn.ReLU()]
    return nn.Sequential(nn.Dropout(dropout), *layers, nn.Linear(2 * hidden // 3, outputs))
