"""Samples as padded tensors with their true lengths, and batches of samples of like length."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from elmd.sentiment.target import Target
from elmd.types import MODALITIES, Modality, Sample

BUCKET = 16
"""Batches of one bucket: samples are sorted by length within this many batches, so that batches hold like lengths."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The vectors of one modality: `values` (B, L, width), 0 beyond a row's length; `lengths` (B,), 0 where it is missing."""

    values: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, L) bool: which frames are there."""
        return torch.arange(self.values.shape[1], device=self.lengths.device) < self.lengths[:, None]

    @property
    def present(self) -> Tensor:
        """(B,) bool: in which rows the modality is there."""
        return self.lengths > 0

    def to(self, device: torch.device) -> "Frames":
        """Return the frames on a device."""
        return Frames(self.values.to(device), self.lengths.to(device))

    def without(self, rows: Tensor) -> "Frames":
        """Return the frames with the modality missing in the rows where `rows` (B,) is true."""
        return Frames(self.values.masked_fill(rows[:, None, None], 0), self.lengths.masked_fill(rows, 0))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples as tensors.

    Attributes:
        index: Place of each sample in the training set, (B,).
        frames: Vectors of every modality; one that the data does not have is missing in every row.
        tokens: Ids of the words, (B, L, 1) long, where a text encoder makes the vectors of the text.
        labels: (B, target.width), nan where unknown.
        unimodal: Labels given from one modality alone, as `labels`; a modality without any is left out.
    """

    index: Tensor
    frames: Mapping[Modality, Frames]
    labels: Tensor
    unimodal: Mapping[Modality, Tensor]
    tokens: Frames | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            self.index.to(device),
            {name: frames.to(device) for name, frames in self.frames.items()},
            self.labels.to(device),
            {name: labels.to(device) for name, labels in self.unimodal.items()},
            self.tokens.to(device) if self.tokens else None,
        )

    def without(self, missing: Mapping[Modality, Tensor]) -> "Batch":
        """Return the batch with modalities missing in the rows where their (B,) masks are true."""
        frames = {name: f.without(missing[name]) if name in missing else f for name, f in self.frames.items()}
        tokens = self.tokens.without(missing["text"]) if self.tokens and "text" in missing else self.tokens
        return replace(self, frames=frames, tokens=tokens)


class Table:
    """Samples laid out for batching: per modality one long array of frames, and where each sample's begin.

    Args:
        samples: In the order of `Batch.index`.
        modalities: Those to use; the others are missing everywhere.
        target: Which labels to take.
        tokens: Take token ids for the text instead of vectors.
    """

    def __init__(
        self, samples: Sequence[Sample], modalities: Sequence[Modality], target: Target, tokens: bool = False
    ) -> None:
        self.ids = [sample.id for sample in samples]
        self.origins = [sample.origin for sample in samples]
        self.target = target
        vectors = [m for m in modalities if not (tokens and m == "text")]
        self.widths: dict[Modality, int] = {m: _width(samples, m) if m in vectors else 1 for m in MODALITIES}
        self._frames = {
            m: _Ragged([s.features.get(m) if m in vectors else None for s in samples], self.widths[m])
            for m in MODALITIES
        }
        ids = [s.tokens[:, None] if s.tokens is not None else None for s in samples] if tokens else None
        self._tokens = _Ragged(ids, 1, torch.long) if ids else None
        self.labels = torch.tensor([target.encode(s) for s in samples], dtype=torch.float32).reshape(-1, target.width)
        self._unimodal = {
            m: torch.tensor([target.encode(s, m) for s in samples], dtype=torch.float32)
            for m in MODALITIES
            if any(m in s.sentiments for s in samples)
        }

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """Frames of every sample, over all its modalities, (n,)."""
        ragged = [*self._frames.values(), *([self._tokens] if self._tokens else [])]
        return torch.stack([r.lengths for r in ragged]).sum(0)

    def statistics(self) -> dict[Modality, tuple[Tensor, Tensor]]:
        """Return mean and standard deviation (width,) of every modality over its true frames; 0 and 1 where constant."""
        return {m: self._frames[m].statistics() for m in MODALITIES}

    def only(self, modalities: Sequence[Modality]) -> "Table":
        """Return the table as if the modalities that are not named were missing everywhere."""
        other = copy(self)
        other._frames = {m: r if m in modalities else r.emptied() for m, r in self._frames.items()}
        other._tokens = self._tokens.emptied() if self._tokens and "text" not in modalities else self._tokens
        return other

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return some samples as a batch, cropped to the longest of them."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        return Batch(
            chosen,
            {m: self._frames[m].take(chosen) for m in MODALITIES},
            self.labels[chosen],
            {m: labels[chosen] for m, labels in self._unimodal.items()},
            self._tokens.take(chosen) if self._tokens else None,
        )

    def batches(self, size: int, seed: int | None = None, rows: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield all samples, or those of `rows`, in batches of like length.

        Args:
            size: Samples in a batch; the last may hold fewer.
            seed: Shuffles them; from short to long when None.
            rows: A part of the samples; each occurs as often as it is named.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        for batch in _order(self.lengths.numpy(), chosen, size, seed):
            yield self.batch(batch)


class _Ragged:
    """Arrays (length, width) of any length, end to end."""

    def __init__(self, arrays: Sequence[np.ndarray | None], width: int, dtype: torch.dtype = torch.float32) -> None:
        self.lengths = torch.tensor([0 if a is None else len(a) for a in arrays], dtype=torch.long)
        self.starts = self.lengths.cumsum(0) - self.lengths
        there = [np.asarray(a) for a in arrays if a is not None and len(a)]
        joined = np.concatenate(there) if there else np.zeros((0, width), np.float32)
        # One row of zeros at the end stands for all padding.
        self.values = torch.cat([torch.from_numpy(joined).to(dtype), torch.zeros(1, width, dtype=dtype)])

    def take(self, rows: Tensor) -> Frames:
        lengths, starts = self.lengths[rows], self.starts[rows]
        steps = torch.arange(max(1, int(lengths.max())))
        places = torch.where(steps < lengths[:, None], starts[:, None] + steps, len(self.values) - 1)
        return Frames(self.values[places], lengths)

    def emptied(self) -> "_Ragged":
        other = copy(self)
        other.lengths = torch.zeros_like(self.lengths)
        return other

    def statistics(self) -> tuple[Tensor, Tensor]:
        frames = self.values[:-1].double()
        if not len(frames):
            width = self.values.shape[1]
            return torch.zeros(width), torch.ones(width)
        deviation = frames.std(0, correction=0)
        return frames.mean(0).float(), torch.where(deviation < 1e-6, 1.0, deviation).float()


def _order(lengths: np.ndarray, rows: np.ndarray, size: int, seed: int | None) -> list[list[int]]:
    """The rows of each batch: sorted by length within buckets of shuffled rows, then the batches shuffled."""
    if seed is None:
        return _chunks(rows[lengths[rows].argsort(kind="stable")].tolist(), size)
    random = np.random.default_rng(seed)
    buckets = _chunks(random.permutation(rows).tolist(), size * BUCKET)
    batches = [batch for b in buckets for batch in _chunks(sorted(b, key=lambda row: int(lengths[row])), size)]
    return [batches[i] for i in random.permutation(len(batches))]


def _width(samples: Sequence[Sample], modality: Modality) -> int:
    """Width of a modality's vectors; 1 when no sample has any."""
    return next((s.features[modality].shape[1] for s in samples if modality in s.features), 1)


def _chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
