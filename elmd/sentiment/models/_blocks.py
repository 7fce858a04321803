"""What several sentiment models share: masked attention, recurrent encoders, pooling, positions, heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from elmd.sentiment.batch import Frames


def masked_mean(frames: Frames) -> Tensor:
    """Return the mean over the true frames, (B, width); values beyond a row's length may be anything."""
    mask = frames.mask[..., None]
    return frames.values.masked_fill(~mask, 0).sum(1) / frames.lengths[:, None].to(frames.values.dtype)


def masked_max(frames: Frames) -> Tensor:
    """Return the maximum over the true frames, (B, width)."""
    return frames.values.masked_fill(~frames.mask[..., None], float("-inf")).amax(1)


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """Return sinusoidal positions (length, width) (Vaswani et al. 2017, "Attention Is All You Need")."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-9.210340371976184 / width))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


def cat_frames(parts: Sequence[Frames]) -> tuple[Tensor, Tensor]:
    """Return several sequences one after the other, (B, sum of L, width), with their mask (B, sum of L)."""
    return torch.cat([p.values for p in parts], 1), torch.cat([p.mask for p in parts], 1)


class Attention(nn.Module):
    """Multi-head attention with a key mask, by torch's fused kernel.

    Args:
        width: Of queries and of the output.
        heads: Must divide `width`.
        memory: Width of keys and values, `width` when None.
        dropout: On the attention weights; a key that is dropped is so for all queries of its head.
    """

    def __init__(self, width: int, heads: int, memory: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from `query` (B, Lq, width) over `memory` (B, Lk, memory) where `mask` (B, Lk) is true."""
        q = self._split(self.query(query))
        k, v = (self._split(part) for part in self.key_value(memory).chunk(2, -1))
        allowed = None if mask is None else mask[:, None, None]
        found = functional.scaled_dot_product_attention(q, k, self._dropped(v), attn_mask=allowed)
        joined: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return joined

    def _dropped(self, values: Tensor) -> Tensor:
        """Weights are dropped by dropping what they multiply: to each query that is the same distribution.

        The CPU's fused kernel knows no dropout: with `dropout_p` torch falls back to a path that keeps several
        (B, heads, Lq, Lk) tensors. At (16, 10, 375, 500) and 5 numbers a head, forward and backward took 812 ms so
        and 64 ms in the kernel.
        """
        if not self.training or self.dropout == 0:
            return values
        return values * functional.dropout(values.new_ones(values.shape[:3]), self.dropout)[..., None]

    def _split(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], self.heads, -1).transpose(1, 2)


class AttentionLayer(nn.Module):
    """A transformer layer: attention over `memory` (itself when None), then a feed-forward part, with residuals.

    Args:
        width: Of the sequence and of the memory.
        heads: Attention heads.
        hidden: Width inside the feed-forward part, 4 × `width` when None.
        dropout: After attention and inside the feed-forward part.
        norm_first: Layer norm before each part (pre-LN), else after each residual (post-LN).
    """

    def __init__(
        self, width: int, heads: int, hidden: int | None = None, dropout: float = 0.1, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = Attention(width, heads, dropout=dropout)
        hidden = hidden or 4 * width
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Return (B, Lq, width); `mask` says which frames of what is attended to are there."""
        if self.norm_first:
            query = self.attention_norm(values)
            keys = query if memory is None else self.attention_norm(memory)
            values = values + self.dropout(self.attention(query, keys, mask))
            added: Tensor = values + self.dropout(self.feed(self.feed_norm(values)))
            return added
        keys = values if memory is None else memory
        values = self.attention_norm(values + self.dropout(self.attention(values, keys, mask)))
        normed: Tensor = self.feed_norm(values + self.dropout(self.feed(values)))
        return normed


class Recurrent(nn.Module):
    """An LSTM or GRU over true lengths.

    Rows are not packed: on a CPU packing turns the fused kernel off (10 to 30 times the time), on a GPU it waits for
    the lengths. Padding lies behind a row's frames, so it cannot reach them; backwards, rows are turned round first.

    Args:
        width: Of the input.
        hidden: Of the state, in each direction.
        kind: nn.LSTM or nn.GRU.
        both_ways: Bidirectional.
    """

    def __init__(
        self, width: int, hidden: int, kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM, both_ways: bool = False
    ) -> None:
        super().__init__()
        self.width = hidden * (2 if both_ways else 1)
        self.ahead = kind(width, hidden, batch_first=True)
        self.back = kind(width, hidden, batch_first=True) if both_ways else None

    def forward(self, frames: Frames) -> tuple[Frames, Tensor]:
        """Return the states of every step, and the last state of each direction, (B, self.width)."""
        last = (frames.lengths - 1)[:, None]
        states = [self.ahead(frames.values)[0]]
        ends = [_at(states[0], last)[:, 0]]
        if self.back is not None:
            steps = torch.arange(frames.values.shape[1], device=last.device)
            turned = torch.where(steps <= last, last - steps, steps)
            back = self.back(_at(frames.values, turned))[0]
            ends.append(_at(back, last)[:, 0])
            states.append(_at(back, turned))
        values = torch.cat(states, -1).masked_fill(~frames.mask[..., None], 0)
        return Frames(values, frames.lengths), torch.cat(ends, -1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Return the frames of each row at some places, (B, n, width)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


class Head(nn.Sequential):
    """Dropout, a hidden layer with ReLU, and a linear output."""

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
