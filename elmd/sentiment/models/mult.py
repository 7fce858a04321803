"""MulT: crossmodal transformers between every two modalities, on unaligned sequences (Tsai et al., ACL 2019).

Paper: "Multimodal Transformer for Unaligned Multimodal Language Sequences". Choices made here:

- Width, heads and dropouts are the official code's defaults; four layers are the paper's for MOSI.
- Every frame may be attended to: the official code hides later frames from earlier ones, which the paper does not say
  and which between unaligned sequences has no meaning. Padding is hidden always.
- What is pooled is the last true frame, so the last layer of a memory transformer computes that frame alone; the
  result is the same.
"""

from itertools import permutations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention, positions
from elmd.types import MODALITIES


class Config(Strict):
    """Sizes of MulT."""

    width: int = 30
    """Of each modality in the crossmodal transformers; the memory transformers have twice this."""
    heads: int = 5
    layers: int = 4
    """Of each crossmodal transformer."""
    memory_layers: int = Field(4, ge=1)
    """Of each memory transformer."""
    kernel: int = 3
    """Frames that the convolution over time sees."""
    text_dropout: float = 0.2
    """On the text's vectors."""
    embed_dropout: float = 0.2
    """On what goes into a transformer."""
    attention_dropout: float = 0.1
    dropout: float = 0.1
    """After attention and after the feed-forward part."""
    output_dropout: float = 0.0


class Model(SentimentModel):
    """Six crossmodal transformers, a memory transformer for each target modality, and a residual head."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.text_dropout = nn.Dropout(config.text_dropout)
        self.project = nn.ModuleDict(
            {m: nn.Conv1d(shape.widths[m], config.width, config.kernel, padding="same", bias=False) for m in MODALITIES}
        )
        self.cross = nn.ModuleDict(
            {
                _pair(target, source): Crossmodal(config.width, config.layers, config)
                for target, source in permutations(MODALITIES, 2)
            }
        )
        self.memory = nn.ModuleDict({m: Memory(2 * config.width, config.memory_layers, config) for m in MODALITIES})
        self.head = ResidualHead(2 * config.width * len(MODALITIES), shape.target.outputs, config.output_dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Enrich every modality with the two others and read its last frame; see `SentimentModel`."""
        inputs = self.inputs(batch)
        frames = {m: self._projected(m, inputs[m]) for m in MODALITIES}
        last = []
        for target in MODALITIES:
            sources = [m for m in MODALITIES if m != target]
            crossed = [self.cross[_pair(target, s)](frames[target], frames[s]) for s in sources]
            last.append(self.memory[target](Frames(torch.cat(crossed, -1), frames[target].lengths)))
        return Prediction(self.head(torch.cat(last, -1)))

    def _projected(self, modality: str, frames: Frames) -> Frames:
        # Zeros beyond the end, so that padding is to the convolution what the border is.
        values = frames.values.masked_fill(~frames.mask[..., None], 0)
        values = self.text_dropout(values) if modality == "text" else values
        return Frames(self.project[modality](values.transpose(1, 2)).transpose(1, 2), frames.lengths)


class Transformer(nn.Module):
    """What crossmodal and memory transformers share: scaled inputs with positions, blocks, and a norm at the end."""

    def __init__(self, width: int, layers: int, config: Config) -> None:
        super().__init__()
        self.embed_dropout = nn.Dropout(config.embed_dropout)
        self.blocks = nn.ModuleList([Block(width, config) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def embedded(self, frames: Frames) -> Tensor:
        """Return what goes into the first block, (B, L, width)."""
        _, length, width = frames.values.shape
        values = width**0.5 * frames.values + positions(length, width, frames.values.device)
        embedded: Tensor = self.embed_dropout(values)
        return embedded


class Crossmodal(Transformer):
    """A target modality enriched, in every block, by the lowest level of a source modality."""

    def forward(self, target: Frames, source: Frames) -> Tensor:
        """Return the target's frames, (B, L, width)."""
        values, low = self.embedded(target), self.embedded(source)
        for block in self.blocks:
            values = block(values, low, source.mask)
        normed: Tensor = self.norm(values)
        return normed


class Memory(Transformer):
    """Self-attention over an enriched modality, of which the last true frame is read."""

    def forward(self, frames: Frames) -> Tensor:
        """Return (B, width)."""
        values, mask = self.embedded(frames), frames.mask
        for block in self.blocks[:-1]:
            values = block(values, values, mask)
        end = (frames.lengths - 1)[:, None, None].expand(-1, 1, values.shape[-1])
        normed: Tensor = self.norm(self.blocks[-1](values.gather(1, end), values, mask)[:, 0])
        return normed


class Block(nn.Module):
    """Pre-norm attention over a source, then a feed-forward part, both with residuals."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.attention = Attention(width, config.heads, dropout=config.attention_dropout)
        # No dropout inside: on a CPU it would cost more than the two linear maps.
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Return the target (B, L, width) after it has attended over the source where `mask` is true."""
        attended = self.attention(self.attention_norm(target), self.attention_norm(source), mask)
        target = target + self.dropout(attended)
        added: Tensor = target + self.dropout(self.feed(self.feed_norm(target)))
        return added


class ResidualHead(nn.Module):
    """Two linear maps with a residual around them, then the output."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)
        self.dropout = dropout

    def forward(self, values: Tensor) -> Tensor:
        """Return (B, outputs) for (B, width)."""
        hidden = functional.dropout(functional.relu(self.inner(values)), self.dropout, self.training)
        found: Tensor = self.out(values + self.outer(hidden))
        return found


def _pair(target: str, source: str) -> str:
    return f"{target}_from_{source}"
