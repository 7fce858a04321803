"""TFN: the tensor product of one vector a modality, each with a 1 appended (Zadeh et al., EMNLP 2017).

Paper: "Tensor Fusion Network for Multimodal Sentiment Analysis"; sizes of MMSA's configuration for MOSI. Choices made
here: the tensor is never built (see `TensorFusion`), so the dropout on its entries is one on the vectors that leaves as
many products of all three; layer norm where the published code has batch norm, so that a batch of one works; audio
and vision are the means of their frames, the text is an LSTM's last state.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from elmd.config import Strict
from elmd.sentiment.base import Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch
from elmd.sentiment.models._blocks import Recurrent, masked_mean
from elmd.types import MODALITIES


class Config(Strict):
    """Sizes of TFN."""

    text_hidden: int = 128
    """Width of the LSTM's state."""
    text: int = 32
    """Width of the text's vector in the tensor."""
    audio: int = 32
    vision: int = 128
    hidden: int = 64
    """Width of the two layers after the tensor."""
    dropout: float = 0.3
    """Before the networks of audio and vision."""
    tensor_dropout: float = 0.5
    """How many of the tensor's products of three are dropped."""


class Model(SentimentModel):
    """Networks of the modalities, tensor fusion, and a network whose output is squashed into the labels' range."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.read = Recurrent(shape.widths["text"], config.text_hidden)
        self.networks = nn.ModuleDict(
            {
                "text": nn.Linear(config.text_hidden, config.text),
                "audio": _network(shape.widths["audio"], config.audio, config.dropout),
                "vision": _network(shape.widths["vision"], config.vision, config.dropout),
            }
        )
        self.fusion = TensorFusion((config.text, config.audio, config.vision), config.hidden, config.tensor_dropout)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(config.hidden, config.hidden), nn.ReLU(), nn.Linear(config.hidden, self.target.outputs)
        )

    def forward(self, batch: Batch) -> Prediction:
        """Fuse the three vectors; see `SentimentModel`."""
        inputs = self.inputs(batch)
        read = {m: self.read(inputs[m])[1] if m == "text" else masked_mean(inputs[m]) for m in MODALITIES}
        output = self.head(self.fusion([self.networks[m](read[m]) for m in MODALITIES]))
        if not self.target.labels:
            output = self.target.limit * (2 * torch.sigmoid(output) - 1)
        return Prediction(output)


class TensorFusion(nn.Module):
    """A linear map of the tensor product of several [vector; 1], by one contraction after the other.

    The map's weight has one axis for each vector. Contracting it with the widest first leaves, for MOSI's sizes, half
    as many numbers a row as the tensor itself would have, and the others cost next to nothing.

    Args:
        widths: Of the vectors.
        outputs: Width of the result.
        dropout: How many of the products of all vectors are dropped, by dropping entries of the vectors.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int, dropout: float) -> None:
        super().__init__()
        self.order = sorted(range(len(widths)), key=lambda i: -widths[i])
        self.widths, self.outputs = widths, outputs
        first, *others = [widths[i] for i in self.order]
        self.dropout = nn.Dropout(1 - (1 - dropout) ** (1 / len(widths)))
        # A linear map with bias is the map of [vector; 1].
        self.map = nn.Linear(first, prod(width + 1 for width in others) * outputs)
        bound = prod(width + 1 for width in widths) ** -0.5
        for parameter in self.map.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, vectors: list[Tensor]) -> Tensor:
        """Return (B, outputs)."""
        first, *others = [self.dropout(vectors[i]) for i in self.order]
        left: Tensor = self.map(first)
        for vector in others:
            with_one = functional.pad(vector, (0, 1), value=1.0)
            left = torch.bmm(with_one[:, None], left.view(len(left), with_one.shape[1], -1))
        return left.view(-1, self.outputs)


def _network(width: int, hidden: int, dropout: float) -> nn.Sequential:
    layers = [
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    ]
    return nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), *layers)
