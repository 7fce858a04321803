"""VTA: visual-textual attention, with correlations between words and picture regions (Gan et al., ESWA 2024).

Paper: "A multimodal fusion network with attention mechanisms for visual-textual sentiment analysis". Neither its text
nor code could be read: this is a reconstruction from the published description. Choices made here:

- The paper sorts tweets with one picture into classes. Here `regions` says which modality plays the picture's part:
  its frames (or patches) are the regions. The modality that is left joins as the mean of its frames before the
  classifier; train on two modalities for the paper's setting.
- What a word hears from the regions, and a region from the words, is the mean over their correlations instead of the
  sum: the paper has 49 regions, hundreds of frames would saturate the tanh.
- Numbers are predicted by a softmax over `bins` ordered classes that span the scale (7 for [-3, 3]; one softmax for
  each of valence and arousal): the prediction is the expectation, learned by the cross-entropy against the two classes
  around the label, together with the mean absolute error.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from elmd.config import Strict
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention, Recurrent, masked_mean
from elmd.types import Modality


class Config(Strict):
    """Sizes of VTA."""

    regions: Literal["vision", "audio"] = "vision"
    """The modality that plays the picture's part."""
    width: int = 256
    """Of words and regions; the recurrent network has half of it in each direction."""
    heads: int = 4
    hidden: tuple[int, int] = (256, 128)
    """Widths inside the classifier."""
    dropout: float = 0.5
    bins: int = Field(7, ge=2)
    """Ordered classes over the range of a target that is a number."""


class Model(SentimentModel):
    """A coarse vector from attention, a fine one from correlations, and a softmax."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        width = config.width
        self.left: Modality = "audio" if config.regions == "vision" else "vision"
        self.words = Words(shape.widths["text"], width, config.heads)
        self.regions = nn.Sequential(nn.Linear(shape.widths[config.regions], width), nn.LayerNorm(width))
        self.look = Attention(width, config.heads)
        self.correlate = Correlation(width)
        self.text_pool, self.region_pool = Pool(width), Pool(width)
        self.third = nn.Sequential(nn.Linear(shape.widths[self.left], width), nn.ReLU())
        self.head = _classifier(5 * width, config, self.target.outputs * (1 if self.target.labels else config.bins))
        self.centers: Tensor
        ordered = torch.linspace(-self.target.limit, self.target.limit, config.bins)
        self.register_buffer("centers", ordered, persistent=False)

    def forward(self, batch: Batch) -> Prediction:
        """Fuse words and regions; see `SentimentModel`."""
        inputs = self.inputs(batch)
        words = self.words(inputs["text"])
        regions = _clean(self.regions(inputs[self.config.regions].values), inputs[self.config.regions])
        seen = Frames(self.look(words.values, regions.values, regions.mask), words.lengths)
        coarse = [masked_mean(words), masked_mean(seen)]
        text, picture = self.correlate(words, regions)
        fine = [self.text_pool(text), self.region_pool(picture)]
        third = self.third(masked_mean(inputs[self.left]))
        logits = self.head(torch.cat([*coarse, *fine, third], -1))
        return Prediction(logits) if self.target.labels else self._expectation(logits)

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the cross-entropy; for numbers that of the ordered classes, and the mean absolute error."""
        error = self.target.loss(prediction.output, batch.labels)
        if self.target.labels:
            return error
        known = self.target.known(batch.labels)
        chances = prediction.extras["logits"].float().log_softmax(-1)
        entropy = -(self.soft_label(batch.labels.nan_to_num(0.0)) * chances).sum(-1).mean(-1)
        return error + (entropy * known).sum() / known.sum().clamp(min=1)

    def soft_label(self, labels: Tensor) -> Tensor:
        """Return each number as weights (B, numbers, bins) of the two classes around it, whose expectation it is."""
        limit = self.target.limit
        place = (labels.clamp(-limit, limit) + limit) / (2 * limit) * (self.config.bins - 1)
        steps = torch.arange(self.config.bins, device=labels.device)
        return (1 - (place[..., None] - steps).abs()).clamp(min=0)

    def _expectation(self, logits: Tensor) -> Prediction:
        logits = logits.view(len(logits), self.target.outputs, self.config.bins)
        return Prediction((logits.float().softmax(-1) * self.centers).sum(-1), {"logits": logits})


class Words(nn.Module):
    """A bidirectional LSTM and self-attention over its states."""

    def __init__(self, width: int, out: int, heads: int) -> None:
        super().__init__()
        self.read = Recurrent(width, out // 2, both_ways=True)
        self.attend = Attention(out, heads)
        self.norm = nn.LayerNorm(out)

    def forward(self, frames: Frames) -> Frames:
        """Return the words in their context, 0 beyond a row's length."""
        states = self.read(frames)[0]
        return _clean(self.norm(states.values + self.attend(states.values, states.values, states.mask)), frames)


class Correlation(nn.Module):
    """Correlation acquisition: words and regions, each with what correlates with it from the other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bilinear = nn.Linear(width, width, bias=False)
        self.text, self.regions = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = width**-0.5

    def forward(self, words: Frames, regions: Frames) -> tuple[Frames, Frames]:
        """Return T' and P'; both inputs are 0 beyond their lengths, so the correlations there are too."""
        c = torch.tanh(self.bilinear(words.values) @ regions.values.transpose(1, 2) * self.scale)
        text, picture = self.text(words.values), self.regions(regions.values)
        c_text = text + c @ picture / regions.lengths[:, None, None]
        c_picture = picture + c.transpose(1, 2) @ text / words.lengths[:, None, None]
        return (
            Frames(words.values + c_text.tanh(), words.lengths),
            Frames(regions.values + c_picture.tanh(), regions.lengths),
        )


class Pool(nn.Module):
    """Additive attention over frames to one vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The last map has no bias: a softmax would not notice it.
        self.score = nn.Sequential(nn.Linear(width, width // 2), nn.Tanh(), nn.Linear(width // 2, 1, bias=False))

    def forward(self, frames: Frames) -> Tensor:
        """Return (B, width)."""
        scores = self.score(frames.values)[..., 0].float().masked_fill(~frames.mask, float("-inf"))
        weights = scores.softmax(-1).to(frames.values.dtype)
        return torch.einsum("bl,bld->bd", weights, frames.values)


def _clean(values: Tensor, like: Frames) -> Frames:
    """Frames of the lengths of `like`, with 0 beyond them."""
    return Frames(values.masked_fill(~like.mask[..., None], 0), like.lengths)


def _classifier(width: int, config: Config, outputs: int) -> nn.Sequential:
    first, second = config.hidden
    layers = [nn.Linear(width, first), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(nn.Dropout(config.dropout), *layers, nn.Linear(second, outputs))
