"""The contract of a sentiment model: what the one trainer asks of every entry of `elmd.sentiment.models`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.target import Target
from elmd.types import MODALITIES, Modality

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is built for: the width of each modality's vectors, what it predicts, how many samples it learns from."""

    widths: Mapping[Modality, int]
    target: Target = field(default_factory=Target)
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a batch: `output` (B, target.outputs), and by name what its loss needs besides."""

    output: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)


class SentimentModel(nn.Module):
    """A sentiment model: vectors of three modalities in, one output row a sample out.

    A subclass defines `forward`; the rest has defaults. `forward` starts with `self.inputs(batch)`, which stands a
    learned vector in for a modality that a row does not have, so that every row has at least one frame of each.

    Attributes:
        PHASES: The passes over the data in each epoch, and the parameter groups each one trains (None: all groups
            that no other phase names). Every phase has its own optimizer.
        bank: Buffers under this name are memory of the training run (pseudo-labels, stored features): kept for
            resuming, not in the weights.
    """

    PHASES: ClassVar[Mapping[str, tuple[str, ...] | None]] = {MAIN: None}

    def __init__(self, config: Strict, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape, self.target = config, shape, shape.target
        self.absent = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(shape.widths[m])) for m in MODALITIES})

    def inputs(self, batch: Batch) -> dict[Modality, Frames]:
        """Return the frames of every modality, each with at least one frame a row."""
        return {m: _filled(batch.frames[m], self.absent[m]) for m in MODALITIES}

    def forward(self, batch: Batch) -> Prediction:
        """Return the prediction for a batch; rows do not depend on each other, nor on padding."""
        raise NotImplementedError

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the scalar that a phase minimises; by default the mean absolute error, or cross-entropy."""
        return self.target.loss(prediction.output, batch.labels)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter in exactly one named group; a recipe may set rates for a name. By default all in "main"."""
        return {MAIN: list(self.parameters())}

    def groups_by_prefix(self, **prefixes: tuple[str, ...]) -> dict[str, list[nn.Parameter]]:
        """Return the groups of parameters whose names begin with a group's prefixes, and all others in "main"."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*prefixes, MAIN)}
        for name, parameter in self.named_parameters():
            group = next((g for g, starts in prefixes.items() if name.startswith(starts)), MAIN)
            groups[group].append(parameter)
        return groups

    def training_started(self, labels: Tensor) -> None:
        """Learn of the labels of the whole training set, (samples, target.width), before the first epoch."""

    def epoch_started(self, epoch: int) -> None:
        """Learn that epoch `epoch` (from 1) begins."""

    def batch_ended(self, batch: Batch, prediction: Prediction) -> None:
        """Learn from a batch of the main phase after its backward pass, without gradients (pseudo-labels)."""


def _filled(frames: Frames, absent: Tensor) -> Frames:
    """Frames in which a row without any has `absent` as its only one."""
    gone = ~frames.present
    first = torch.where(gone[:, None], absent.to(frames.values.dtype), frames.values[:, 0])
    values = torch.cat([first[:, None], frames.values[:, 1:]], 1)
    return Frames(values, frames.lengths.clamp(min=1))
