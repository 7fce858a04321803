"""CDML: what modalities agree on by adversarial translation, where they differ by unimodal tasks (Fang et al., 2024).

Paper: "Learning Modality Consistency and Difference Information with Multitask Learning for Multimodal Sentiment
Analysis" (Future Internet 16(6)). This is a reconstruction from the published description, not the authors' model; no
code is public. Choices made here:

- Translation works on one vector a modality: an MLP for each of the six ordered pairs. The discriminator of a modality
  tells its own vector, which stands still, from the two translations into it; the translators, and the encoders behind
  them, get its gradient reversed. Pairs that a row does not have are left out.
- The translations into a modality are the queries (bimodal information) of one crossmodal transformer over that
  modality's frames (unimodal information), so that long recordings cost no frame-by-frame attention.
- A modality's part in the fusion is the mean of its own vector and of its two answered translations; its weight comes
  from the three own vectors.
- Unimodal heads and labels are Self-MM's (`_ulgm`). The adversarial loss is the mean over the pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from elmd.sentiment.base import MAIN, Prediction, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import AttentionLayer, Recurrent
from elmd.sentiment.models._ulgm import FUSED, MultiTask, TaskConfig, pooled
from elmd.types import MODALITIES, Modality

SOURCES: dict[Modality, tuple[Modality, ...]] = {m: tuple(o for o in MODALITIES if o != m) for m in MODALITIES}
"""The modalities that are translated into each one."""


class Config(TaskConfig):
    """Sizes of CDML."""

    width: int = 128
    audio_state: int = 32
    """Width of the state of the audio's LSTM."""
    vision_state: int = 64
    layers: int = 2
    """Of each crossmodal transformer."""
    heads: int = 4
    dropout: float = 0.1
    adversarial_weight: float = 0.1
    cycle_weight: float = 0.0
    """Of the distance between a vector and its translation there and back; 0 leaves it out."""


class Model(MultiTask):
    """Translators with discriminators, crossmodal transformers, fusion by attention over modalities, a head a task."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        width = config.width
        super().__init__(config, shape, dict.fromkeys((FUSED, *MODALITIES), width))
        self.encoders = nn.ModuleDict(
            {
                "text": TextEncoder(shape.widths["text"], width, config),
                "audio": StateEncoder(shape.widths["audio"], config.audio_state, width),
                "vision": StateEncoder(shape.widths["vision"], config.vision_state, width),
            }
        )
        self.translators = nn.ModuleDict(
            {f"{source}_{m}": _mlp(width, width, width) for m in MODALITIES for source in SOURCES[m]}
        )
        self.discriminators = nn.ModuleDict({m: _mlp(width, width // 2, 1) for m in MODALITIES})
        self.crossmodal = nn.ModuleDict({m: Crossmodal(config) for m in MODALITIES})
        self.attention = nn.Sequential(nn.Linear(3 * width, width), nn.Tanh(), nn.Linear(width, 3))

    def forward(self, batch: Batch) -> Prediction:
        """Encode, translate, ask and fuse; see `SentimentModel`."""
        inputs = self.inputs(batch)
        frames: dict[Modality, Frames] = {}
        vectors: dict[str, Tensor] = {}
        for m in MODALITIES:
            frames[m], vectors[m] = self.encoders[m](inputs[m])
        translations = {m: self._translate(vectors, m) for m in MODALITIES}
        parts = []
        for m in MODALITIES:
            answers = self.crossmodal[m](translations[m], frames[m])
            parts.append(torch.cat([vectors[m][:, None], answers], 1).mean(1))
        weights = self.attention(torch.cat(list(vectors.values()), -1)).softmax(-1).to(parts[0].dtype)
        fused = (weights[..., None] * torch.stack(parts, 1)).sum(1)
        said = self.predict(batch, {FUSED: fused, **vectors})
        extras = {**said.extras, "weights": weights}
        for m in MODALITIES:
            extras[f"vector.{m}"], extras[f"translations.{m}"] = vectors[m], translations[m]
        return Prediction(said.output, extras)

    def loss(self, batch: Batch, prediction: Prediction, phase: str = MAIN) -> Tensor:
        """Return the loss of the four tasks and of the translation."""
        total = super().loss(batch, prediction, phase)
        total = total + self.config.adversarial_weight * self.adversarial_loss(batch, prediction)
        if self.config.cycle_weight:
            total = total + self.config.cycle_weight * self.cycle_loss(prediction)
        return total

    def adversarial_loss(self, batch: Batch, prediction: Prediction) -> Tensor:
        """Return -log D(h_j) - log(1 - D(G_ij(h_i))), the mean over the pairs that are there."""
        errors, pairs = [], []
        for m in MODALITIES:
            own, translated = prediction.extras[f"vector.{m}"], prediction.extras[f"translations.{m}"]
            real = self.discriminators[m](own.detach()).float()
            false = self.discriminators[m](reversed_gradient(translated)).squeeze(-1).float()
            errors.append(functional.softplus(-real) + functional.softplus(false))
            sources = torch.stack([batch.frames[source].present for source in SOURCES[m]], -1)
            pairs.append(sources & batch.frames[m].present[:, None])
        there = torch.cat(pairs, -1)
        return (torch.cat(errors, -1) * there).sum() / there.sum().clamp(min=1)

    def cycle_loss(self, prediction: Prediction) -> Tensor:
        """Return the mean absolute difference between vectors and their translations there and back."""
        errors = []
        for m in MODALITIES:
            for i, source in enumerate(SOURCES[m]):
                back = self.translators[f"{m}_{source}"](prediction.extras[f"translations.{m}"][:, i])
                errors.append(functional.l1_loss(back.float(), prediction.extras[f"vector.{source}"].float()))
        return torch.stack(errors).mean()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the encoders of audio and vision, the discriminators and, as "main", the rest."""
        encoders = {"audio": ("encoders.audio.",), "vision": ("encoders.vision.",)}
        return self.groups_by_prefix(**encoders, discriminators=("discriminators.",))

    def _translate(self, vectors: dict[str, Tensor], modality: Modality) -> Tensor:
        """Translations into a modality, (B, 2, width), in the order of its sources."""
        return torch.stack([self.translators[f"{s}_{modality}"](vectors[s]) for s in SOURCES[modality]], 1)


class TextEncoder(nn.Module):
    """The text's frames at the common width, and the vector that stands for them."""

    def __init__(self, inputs: int, width: int, config: Config) -> None:
        super().__init__()
        self.how = config.text_pool
        self.out = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))

    def forward(self, frames: Frames) -> tuple[Frames, Tensor]:
        """Return the frames (B, L, width) and the vector (B, width)."""
        return Frames(self.out(frames.values), frames.lengths), self.out(pooled(frames, self.how))


class StateEncoder(nn.Module):
    """An LSTM's states at the common width, and the last of them."""

    def __init__(self, inputs: int, state: int, width: int) -> None:
        super().__init__()
        self.read = Recurrent(inputs, state)
        self.out = nn.Sequential(nn.Linear(state, width), nn.LayerNorm(width))

    def forward(self, frames: Frames) -> tuple[Frames, Tensor]:
        """Return the frames (B, L, width) and the vector (B, width)."""
        states, last = self.read(frames)
        return Frames(self.out(states.values), frames.lengths), self.out(last)


class Crossmodal(nn.Module):
    """A crossmodal transformer: translations into a modality ask the frames of that modality."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentionLayer(config.width, config.heads, dropout=config.dropout, norm_first=False)
            for _ in range(config.layers)
        )

    def forward(self, queries: Tensor, frames: Frames) -> Tensor:
        """Return the answers to `queries` (B, n, width), alike."""
        for layer in self.layers:
            queries = layer(queries, frames.mask, frames.values)
        return queries


def reversed_gradient(values: Tensor) -> Tensor:
    """Return the values unchanged; their gradient changes its sign on the way back."""
    return 2 * values.detach() - values


def _mlp(width: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
