"""AdaFN-AG: audio and vision normalised towards the text, attention gates, generated unimodal labels (Liu et al., 2024).

Paper: "AdaFN-AG: Enhancing multimodal interaction with Adaptive Feature Normalization for Multimodal Sentiment
Analysis" (Intelligent Systems with Applications 23). This is a reconstruction from the published description, not the
authors' model; no code is public. Choices made here:

- AdaFN takes mean and deviation over the features of a frame, after all modalities are brought to one width, and those
  of the text from its pooled vector; the learned share of the normalised frame is one number a modality.
- The attention gate asks from the text's side: its queries are the text's frames, so that what the text says (S) and
  what the other modality says to it (C) meet frame by frame whatever the lengths, and the residual of C is the text's.
- The fused vector holds the three unimodal vectors and what both gates let through; the unimodal tasks see the
  former only. Their heads and labels are Self-MM's (`_ulgm`).
"""

import torch
from torch import Tensor, nn

from elmd.sentiment.base import Prediction, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention, Recurrent, masked_mean
from elmd.sentiment.models._ulgm import FUSED, LastState, MultiTask, TaskConfig, pooled
from elmd.types import MODALITIES, Modality

OTHERS: tuple[Modality, ...] = ("audio", "vision")
_TINY = 1e-5


class Config(TaskConfig):
    """Sizes of AdaFN-AG."""

    width: int = 64
    """Of the frames of every modality, where they are normalised and where they attend to each other."""
    heads: int = 4
    audio: int = 16
    """Width of the audio's vector."""
    vision: int = 32
    audio_state: int = 16
    """Width of the state of the audio's LSTM."""
    vision_state: int = 32
    dropout: float = 0.1
    """On attention weights."""


class Model(MultiTask):
    """AdaFN, then an LSTM and an attention gate for audio and for vision, and a head a task."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        widths = {"text": shape.widths["text"], "audio": config.audio, "vision": config.vision}
        super().__init__(config, shape, {FUSED: sum(widths.values()) + 2 * config.width, **widths})
        self.projections = nn.ModuleDict({m: nn.Linear(shape.widths[m], config.width) for m in MODALITIES})
        self.normalise = nn.ModuleDict({m: AdaFN() for m in OTHERS})
        self.encoders = nn.ModuleDict(
            {
                "audio": LastState(config.width, config.audio_state, config.audio),
                "vision": LastState(config.width, config.vision_state, config.vision),
            }
        )
        self.readers = nn.ModuleDict({m: _reader(config.width) for m in MODALITIES})
        self.gates = nn.ModuleDict({m: AttentionGate(config.width, config.heads, config.dropout) for m in OTHERS})

    def forward(self, batch: Batch) -> Prediction:
        """Normalise, encode and gate; see `SentimentModel`."""
        inputs = self.inputs(batch)
        frames = {m: Frames(self.projections[m](inputs[m].values), inputs[m].lengths) for m in MODALITIES}
        style = pooled(frames["text"], self.config.text_pool)
        text = self.readers["text"](frames["text"])[0]
        vectors, gated = {"text": pooled(inputs["text"], self.config.text_pool)}, []
        for m in OTHERS:
            adapted = self.normalise[m](frames[m], style)
            vectors[m] = self.encoders[m](adapted)
            gated.append(self.gates[m](text, self.readers[m](adapted)[0]))
        return self.predict(batch, {FUSED: torch.cat([*vectors.values(), *gated], -1), **vectors})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what reads audio and vision alone as "audio" and "vision", the rest as "main"."""
        parts = ("projections", "normalise", "encoders", "readers")
        return self.groups_by_prefix(**{m: tuple(f"{part}.{m}." for part in parts) for m in OTHERS})


class AdaFN(nn.Module):
    """Adaptive feature normalisation: a share of each frame is replaced by the frame with the text's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(()))
        """Its sigmoid is the share lambda, so a half to begin with."""

    def forward(self, frames: Frames, text: Tensor) -> Frames:
        """Return the frames (B, L, width) brought towards `text` (B, width)."""
        values = frames.values.float()
        mean, deviation = _statistics(values)
        text_mean, text_deviation = _statistics(text[:, None].float())
        adapted = text_deviation * (values - mean) / deviation + text_mean
        return Frames(values.lerp(adapted, self.share.sigmoid()), frames.lengths)


class AttentionGate(nn.Module):
    """What another modality says to the text, through two gates and averaged over the text's frames."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout=dropout)
        self.cross_attention = Attention(width, heads, dropout=dropout)
        self.self_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.choose, self.forget = nn.Linear(2 * width, width), nn.Linear(2 * width, width)

    def forward(self, text: Frames, other: Frames) -> Tensor:
        """Return (B, width) from the frames of both, (B, Lt, width) and (B, Lo, width)."""
        own = self.self_norm(text.values + self.self_attention(text.values, text.values, text.mask))
        heard = self.cross_norm(text.values + self.cross_attention(text.values, other.values, other.mask))
        mixed = own + self.choose(torch.cat([own, heard], -1)).sigmoid() * (heard - own)
        kept = self.forget(torch.cat([mixed, text.values], -1)).sigmoid() * mixed
        return masked_mean(Frames(kept, text.lengths))


def _reader(width: int) -> Recurrent:
    return Recurrent(width, width // 2, nn.GRU, both_ways=True)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the features; not 0 where all are equal, and then with a gradient."""
    variance, mean = torch.var_mean(values, -1, correction=0, keepdim=True)
    return mean, (variance + _TINY).sqrt()
