"""ALMT: the language guides what is learned of audio and vision (Zhang et al., EMNLP 2023).

Paper: "Learning Language-guided Adaptive Hyper-modality Representation for Multimodal Sentiment Analysis". Choices
made here:

- Positions of frames are sinusoidal, so that a sequence may have any length; those of the learned tokens are learned.
- Each head is `width` / `heads` wide, where the official transformers have heads of 64 whatever the width.
- The embedding layers keep their learned tokens only, so their last block computes nothing else: the cost grows with
  the length and not with its square, and the result is the same.
- In the official fusion the class token is a query of its own: the target's other tokens, the language, never reach
  it, and language speaks through the attention of the hyper-modality layers alone. `readout = "class"` is that;
  "mean" reads the mean of all target tokens instead.
- The running hyper-modality begins near zero; the official ones would be zeros after the layer norm.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import AttentionLayer, positions
from elmd.types import MODALITIES


class Config(Strict):
    """Sizes of ALMT."""

    width: int = 128
    tokens: int = Field(8, ge=1)
    """Learned tokens that stand for a modality."""
    heads: int = 8
    hidden: int = 128
    """Width inside the feed-forward parts."""
    embed_layers: int = Field(1, ge=1)
    """Blocks of each modality's embedding."""
    hyper_layers: int = Field(3, ge=1)
    """Layers of hyper-modality learning; the language has one block fewer."""
    fusion_layers: int = Field(2, ge=1)
    """The paper has two for MOSI and four for MOSEI and SIMS."""
    normalize_hyper: bool = True
    """Add each layer's finding to the normalised hyper-modality, as the official code; false: as the paper says."""
    readout: Literal["class", "mean"] = "class"
    dropout: float = 0.0


class Model(SentimentModel):
    """Tokens of each modality, hyper-modality learning under the language's guidance, and a fusion transformer."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.embed = nn.ModuleDict({m: Embedding(shape.widths[m], config) for m in MODALITIES})
        self.language_positions = _tokens(config.tokens, config.width)
        self.language = nn.ModuleList([_block(config) for _ in range(config.hyper_layers - 1)])
        self.hyper = _tokens(config.tokens, config.width)
        self.learn = nn.ModuleList([HyperLayer(config) for _ in range(config.hyper_layers)])
        self.fusion = Fusion(config)
        self.head = nn.Linear(config.width, shape.target.outputs)

    def forward(self, batch: Batch) -> Prediction:
        """Let the language gather the hyper-modality and predict from both; see `SentimentModel`."""
        inputs = self.inputs(batch)
        text, audio, vision = (self.embed[m](inputs[m]) for m in MODALITIES)
        scales = [text + self.language_positions]
        for block in self.language:
            scales.append(block(scales[-1]))
        hyper = self.hyper.expand(len(text), -1, -1)
        for layer, language in zip(self.learn, scales, strict=True):
            hyper = layer(language, audio, vision, hyper)
        return Prediction(self.head(self.fusion(hyper, scales[-1])))

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the mean squared error, or cross-entropy."""
        return self.target.loss(prediction.output, batch.labels, power=2)


class Embedding(nn.Module):
    """A modality's frames as a few tokens: learned tokens go before the frames and are kept of the last block."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.width)
        self.tokens = _tokens(config.tokens, config.width)
        self.blocks = nn.ModuleList([_block(config) for _ in range(config.embed_layers)])

    def forward(self, frames: Frames) -> Tensor:
        """Return (B, tokens, width)."""
        rows, length, _ = frames.values.shape
        projected = self.project(frames.values)
        placed = projected + positions(length, projected.shape[-1], projected.device)
        values = torch.cat([self.tokens.expand(rows, -1, -1), placed], 1)
        count = self.tokens.shape[1]
        mask = torch.cat([frames.mask.new_ones(rows, count), frames.mask], 1)
        for block in self.blocks[:-1]:
            values = block(values, mask)
        kept: Tensor = self.blocks[-1](values[:, :count], mask, values)
        return kept


class HyperLayer(nn.Module):
    """Adaptive hyper-modality learning: the language asks audio and vision, and what they answer is added."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norms = nn.ModuleDict({m: nn.LayerNorm(width) for m in MODALITIES})
        self.hyper_norm = nn.LayerNorm(width) if config.normalize_hyper else nn.Identity()
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.ModuleDict({m: nn.Linear(width, 2 * width, bias=False) for m in ("audio", "vision")})
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor, hyper: Tensor) -> Tensor:
        """Return the hyper-modality (B, tokens, width) with this layer's finding added."""
        query = self._split(self.query(self.norms["text"](text)))
        found = self._asked(query, "audio", audio) + self._asked(query, "vision", vision)
        added: Tensor = self.hyper_norm(hyper) + self.dropout(self.out(found.transpose(1, 2).flatten(2)))
        return added

    def _asked(self, query: Tensor, modality: str, values: Tensor) -> Tensor:
        key, value = self.key_value[modality](self.norms[modality](values)).chunk(2, -1)
        return functional.scaled_dot_product_attention(query, self._split(key), self._split(value))

    def _split(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], self.heads, -1).transpose(1, 2)


class Fusion(nn.Module):
    """A cross-modal transformer: the language is the target, the hyper-modality the source."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        # A target token sees the source and no other target token, so those that are not read are not computed.
        self.alone = config.readout == "class"
        self.token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.source_positions = _tokens(config.tokens + 1, config.width)
        self.target_positions = _tokens(1 if self.alone else config.tokens + 1, config.width)
        self.blocks = nn.ModuleList([_block(config) for _ in range(config.fusion_layers)])

    def forward(self, hyper: Tensor, language: Tensor) -> Tensor:
        """Return (B, width)."""
        token = self.token.expand(len(hyper), -1, -1)
        source = torch.cat([token, hyper], 1) + self.source_positions
        target = (token if self.alone else torch.cat([token, language], 1)) + self.target_positions
        for block in self.blocks:
            target = block(target, None, source)
        return target.mean(1)


def _block(config: Config) -> AttentionLayer:
    return AttentionLayer(config.width, config.heads, config.hidden, config.dropout)


def _tokens(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(1, count, width))
