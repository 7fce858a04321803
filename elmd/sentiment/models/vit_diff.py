"""ViT-Diff: differential attention that circulates through text, audio and picture patches; elmd's own design.

Not a published system. It builds on "Differential Transformer" (Ye et al., arXiv 2410.05258), whose attention is the
difference of two softmax maps: what both see is noise and cancels. The design:

- Each modality is a set of tokens at one width; vision may be the patch tokens of a ViT (196 × 768) or frame vectors.
- A block lets the tokens in the first place attend to themselves (differentially), then to the other two sets:
  softmax(Q_v K_tᵀ) V_t - λ softmax(Q_v K_aᵀ) V_a, so that audio says what to take away from what the text says; then
  a SwiGLU part. Before each part is an RMS norm, around it a residual.
- The block is applied `steps` times with the same weights, and each time the three sets move on, t → a → v → t. After
  three steps each modality has been in the first place once. λ is learned for each step, as in the paper.
- The pooled sets, joined, are read by a small head.

Unlike in the paper the queries and keys of a map are as wide as its values, so that torch's fused kernels take them and
no map is ever stored. `differential = false` sets λ to 0, `tied = false` gives each step weights of its own, and
`steps = 1` does not circulate: the ablations.
"""

from math import exp

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Head, masked_mean, positions
from elmd.types import MODALITIES, Modality


class Config(Strict):
    """Sizes of ViT-Diff, and what can be left out of it."""

    width: int = 64
    heads: int = 2
    steps: int = Field(3, ge=1)
    """How often the block is applied."""
    hidden: int = 192
    """Width inside the SwiGLU part."""
    dropout: float = 0.1
    differential: bool = True
    tied: bool = True


class Model(SentimentModel):
    """Three sets of tokens, one block that goes round them, and a head on the pooled sets."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.embed = nn.ModuleDict({m: nn.Linear(shape.widths[m], config.width) for m in MODALITIES})
        self.blocks = nn.ModuleList(Block(config) for _ in range(1 if config.tied else config.steps))
        self.balance = Balance(config.steps, config.width // config.heads) if config.differential else None
        self.norm = nn.RMSNorm(config.width)
        self.head = Head(3 * config.width, config.width, shape.target.outputs, config.dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Circulate the token sets; see `SentimentModel`."""
        sets = {m: self._tokens(m, frames) for m, frames in self.inputs(batch).items()}
        lambdas = self.balance() if self.balance else None
        places: tuple[Modality, ...] = ("vision", "text", "audio")
        for step in range(self.config.steps):
            query, kept, cancelled = places
            block = self.blocks[0 if self.config.tied else step]
            sets[query] = block(sets[query], sets[kept], sets[cancelled], None if lambdas is None else lambdas[step])
            places = (cancelled, query, kept)
        pooled = [masked_mean(Frames(self.norm(sets[m].values), sets[m].lengths)) for m in MODALITIES]
        return Prediction(self.head(torch.cat(pooled, -1)))

    def _tokens(self, modality: Modality, frames: Frames) -> Frames:
        values = self.embed[modality](frames.values)
        return Frames(values + positions(values.shape[1], values.shape[2], values.device), frames.lengths)


class Balance(nn.Module):
    """λ of every step, once for attention within a set and once between sets: exp(q1·k1) - exp(q2·k2) + start."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.1 * torch.randn(steps, 2, 4, width))
        self.start: Tensor
        starts = torch.tensor([[0.8 - 0.6 * exp(-0.3 * step)] * 2 for step in range(steps)])
        self.register_buffer("start", starts, persistent=False)

    def forward(self) -> Tensor:
        """Return (steps, 2, 2): [λ, its start] of the attention within and between."""
        q1, k1, q2, k2 = self.vectors.unbind(2)
        learned = (q1 * k1).sum(-1).exp() - (q2 * k2).sum(-1).exp()
        return torch.stack([learned + self.start, self.start], -1)


class Block(nn.Module):
    """Attention within a token set, attention from it to two others, and a SwiGLU part."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.within = Within(config.width, config.heads, config.differential)
        self.between = Between(config.width, config.heads, config.differential)
        self.within_norm, self.between_norm = nn.RMSNorm(config.width), nn.RMSNorm(config.width)
        self.feed = nn.Sequential(nn.RMSNorm(config.width), SwiGLU(config.width, config.hidden))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query: Frames, kept: Frames, cancelled: Frames, lambdas: Tensor | None) -> Frames:
        """Return the new tokens of `query`; `lambdas` (2, 2) as of one step of `Balance`, or None for λ = 0."""
        within, between = lambdas if lambdas is not None else (None, None)
        x = query.values
        x = x + self.dropout(self.within(Frames(self.within_norm(x), query.lengths), within))
        sets = [
            Frames(self.between_norm(v), f.lengths) for v, f in ((kept.values, kept), (cancelled.values, cancelled))
        ]
        x = x + self.dropout(self.between(self.between_norm(x), *sets, between))
        return Frames(x + self.dropout(self.feed(x)), query.lengths)


class Differential(nn.Module):
    """What the two kinds of differential attention share: heads, their difference, its norm, the output map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width, bias=False)

    def split(self, projected: Tensor, parts: int) -> list[Tensor]:
        """Return `parts` tensors (B, heads, L, width of a head) from (B, L, parts × width)."""
        rows, length, _ = projected.shape
        return list(projected.view(rows, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0))

    def join(self, kept: Tensor, cancelled: Tensor | None, balance: Tensor | None) -> Tensor:
        """Return kept - λ cancelled, normed a head, as (B, L, width)."""
        if cancelled is None or balance is None:
            return self._out(self.norm(kept.float()))
        factor, start = balance
        return self._out((1 - start) * self.norm(kept.float() - factor * cancelled))

    def _out(self, values: Tensor) -> Tensor:
        mapped: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return mapped


class Within(Differential):
    """(softmax(Q1 K1ᵀ) - λ softmax(Q2 K2ᵀ)) V over one token set."""

    def __init__(self, width: int, heads: int, differential: bool) -> None:
        super().__init__(width, heads)
        self.parts = 5 if differential else 3
        self.project = nn.Linear(width, self.parts * width, bias=False)

    def forward(self, tokens: Frames, balance: Tensor | None) -> Tensor:
        """Attend within the set; `balance` is λ and its start."""
        v, q1, k1, *second = self.split(self.project(tokens.values), self.parts)
        found = _attend(q1, k1, v, tokens.mask)
        taken = _attend(second[0], second[1], v, tokens.mask) if second else None
        return self.join(found, taken, balance)


class Between(Differential):
    """softmax(Q K_tᵀ) V_t - λ softmax(Q K_aᵀ) V_a: one set of maps over the tokens of t and a, with a's sign turned."""

    def __init__(self, width: int, heads: int, differential: bool) -> None:
        super().__init__(width, heads)
        self.query = nn.Linear(width, width, bias=False)
        self.kept = nn.Linear(width, 2 * width, bias=False)
        self.cancelled = nn.Linear(width, 2 * width, bias=False) if differential else None

    def forward(self, query: Tensor, kept: Frames, cancelled: Frames, balance: Tensor | None) -> Tensor:
        """Attend from `query` (B, L, width) to two sets; `balance` is λ and its start."""
        (q,) = self.split(self.query(query), 1)
        k, v = self.split(self.kept(kept.values), 2)
        found = _attend(q, k, v, kept.mask)
        if self.cancelled is None:
            return self.join(found, None, None)
        k, v = self.split(self.cancelled(cancelled.values), 2)
        return self.join(found, _attend(q, k, v, cancelled.mask), balance)


class SwiGLU(nn.Module):
    """(SiLU(x W1) ⊙ x W2) W3."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the same shape."""
        gate, value = self.up(values).chunk(2, -1)
        mapped: Tensor = self.down(functional.silu(gate) * value)
        return mapped


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
