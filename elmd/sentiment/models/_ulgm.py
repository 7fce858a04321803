"""Unimodal label generation (ULGM, Yu et al., AAAI 2021), and the four tasks of the models that learn from its labels.

Beside the multimodal task a model has one task a modality. Their labels are not given: they begin as the multimodal
label and move away from it as far as the modality's features lie nearer to the one or the other side than the fused
features do. A sample counts in a unimodal task the more, the further its generated label is from the multimodal one.

Choices made here: valence and arousal have labels and centres of their own; a row without a modality has no task for
it. Classes have no sides, so nothing is generated for them: the unimodal heads learn the multimodal label, with weight
1. Labels that people gave from one modality alone are left aside, as in the paper, unless `given_labels` is set.
"""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Recurrent, masked_mean
from elmd.types import MODALITIES, Modality

FUSED = "fused"
TASKS = (FUSED, *MODALITIES)
TextPool = Literal["mean", "first"]
_TINY = 1e-8


class TaskConfig(Strict):
    """Sizes of the heads of the four tasks, and where the labels of the unimodal ones come from."""

    text_pool: TextPool = "mean"
    """What stands for a text: the mean of its vectors, or the first one, [CLS] where a fine-tuned BERT made them. The
    mean is right for encoders that are mean pooled (e5), for texts of one vector, and for vectors that are frozen."""
    fused_feature: int = 128
    """Width of the feature F* of the multimodal task."""
    text_feature: int = 32
    audio_feature: int = 16
    vision_feature: int = 32
    fused_dropout: float = 0.0
    """Before the head of the multimodal task."""
    text_dropout: float = 0.1
    audio_dropout: float = 0.1
    vision_dropout: float = 0.0
    from_epoch: int = 2
    """First epoch in which labels are generated; in the first the centres are those of features still on the move."""
    given_labels: bool = False
    """Learn from labels given from one modality alone, with weight 1, where the data has them."""


class MultiTask(SentimentModel):
    """A model of a multimodal task and, as its helpers, one task a modality with generated labels.

    A subclass makes one vector a task in `forward` and returns `self.predict(batch, vectors)`.

    Args:
        widths: Width of the vector of every task, by its name in `TASKS`.
    """

    config: TaskConfig

    def __init__(self, config: TaskConfig, shape: Shape, widths: Mapping[str, int]) -> None:
        super().__init__(config, shape)
        features = {task: int(getattr(config, f"{task}_feature")) for task in TASKS}
        self.heads = nn.ModuleDict(
            {
                task: TaskHead(
                    widths[task], features[task], shape.target.outputs, float(getattr(config, f"{task}_dropout"))
                )
                for task in TASKS
            }
        )
        self.bank = Ulgm(features, 0 if shape.target.labels else shape.samples, shape.target.width, shape.target.limit)
        self.epoch = 0

    def predict(self, batch: Batch, vectors: Mapping[str, Tensor]) -> Prediction:
        """Return the multimodal prediction; extras hold the output of every task by its name, and what labels need.

        That is each task's feature, and in which rows its modality is there, which a batch of words does not tell.
        """
        extras: dict[str, Tensor] = {}
        for task in TASKS:
            extras[f"feature.{task}"], extras[task] = self.heads[task](vectors[task])
        for m in MODALITIES:
            extras[f"there.{m}"] = batch.frames[m].present
        return Prediction(extras[FUSED], extras)

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the loss of the multimodal task and of the unimodal ones."""
        whole = self.target.loss(prediction.output, batch.labels)
        return whole + torch.stack([self.unimodal_loss(batch, m, prediction.extras[m]) for m in MODALITIES]).sum()

    def unimodal_loss(self, batch: Batch, modality: Modality, output: Tensor) -> Tensor:
        """Return the weighted mean error of a unimodal task over the batch."""
        labels, weights = self.unimodal_labels(batch, modality)
        # w |o - y| = |w o - w y|: so each axis gets its own weight. Classes have weight 1.
        errors = self.target.error(weights * output, weights * labels) * batch.frames[modality].present
        return errors.sum() / self.target.known(labels).sum().clamp(min=1)

    def unimodal_labels(self, batch: Batch, modality: Modality) -> tuple[Tensor, Tensor]:
        """Return the labels (B, target.width) of a unimodal task, and their weights, alike."""
        labels, weights = batch.labels, torch.ones_like(batch.labels)
        if not self.target.labels:
            # `index` is a place in the training set, so other batches have no generated labels.
            labels = self.bank[modality].labels[batch.index] if self._generates else labels
            weights = (labels - batch.labels).abs().tanh().nan_to_num(0.0)
        given = batch.unimodal.get(modality) if self.config.given_labels else None
        if given is None:
            return labels, weights
        known = ~given.isnan()
        return torch.where(known, given, labels), weights.masked_fill(known, 1.0)

    def training_started(self, labels: Tensor) -> None:
        """Begin with the multimodal label as the label of every task."""
        if len(self.bank[FUSED].labels):
            self.bank.start(labels)

    def epoch_started(self, epoch: int) -> None:
        """Keep the number of the epoch, which says how far labels still move."""
        self.epoch = epoch

    @torch.no_grad()
    def batch_ended(self, batch: Batch, prediction: Prediction) -> None:
        """Move the labels of the batch's rows, then remember their features and move the centres."""
        if not self._generates:
            return
        features = {task: prediction.extras[f"feature.{task}"].float() for task in TASKS}
        there = {m: prediction.extras[f"there.{m}"] for m in MODALITIES}
        if self.epoch >= self.config.from_epoch:
            self.bank.relabel(batch.index, batch.labels, features, there, self.epoch)
        self.bank.store(batch.index, features, there)

    @property
    def _generates(self) -> bool:
        return self.training and len(self.bank[FUSED].labels) > 0


class TaskHead(nn.Module):
    """The head of a task: its feature F*, which label generation compares, and from it the output."""

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU())
        self.output = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return F* (B, hidden) and the output (B, outputs)."""
        feature = self.feature(vector)
        return feature, self.output(feature)


class LastState(nn.Module):
    """An LSTM's state after the last true frame, mapped to another width (B, width): the "sLSTM" of these papers."""

    def __init__(self, inputs: int, state: int, width: int) -> None:
        super().__init__()
        self.read = Recurrent(inputs, state)
        self.out = nn.Linear(state, width)

    def forward(self, frames: Frames) -> Tensor:
        """Return one vector a row."""
        mapped: Tensor = self.out(self.read(frames)[1])
        return mapped


def pooled(frames: Frames, how: TextPool) -> Tensor:
    """Return the mean of the true frames or the first one, (B, width)."""
    return masked_mean(frames) if how == "mean" else frames.values[:, 0]


class Ulgm(nn.ModuleDict):
    """The unimodal label generation module: a memory of every task.

    Args:
        widths: Width of every task's feature F*.
        samples: In the training set; 0 remembers nothing.
        axes: Numbers a label has.
        limit: Largest absolute value of a label.
    """

    def __init__(self, widths: Mapping[str, int], samples: int, axes: int, limit: float) -> None:
        super().__init__({task: Memory(samples, width, axes) for task, width in widths.items()})
        self.limit = limit

    def __getitem__(self, task: str) -> "Memory":
        return cast("Memory", super().__getitem__(task))

    def start(self, labels: Tensor) -> None:
        """Give every task the multimodal labels (samples, axes), but for labels that a resumed run has generated."""
        for task in TASKS:
            own = self[task].labels
            own.copy_(torch.where(own.isnan(), labels.to(own), own))

    def relabel(
        self,
        index: Tensor,
        labels: Tensor,
        features: Mapping[str, Tensor],
        there: Mapping[Modality, Tensor],
        epoch: int,
    ) -> None:
        """Move the labels of a batch's rows towards newly generated ones, in epoch n by the share 2 / (n + 1).

        Args:
            index: Places of the rows in the training set, (B,).
            labels: Multimodal ones, (B, axes).
            features: F* of every task, (B, width).
            there: In which rows a modality is there, (B,).
            epoch: n, from 1.
        """
        fused = self[FUSED].leaning(features[FUSED])
        for modality in MODALITIES:
            own = self[modality].leaning(features[modality])
            new = generate(labels, fused, own, self.limit)
            old = self[modality].labels[index]
            moved = old + 2 / (epoch + 1) * (new - old)
            # Not a number where a side has no sample yet or the sample no label.
            usable = moved.isfinite() & there[modality][:, None]
            self[modality].labels[index] = torch.where(usable, moved, old)

    def store(self, index: Tensor, features: Mapping[str, Tensor], there: Mapping[Modality, Tensor]) -> None:
        """Remember the features of a batch's rows; those of a missing modality count in no centre."""
        self[FUSED].store(index, features[FUSED], torch.ones_like(index, dtype=torch.bool))
        for modality in MODALITIES:
            self[modality].store(index, features[modality], there[modality])


class Memory(nn.Module):
    """Labels and features F* of all training samples in one task, and the centres of those above and below 0.

    The sums behind the centres run along: a batch takes the old features of its rows out and puts the new ones in,
    so that centres over the whole training set cost no more than the batch.
    """

    labels: Tensor
    features: Tensor
    sides: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, samples: int, width: int, axes: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.full((samples, axes), torch.nan))
        self.register_buffer("features", torch.zeros(samples, width))
        # As they count in the sums, for every axis: above 0, then below.
        self.register_buffer("sides", torch.zeros(samples, 2 * axes))
        self.register_buffer("sums", torch.zeros(2 * axes, width))
        self.register_buffer("counts", torch.zeros(2 * axes))

    def store(self, index: Tensor, features: Tensor, there: Tensor) -> None:
        """Put in the features (B, width) of some samples; one that is not `there` (B,) counts on no side."""
        labels = self.labels[index]
        sides = torch.cat([labels > 0, labels < 0], -1) * there[:, None].to(features.dtype)
        before = self.sides[index]
        self.sums += _sums(sides, features) - _sums(before, self.features[index])
        self.counts += sides.sum(0) - before.sum(0)
        self.features[index], self.sides[index] = features, sides

    def leaning(self, features: Tensor) -> Tensor:
        """Return alpha (B, axes) = (D- - D+) / D+ of the distances to the centres; nan where a side has no sample."""
        centres = self.sums / self.counts[:, None]
        above, below = torch.linalg.vector_norm(features[:, None] - centres, dim=-1).chunk(2, -1)
        alpha: Tensor = (below - above) / (above + _TINY)
        return alpha


def _sums(sides: Tensor, features: Tensor) -> Tensor:
    """Sum of the features on each side, (sides, width); no matrix product, which autocast would round to bfloat16."""
    return (sides[..., None] * features[:, None]).sum(0)


def generate(labels: Tensor, fused: Tensor, own: Tensor, limit: float) -> Tensor:
    """Return new unimodal labels from the multimodal ones and both leanings: the mean of a scaled and a shifted label."""
    scaled = own / (fused + _TINY) * labels
    shifted = labels + own - fused
    return (0.5 * (scaled + shifted)).clamp(-limit, limit)
