"""MISA: what modalities share and what each has for itself, six vectors for a transformer (Hazarika et al., MM 2020).

Paper: "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis"; parts, sizes and
weights of the authors' code. Choices made here: the text is the mean of its vectors, as in their BERT variant; the
LSTMs are as wide as their features, as theirs, but at most `recurrent`; a modality that is missing in a row has no part
in the losses of the representations.
"""

from itertools import combinations

import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Recurrent, masked_mean
from elmd.types import MODALITIES


class Config(Strict):
    """Sizes of MISA and weights of its losses."""

    hidden: int = 128
    """Width of every representation."""
    recurrent: int = 128
    """Widest state of the LSTMs."""
    heads: int = 2
    feed: int = 2048
    """Width of the transformer's feed-forward part."""
    dropout: float = 0.5
    """Before the output; the transformer has torch's 0.1."""
    difference: float = 0.3
    """Weight of the orthogonality of private and shared representations."""
    similarity: float = 1.0
    """Weight of the central moment discrepancy between the shared ones."""
    reconstruction: float = 1.0
    moments: int = 5


class Model(SentimentModel):
    """Private and shared encoders, a decoder for their sum, and fusion of all six representations by self-attention."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.hidden
        readers: dict[str, _Reader] = {m: _Reader(shape.widths[m], config.recurrent) for m in MODALITIES if m != "text"}
        widths = {m: readers[m].width if m in readers else shape.widths[m] for m in MODALITIES}
        self.readers = nn.ModuleDict(readers)
        self.project = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(widths[m], width), nn.ReLU(), nn.LayerNorm(width)) for m in MODALITIES}
        )
        self.private = nn.ModuleDict({m: nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for m in MODALITIES})
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.rebuild = nn.ModuleDict({m: nn.Linear(width, width) for m in MODALITIES})
        self.fusion = nn.TransformerEncoderLayer(width, config.heads, config.feed, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(6 * width, 3 * width),
            nn.Dropout(config.dropout),
            nn.ReLU(),
            nn.Linear(3 * width, shape.target.outputs),
        )

    def forward(self, batch: Batch) -> Prediction:
        """Split each modality into its private and its shared part and fuse all; see `SentimentModel`."""
        inputs = self.inputs(batch)
        read = {m: self.readers[m](inputs[m]) if m in self.readers else masked_mean(inputs[m]) for m in MODALITIES}
        whole = [self.project[m](read[m]) for m in MODALITIES]
        private = torch.stack([self.private[m](x) for m, x in zip(MODALITIES, whole, strict=True)], 1)
        shared = self.shared(torch.stack(whole, 1))
        output = self.head(self.fusion(torch.cat([private, shared], 1)).flatten(1))
        return Prediction(output, {"whole": torch.stack(whole, 1), "private": private, "shared": shared})

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the squared error or cross-entropy with the three losses of the representations."""
        config, parts = self.config, prediction.extras
        there = torch.stack([batch.frames[m].present for m in MODALITIES], 1)
        whole, private, shared = (parts[name].float() for name in ("whole", "private", "shared"))
        loss = self.target.loss(prediction.output, batch.labels, power=2)
        loss = loss + config.difference * difference_loss(private, shared, there)
        loss = loss + config.similarity * similarity_loss(shared, there, config.moments)
        rebuilt = torch.stack([self.rebuild[m](private[:, i] + shared[:, i]) for i, m in enumerate(MODALITIES)], 1)
        return loss + config.reconstruction * _mean(((rebuilt - whole) ** 2).mean(-1), there).mean()


class _Reader(nn.Module):
    """Two bidirectional LSTMs with layer norm in between; the last states of both, (B, 4 × hidden)."""

    def __init__(self, width: int, limit: int) -> None:
        super().__init__()
        hidden = min(width, limit)
        self.width = 4 * hidden
        self.first = Recurrent(width, hidden, both_ways=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.second = Recurrent(2 * hidden, hidden, both_ways=True)

    def forward(self, frames: Frames) -> Tensor:
        states, below = self.first(frames)
        _, above = self.second(Frames(self.norm(states.values), frames.lengths))
        return torch.cat([below, above], -1)


def difference_loss(private: Tensor, shared: Tensor, there: Tensor) -> Tensor:
    """Return how far private representations are from orthogonal to the shared and to each other, a scalar.

    For each pair of representations, centred over the batch and with rows of length 1, it is the mean square of the
    products of their features.

    Args:
        private: Private representations, (B, 3, width).
        shared: Shared ones, (B, 3, width).
        there: Which rows have which modality, (B, 3) bool.
    """
    own, common = _directions(private, there), _directions(shared, there)
    pairs = [(own[:, i], common[:, i]) for i in range(3)]
    pairs += [(own[:, i], own[:, j]) for i, j in combinations(range(3), 2)]
    return torch.stack([(a.T @ b).pow(2).mean() for a, b in pairs]).sum()


def similarity_loss(shared: Tensor, there: Tensor, moments: int) -> Tensor:
    """Return the central moment discrepancy between the modalities' shared representations, a scalar.

    It is the mean over pairs of modalities of the distances between their means and between their central moments up
    to `moments` (Zellinger et al. 2017). A modality without rows differs from none.
    """
    centre = _mean(shared, there)
    centred = shared - centre
    orders = [centre, *(_mean(centred**k, there) for k in range(2, moments + 1))]
    both = [(there[:, i].any() & there[:, j].any(), i, j) for i, j in combinations(range(3), 2)]
    distances = [torch.linalg.vector_norm(o[i] - o[j]) * known for o in orders for known, i, j in both]
    return torch.stack(distances).sum() / len(both)


def _directions(values: Tensor, there: Tensor) -> Tensor:
    """Rows of length 1, centred over the batch; 0 where the modality is missing."""
    centred = (values - _mean(values, there)) * there[..., None]
    # The length is a constant to the gradient, as in the authors' code.
    directions: Tensor = centred / (torch.linalg.vector_norm(centred, dim=-1, keepdim=True).detach() + 1e-6)
    return directions


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean over the rows that have the modality, of (B, 3, …)."""
    there = there.view(*there.shape, *[1] * (values.dim() - 2))
    return (values * there).sum(0) / there.sum(0).clamp(min=1)
