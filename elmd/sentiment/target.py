"""What a sentiment model predicts: a number, a class, or a point in the plane of valence and arousal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from elmd.labels import EKMAN, POLARITY, VAD_OF, polarity, polarity_of_sentiment
from elmd.types import Modality, Sample, Scale

if TYPE_CHECKING:
    from torch import Tensor

TargetName = Literal["sentiment", "polarity", "emotion", "valence_arousal"]
HALF_WIDTH: dict[Scale, float] = {"mosi": 3.0, "sims": 1.0}
"""Largest sentiment on each scale."""

_UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted, and how far a prediction is from its label.

    Labels are float tensors (B, width) with nan where a label is unknown: the sentiment on the data set's scale,
    valence and arousal in [-1, 1], or the index of the class in `labels`.

    Attributes:
        name: "sentiment", "polarity" (three classes), "emotion" (Ekman's seven) or "valence_arousal".
        scale: The scale of sentiment labels.
    """

    name: TargetName = "sentiment"
    scale: Scale = "mosi"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in order; () for numbers."""
        return {"polarity": POLARITY, "emotion": EKMAN}.get(self.name, ())

    @property
    def outputs(self) -> int:
        """How many numbers a model puts out for one sample."""
        return len(self.labels) or (2 if self.name == "valence_arousal" else 1)

    @property
    def width(self) -> int:
        """How many numbers a label has."""
        return 1 if self.labels else self.outputs

    @property
    def limit(self) -> float:
        """Largest absolute value of a label that is a number."""
        return HALF_WIDTH[self.scale] if self.name == "sentiment" else 1.0

    def encode(self, sample: Sample, modality: Modality | None = None) -> list[float]:
        """Return the label of a sample as `width` numbers; with `modality`, the one given from that modality alone.

        Where a sample carries no label of the wanted kind it is derived: polarity from sentiment or emotion,
        valence and arousal from the emotion (Russell and Mehrabian's ratings). What cannot be derived is nan.
        """
        sentiment = sample.sentiment if modality is None else sample.sentiments.get(modality)
        emotion = sample.emotion if modality is None else None
        if self.name == "sentiment":
            return [_UNKNOWN if sentiment is None else sentiment]
        if self.name == "valence_arousal":
            return list(VAD_OF[emotion][:2]) if emotion else [_UNKNOWN] * 2
        if self.name == "emotion":
            return [float(EKMAN.index(emotion)) if emotion else _UNKNOWN]
        found = polarity(emotion) if emotion else None
        found = polarity_of_sentiment(sentiment) if sentiment is not None else found
        return [float(POLARITY.index(found)) if found else _UNKNOWN]

    def error(self, output: "Tensor", label: "Tensor", power: int = 1) -> "Tensor":
        """Return how wrong each row is, (B,): cross-entropy, or the mean of |output - label| ** power; 0 where unknown."""
        from torch.nn import functional

        known = self.known(label)
        label = label.nan_to_num(0.0)
        if self.labels:
            wrong = functional.cross_entropy(output.float(), label[:, 0].long(), reduction="none")
        else:
            wrong = (output.float() - label).abs().pow(power).mean(-1)
        return wrong * known

    def loss(self, output: "Tensor", label: "Tensor", power: int = 1) -> "Tensor":
        """Return the mean error over the rows whose label is known, a scalar; 0 when there is none."""
        return self.error(output, label, power).sum() / self.known(label).sum().clamp(min=1)

    @staticmethod
    def known(label: "Tensor") -> "Tensor":
        """Return which rows of a label tensor are known, (B,) bool."""
        return ~label.isnan().any(-1)

    def decode(self, outputs: "Tensor") -> "Sequence[float | str | tuple[float, float]]":
        """Return what each row of model outputs says: a clipped number, a class, or (valence, arousal)."""
        if self.labels:
            return [self.labels[i] for i in outputs.argmax(-1).tolist()]
        rows = outputs.float().clamp(-self.limit, self.limit).tolist()
        return [row[0] if len(row) == 1 else (row[0], row[1]) for row in rows]
