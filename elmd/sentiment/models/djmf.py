"""DJMF: two tasks on a pyramid of crossmodal blocks, with estimates of mutual information (Zheng et al., ESWA 2024).

Paper: "DJMF: A discriminative joint multi-task framework for multimodal sentiment analysis based on intra- and
inter-task dynamics" (doi 10.1016/j.eswa.2023.122728). Its equations and code are not public:
this is a reconstruction from the published description (crossmodal blocks in both directions between text and audio and
text and vision, a feature pyramid a task, regularisers against redundancy and against what the tasks do not need), not
the authors' system. Choices made here:

- Audio and vision are shortened by a strided convolution. Each layer's outputs are max-pooled along time by two before
  the next layer: the stack is the bottom-up way of the pyramid. It is common to the tasks; the way down and the head
  are each task's own.
- Redundancy is the information between the outputs of the two directions of a pair (text on audio, audio on text);
  irrelevance that between a modality's vector before the blocks and the output of the block in which it asks. Both
  are of the last layer, between means over time, divided by their width.
- One Gaussian q(y|x) for each, fitted in a phase of its own, gives both estimates: `information = "minimise"` lowers
  vCLUB, an upper bound; "maximise" raises InfoNCE with log q as its critic, a lower bound.
- The data has one label a sample, so the second task's is derived from it: beside a number (sentiment, valence and
  arousal) its polarity as a class; beside a class (polarity, emotion) its polarity as a number, -1, 0 or 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import AttentionLayer, Head, masked_max, masked_mean, positions
from elmd.sentiment.models._mutual_information import Likelihood, info_nce, log_likelihood, signs, vclub
from elmd.sentiment.target import Target
from elmd.types import MODALITIES, Modality

ESTIMATE = "estimate"
BLOCKS: dict[str, tuple[Modality, str]] = {
    "ta": ("text", "at"),
    "at": ("audio", "ta"),
    "tv": ("text", "vt"),
    "vt": ("vision", "tv"),
}
"""Which modality asks in each block, and the block of the opposite direction, which it asks."""
REDUNDANCIES = (("ta", "at"), ("tv", "vt"))
"""The pairs of blocks whose outputs should not repeat each other."""
IRRELEVANCES = (("text", "ta"), ("audio", "at"), ("text", "tv"), ("vision", "vt"))
"""What asks in a block, and the block, whose output should keep only what the tasks need."""


class Config(Strict):
    """Sizes of DJMF and weights of its losses."""

    width: int = 128
    heads: int = 8
    feed: int = 256
    """Width of the feed-forward parts."""
    layers: int = 3
    """Crossmodal layers, and levels of the pyramids."""
    kernel: int = 3
    """Frames under each convolution, an odd number."""
    stride: int = 2
    """Frames of audio and vision that become one."""
    dropout: float = 0.1
    second: float = 0.5
    """Weight of the second task."""
    information: Literal["minimise", "maximise"] = "minimise"
    redundancy: float = 0.1
    """Weight of the information between the two directions of a pair."""
    irrelevance: float = 0.1
    """Weight of the information between a block's input and its output."""


class Model(SentimentModel):
    """Convolutions, stacked crossmodal blocks TA, AT, TV and VT, and a pyramid and a head for each of two tasks.

    The "estimate" phase fits the networks q to vectors that stay as they are; the main phase moves the vectors, with
    q as it is.
    """

    PHASES: ClassVar[Mapping[str, tuple[str, ...] | None]] = {ESTIMATE: (ESTIMATE,), MAIN: None}
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.width
        strides: dict[Modality, int] = {"text": 1, "audio": config.stride, "vision": config.stride}
        self.encoders = nn.ModuleDict(
            {m: _Encoder(shape.widths[m], width, config.kernel, strides[m]) for m in MODALITIES}
        )
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.second = Target("sentiment", "sims") if self.target.labels else Target("polarity")
        self.tasks = nn.ModuleList(_Task(config, target.outputs) for target in (self.target, self.second))
        self.likelihoods = nn.ModuleDict(
            {"_".join(pair): Likelihood(width, width, width // 2) for pair in REDUNDANCIES + IRRELEVANCES}
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the networks of q apart; see `SentimentModel`."""
        return self.groups_by_prefix(estimate=("likelihoods.",))

    def forward(self, batch: Batch) -> Prediction:
        """Predict both tasks from the pyramid; see `SentimentModel`."""
        inputs = self.inputs(batch)
        encoded = {m: self.encoders[m](inputs[m]) for m in MODALITIES}
        paths = {block: encoded[asking] for block, (asking, _) in BLOCKS.items()}
        levels = []
        for layer in self.layers:
            paths = layer(paths)
            levels.append(paths)
        vectors = {name: masked_mean(frames) for name, frames in (encoded | paths).items()}
        first, second = (task(levels) for task in self.tasks)
        return Prediction(first, vectors | {"second": second})

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the negative likelihood of q, or the errors of both tasks with the regularisers."""
        parts, config = prediction.extras, self.config
        if phase == ESTIMATE:
            return -self._fit(batch, {name: part.detach() for name, part in parts.items()})
        found = signs(self.target, batch.labels)[:, None]
        loss = self.target.loss(prediction.output, batch.labels)
        loss = loss + config.second * self.second.loss(parts["second"], found if self.target.labels else found + 1)
        loss = loss + config.redundancy * self._information(batch, parts, REDUNDANCIES)
        return loss + config.irrelevance * self._information(batch, parts, IRRELEVANCES)

    def _fit(self, batch: Batch, parts: Mapping[str, Tensor]) -> Tensor:
        """Likelihood of every q, a scalar."""
        found = [log_likelihood(*one) for one in self._scores(batch, parts, REDUNDANCIES + IRRELEVANCES)]
        return torch.stack(found).sum() / self.config.width

    def _information(self, batch: Batch, parts: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> Tensor:
        """What to minimise of the information between pairs of vectors, a scalar."""
        found = [self._bound(*one) for one in self._scores(batch, parts, pairs)]
        return torch.stack(found).sum() / self.config.width

    def _scores(
        self, batch: Batch, parts: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores of each pair of vectors, and which rows have both modalities of the block that is its second."""
        for x, y in pairs:
            asking, opposite = BLOCKS[y]
            both = batch.frames[asking].present & batch.frames[BLOCKS[opposite][0]].present
            yield self.likelihoods[f"{x}_{y}"](parts[x], parts[y]), both

    def _bound(self, scores: Tensor, rows: Tensor) -> Tensor:
        if self.config.information == "maximise":
            return -info_nce(scores, rows)
        # Information is never negative: below 0 the bound is wrong, and no reason to move the vectors.
        return vclub(scores, rows).clamp(min=0)


class _Encoder(nn.Module):
    """Convolution of frames, with positions."""

    def __init__(self, width: int, hidden: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(width, hidden, kernel, stride, kernel // 2)

    def forward(self, frames: Frames) -> Frames:
        there = frames.values.masked_fill(~frames.mask[..., None], 0)
        values = self.convolution(there.transpose(1, 2)).transpose(1, 2)
        values = values + positions(values.shape[1], values.shape[2], values.device)
        return Frames(values, (frames.lengths - 1) // self.stride + 1)


class _Layer(nn.Module):
    """The four blocks: each asks the layer below of its opposite direction; the maxima of each two frames remain."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.blocks = nn.ModuleDict(
            {block: AttentionLayer(width, heads, config.feed, config.dropout, norm_first=False) for block in BLOCKS}
        )

    def forward(self, paths: Mapping[str, Frames]) -> dict[str, Frames]:
        return {block: self._pass(block, paths[block], paths[BLOCKS[block][1]]) for block in BLOCKS}

    def _pass(self, block: str, asking: Frames, asked: Frames) -> Frames:
        values = self.blocks[block](asking.values, asked.mask, asked.values)
        return halved(Frames(values, asking.lengths))


class _Task(nn.Module):
    """A task's own way down the pyramid of every block, the maxima over time of all levels, and its head."""

    def __init__(self, config: Config, outputs: int) -> None:
        super().__init__()
        width, layers = config.width, config.layers
        self.laterals = nn.ModuleDict(
            {block: nn.ModuleList(nn.Linear(width, width) for _ in range(layers)) for block in BLOCKS}
        )
        self.head = Head(len(BLOCKS) * layers * width, width, outputs, config.dropout)

    def forward(self, levels: Sequence[Mapping[str, Frames]]) -> Tensor:
        found = [self._down(self.laterals[block], [level[block] for level in levels]) for block in BLOCKS]
        output: Tensor = self.head(torch.cat(found, -1))
        return output

    def _down(self, laterals: nn.Module, levels: Sequence[Frames]) -> Tensor:
        """Maxima of P_l = lateral(C_l) + P_(l+1) stretched by two, from the last level to the first."""
        maxima, above = [], None
        for lateral, level in reversed(list(zip(laterals.children(), levels, strict=True))):
            values = lateral(level.values)
            if above is not None:
                values = values + above.repeat_interleave(2, 1)[:, : values.shape[1]]
            maxima.append(masked_max(Frames(values, level.lengths)))
            above = values
        return torch.cat(maxima, -1)


def halved(frames: Frames) -> Frames:
    """Return the maxima of each two frames, (B, half of L, width); the last of an odd number stays as it is."""
    values = frames.values.masked_fill(~frames.mask[..., None], float("-inf"))
    values = functional.pad(values, (0, 0, 0, values.shape[1] % 2), value=float("-inf"))
    pooled = Frames(torch.maximum(values[:, ::2], values[:, 1::2]), (frames.lengths + 1) // 2)
    return Frames(pooled.values.masked_fill(~pooled.mask[..., None], 0), pooled.lengths)
