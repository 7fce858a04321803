"""LMF: low-rank multimodal fusion of one vector a modality (Liu et al., ACL 2018).

Paper: "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors". Choices made here: layer norm where the
published code has batch norm, so that a batch of one works; audio and vision are the means of their frames, the text is
an LSTM's last state.
"""

import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch
from elmd.sentiment.models._blocks import Recurrent, masked_mean
from elmd.types import MODALITIES


class Config(Strict):
    """Sizes of LMF."""

    text: int = 64
    """Width of the text's vector after its network."""
    other: int = 16
    """Width of the audio's and of the vision's."""
    rank: int = 4
    fused: int = 32
    """Width of the fused vector."""
    dropout: float = 0.2


class Model(SentimentModel):
    """Sum over ranks of the product over modalities of linear maps of [vector; 1]."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        widths = {"text": config.text, "audio": config.other, "vision": config.other}
        self.read = Recurrent(shape.widths["text"], config.text)
        self.networks = nn.ModuleDict(
            {
                m: _network(config.text if m == "text" else shape.widths[m], widths[m], config.dropout)
                for m in MODALITIES
            }
        )
        self.factors = nn.ModuleDict({m: nn.Linear(widths[m], config.rank * config.fused) for m in MODALITIES})
        self.weights = nn.Parameter(torch.full((config.rank,), 1.0 / config.rank))
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.fused, shape.target.outputs))

    def forward(self, batch: Batch) -> Prediction:
        """Fuse the three vectors; see `SentimentModel`."""
        inputs = self.inputs(batch)
        vectors = {m: self.read(inputs[m])[1] if m == "text" else masked_mean(inputs[m]) for m in MODALITIES}
        ranks: Tensor = torch.ones(())
        for m in MODALITIES:
            # A linear map with bias is the map of [vector; 1], which keeps the products of fewer modalities.
            ranks = ranks * self.factors[m](self.networks[m](vectors[m])).unflatten(-1, (self.config.rank, -1))
        return Prediction(self.head(torch.einsum("r,brf->bf", self.weights, ranks)))


def _network(width: int, hidden: int, dropout: float) -> nn.Sequential:
    layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), *layers)
