"""MMIM: raises mutual information between modalities and between them and the fusion (Han et al., EMNLP 2021).

Paper: "Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for Multimodal Sentiment
Analysis"; parts, sizes and weights of the authors' code. Choices made here: the text is the mean of its vectors, or the
first (BERT's [CLS], as theirs) with `text = "first"`; q's likelihood has its log-variance term, without which its
variance grows for ever; the covariances have a ridge, and a class with too few points for one has no part in the
entropy; the memory holds rows, not batches. For classes and for valence and arousal, the two Gaussians of the entropy
are those of negative and of positive polarity. A modality that is missing in a row has no part in its bounds.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch
from elmd.sentiment.models._blocks import Recurrent, masked_mean
from elmd.sentiment.models._mutual_information import CPC, Likelihood, gaussian_entropy, log_likelihood, signs
from elmd.types import MODALITIES, Modality

ESTIMATE = "estimate"
PAIRED: tuple[Modality, ...] = ("vision", "audio")
"""The modalities whose mutual information with the text is raised."""


class Config(Strict):
    """Sizes of MMIM and weights of its bounds."""

    text: Literal["mean", "first"] = "mean"
    """Which of the text's vectors stand for it."""
    recurrent: int = 16
    """State of each direction of the LSTMs of audio and vision."""
    other: int = 16
    """Width of the audio's and of the vision's vector."""
    fused: int = 128
    dropout: float = 0.1
    alpha: float = 0.1
    """Weight of the CPC losses between the fusion and the modalities."""
    beta: float = 0.1
    """Weight of the lower bounds between the modalities."""
    memory: int = 32
    """Rows of earlier batches that the entropies are estimated from besides the present batch."""
    ridge: float = 1e-3


class Model(SentimentModel):
    """Encoders, two tanh layers as the fusion, Barber-Agakov bounds between modalities and CPC with the fusion.

    The "estimate" phase fits q(vision|text) and q(audio|text) to vectors that stay as they are; the main phase moves
    the vectors, with q as it is.
    """

    PHASES: ClassVar[Mapping[str, tuple[str, ...] | None]] = {ESTIMATE: (ESTIMATE,), MAIN: None}
    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        text, other = shape.widths["text"], config.other
        self.readers = nn.ModuleDict({m: Recurrent(shape.widths[m], config.recurrent, both_ways=True) for m in PAIRED})
        self.outlets = nn.ModuleDict({m: nn.Linear(2 * config.recurrent, other) for m in PAIRED})
        self.fusion = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(text + 2 * other, config.fused),
            nn.Tanh(),
            nn.Linear(config.fused, config.fused),
            nn.Tanh(),
        )
        self.head = nn.Linear(config.fused, shape.target.outputs)
        self.likelihoods = nn.ModuleDict({m: Likelihood(text, other) for m in PAIRED})
        self.contrasts = nn.ModuleDict({m: CPC(text if m == "text" else other, config.fused) for m in MODALITIES})
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        self.bank = _Bank(min(config.memory, shape.samples), other)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the networks of q apart; see `SentimentModel`."""
        return self.groups_by_prefix(estimate=("likelihoods.",))

    def forward(self, batch: Batch) -> Prediction:
        """Fuse one vector a modality; see `SentimentModel`."""
        inputs = self.inputs(batch)
        text = inputs["text"].values[:, 0] if self.config.text == "first" else masked_mean(inputs["text"])
        vectors = {"text": text} | {m: self.outlets[m](self.readers[m](inputs[m])[1]) for m in PAIRED}
        fused = self.fusion(torch.cat([vectors[m] for m in MODALITIES], -1))
        return Prediction(self.head(fused), vectors | {"fused": fused})

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the negative likelihood of q, or the error with CPC and the bounds; see `SentimentModel`."""
        parts, config = prediction.extras, self.config
        if phase == ESTIMATE:
            return -self._likelihood(batch, {name: vector.detach() for name, vector in parts.items()})
        contrasts = [self.contrasts[m](parts[m], parts["fused"], batch.frames[m].present) for m in MODALITIES]
        bounds = self._likelihood(batch, parts) + self._entropy(batch, prediction)
        error = self.target.loss(prediction.output, batch.labels)
        return error - config.alpha * torch.stack(contrasts).sum() - config.beta * bounds

    def epoch_started(self, epoch: int) -> None:
        """Forget the vectors of the last epoch; see `SentimentModel`."""
        self.bank.clear()

    def batch_ended(self, batch: Batch, prediction: Prediction) -> None:
        """Remember the batch for the entropies; see `SentimentModel`."""
        self.bank.add(self.bank.project(_paired(prediction)), self._signs(batch))

    def _likelihood(self, batch: Batch, parts: Mapping[str, Tensor]) -> Tensor:
        text = batch.frames["text"].present
        scores = {m: self.likelihoods[m](parts["text"], parts[m]) for m in PAIRED}
        return torch.stack([log_likelihood(scores[m], text & batch.frames[m].present) for m in PAIRED]).sum()

    def _entropy(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Entropy of the vectors of each modality, as the mean of a negative and a positive Gaussian; their sum."""
        points = torch.cat([self.bank.project(_paired(prediction)), self.bank.points], 1)
        found = torch.cat([self._signs(batch), self.bank.signs], 1)
        both = [(points[i], found[i] == sign) for i in range(len(PAIRED)) for sign in (-1, 1)]
        return 0.5 * torch.stack([gaussian_entropy(*one, self.config.ridge) for one in both]).sum()

    def _signs(self, batch: Batch) -> Tensor:
        """Sign of each row's label, 0 where it is unknown or the modality is missing, (2, B)."""
        found = signs(self.target, batch.labels).nan_to_num(0.0)
        return torch.stack([found * batch.frames[m].present for m in PAIRED])


class _Bank(nn.Module):
    """The latest vectors of audio and vision, projected to few numbers, with the signs of their labels.

    The projection is random and stays so, as in the authors' code, whose optimizers never step it: a learned one would
    raise the entropy instead of the vectors.
    """

    projection: Tensor
    points: Tensor
    signs: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        few, count = max(1, width // 4), len(PAIRED)
        self.register_buffer("projection", torch.randn(count, width, few) * (2 / (width + few)) ** 0.5)
        self.register_buffer("points", torch.zeros(count, rows, few))
        self.register_buffer("signs", torch.zeros(count, rows))

    def project(self, vectors: Tensor) -> Tensor:
        """Return what stands for vectors (2, B, width) in the entropies, (2, B, few)."""
        return torch.tanh(vectors @ self.projection)

    def add(self, points: Tensor, signs: Tensor) -> None:
        """Put the rows of a batch in, and as many of the oldest out."""
        rows = self.points.shape[1]
        self.points.copy_(torch.cat([points.detach().to(self.points.dtype), self.points], 1)[:, :rows])
        self.signs.copy_(torch.cat([signs, self.signs], 1)[:, :rows])

    def clear(self) -> None:
        """Forget all rows."""
        self.signs.zero_()


def _paired(prediction: Prediction) -> Tensor:
    return torch.stack([prediction.extras[m] for m in PAIRED])
