"""UMDF: one network that teaches itself across missing modalities (Li et al., AAAI 2024).

Paper: "A Unified Self-Distillation Framework for Multimodal Sentiment Analysis with Uncertain Missing Modalities". No
code was published and the equations are not public: this is a reconstruction from the published description. Choices
made here:

- In training every sample is seen twice by the same network, each time with a random non-empty set of its modalities
  (all sets equally likely at `missing` = 0.5); otherwise the network sees what there is.
- Coarse attention looks at the two other modalities end to end, fine attention at each alone; a feed-forward part mixes
  the three, and a transformer layer follows (MCIM).
- Each frame is amplified by its own gate, then kept or dropped by a gate that also knows the sequence's mean (DFIM).
- The fused feature is layer-normed, so that the two views cannot agree by shrinking. Features agree by squared error;
  the outputs by a softened KL divergence in both directions for classes and by a smooth L1 error for numbers.
- `distil = false` keeps the two views and their task losses and leaves out only the agreement.
"""

from collections.abc import Sequence
from itertools import product

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention, AttentionLayer, Head, cat_frames, masked_mean, positions
from elmd.types import MODALITIES, Modality


class Config(Strict):
    """Sizes of UMDF and weights of its losses."""

    width: int = 64
    heads: int = 2
    layers: int = 1
    """Transformer layers after the crossmodal attention."""
    kernel: int = 3
    """Frames that the first convolution sees; odd."""
    dropout: float = 0.1
    missing: float = Field(0.5, ge=0, lt=1)
    """Chance that a modality is left out of a view in training; one always stays."""
    distil: bool = True
    feature_weight: float = 1.0
    logit_weight: float = 1.0
    temperature: float = 2.0
    """Softens the class distributions that are compared."""


class Model(SentimentModel):
    """Crossmodal interaction, frame selection, and agreement between two views of a sample."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.embed = nn.ModuleDict({m: Embedding(shape.widths[m], config.width, config.kernel) for m in MODALITIES})
        self.interact = nn.ModuleDict({m: Interaction(config) for m in MODALITIES})
        self.integrate = nn.ModuleDict({m: Integration(config.width) for m in MODALITIES})
        self.norm = nn.LayerNorm(3 * config.width)
        self.head = Head(3 * config.width, config.width, shape.target.outputs, config.dropout)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from what there is, in training from a random part of it; see `SentimentModel`."""
        if self.training:
            batch = batch.without(random_pattern(batch, self.config.missing))
        inputs = self.inputs(batch)
        frames = {m: self.embed[m](inputs[m]) for m in MODALITIES}
        mixed = {m: self.interact[m](frames[m], [frames[n] for n in MODALITIES if n != m]) for m in MODALITIES}
        feature = self.norm(torch.cat([self.integrate[m](mixed[m]) for m in MODALITIES], -1))
        return Prediction(self.head(feature), {"feature": feature})

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the task loss of both views and, with `distil`, how far the views are apart."""
        task = self.target.loss(prediction.output, batch.labels)
        if not self.training:
            return task
        other: Prediction = self(batch)
        task = task + self.target.loss(other.output, batch.labels)
        return task + self.disagreement(prediction, other) if self.config.distil else task

    def disagreement(self, one: Prediction, two: Prediction) -> Tensor:
        """Return the distance of two views' features and outputs, a scalar."""
        # For distances that are symmetric, teaching both ways with the teacher held still has this very gradient.
        features = functional.mse_loss(one.extras["feature"].float(), two.extras["feature"].float())
        return self.config.feature_weight * features + self.config.logit_weight * self._apart(one.output, two.output)

    def _apart(self, one: Tensor, two: Tensor) -> Tensor:
        if not self.target.labels:
            return functional.smooth_l1_loss(one.float(), two.float())
        t = self.config.temperature
        return t**2 * (_taught(one / t, by=two / t) + _taught(two / t, by=one / t))


class Embedding(nn.Module):
    """A convolution over time to the common width, and positions."""

    def __init__(self, width: int, out: int, kernel: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, out, kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(out)

    def forward(self, frames: Frames) -> Frames:
        """Return the frames at width `out`."""
        clean = frames.values.masked_fill(~frames.mask[..., None], 0)
        values = self.convolve(clean.transpose(1, 2)).transpose(1, 2)
        return Frames(self.norm(values + positions(values.shape[1], values.shape[2], values.device)), frames.lengths)


class Interaction(nn.Module):
    """Multi-grained crossmodal interaction (MCIM) as one modality sees it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, heads, dropout = config.width, config.heads, config.dropout
        self.coarse = Attention(width, heads)
        self.fine = nn.ModuleList(Attention(width, heads) for _ in range(2))
        feed = [nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)]
        self.mix = nn.Sequential(*feed, nn.Dropout(dropout))
        layers = (AttentionLayer(width, heads, 2 * width, dropout) for _ in range(config.layers))
        self.encoder = nn.ModuleList(layers)

    def forward(self, own: Frames, others: Sequence[Frames]) -> Frames:
        """Return the frames of a modality with what the two others say about them."""
        coarse = self.coarse(own.values, *cat_frames(others))
        fine = [attend(own.values, o.values, o.mask) for attend, o in zip(self.fine, others, strict=True)]
        values = own.values + self.mix(torch.cat([coarse, *fine], -1))
        for layer in self.encoder:
            values = layer(values, own.mask)
        return Frames(values, own.lengths)


class Integration(nn.Module):
    """Dynamic feature integration (DFIM): frame-level self-enhancement, then selective filtering, then the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enhance = nn.Linear(width, width)
        # The filter's map of [frame; mean], in two parts, so that the mean is mapped once.
        self.select, self.context = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, frames: Frames) -> Tensor:
        """Return one vector a row, (B, width)."""
        enhanced = frames.values + frames.values * self.enhance(frames.values).sigmoid()
        mean = masked_mean(Frames(enhanced, frames.lengths))
        kept = (self.select(enhanced) + self.context(mean)[:, None]).sigmoid()
        return masked_mean(Frames(enhanced * kept, frames.lengths))


def random_pattern(batch: Batch, missing: float) -> dict[Modality, Tensor]:
    """Return in which rows each modality is to be left out: what stays is a random non-empty part of what is there."""
    present = torch.stack([batch.frames[m].present for m in MODALITIES], 1)
    subsets = torch.tensor(list(product((False, True), repeat=3))[1:], device=present.device)
    gone = (~subsets).sum(1)
    chances = missing**gone * (1 - missing) ** (3 - gone)
    kept = subsets[torch.multinomial(chances, len(batch), replacement=True)] & present
    kept = torch.where(kept.any(1, keepdim=True), kept, present)
    return {m: ~kept[:, i] for i, m in enumerate(MODALITIES)}


def _taught(student: Tensor, by: Tensor) -> Tensor:
    """KL divergence of a student's class distribution from a teacher's that is held still."""
    teacher = by.detach().float().log_softmax(-1)
    return functional.kl_div(student.float().log_softmax(-1), teacher, reduction="batchmean", log_target=True)
