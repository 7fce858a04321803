"""What a metric hands on: measures, each a score as a function of how often every row is counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from elmd.types import Language

Floats: TypeAlias = npt.NDArray[np.float64]
Of: TypeAlias = Callable[[Floats], Floats]
"""Counts, shape (resamples, rows), to values, shape (resamples,). A row counted twice weighs twice."""

Vectors: TypeAlias = Callable[[list[str]], list[npt.NDArray[np.float32]]]
"""Texts to their token vectors, one (tokens, dim) array a text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every scorer is told.

    Attributes:
        language: The language of all rows; it picks the tokenisers.
        vectors: The encoder for metrics that compare vectors, or None when there is none.
        encoder: Its name, for the signature.
    """

    language: Language
    vectors: Vectors | None = None
    encoder: str = "custom"


@dataclass(frozen=True, slots=True)
class Measure:
    """One score of a set of rows, ready to be resampled.

    Attributes:
        name: The score's name, one of its metric's NAMES.
        signature: What made the number, as `key:value` joined by "|".
        of: Counts to values; nan where a resample holds nothing to score.
        kinds: Whether it counts how many different things occur. Resampling repeats rows and so can only lower
            such a count; its interval is moved to the value.
    """

    name: str
    signature: str
    of: Of
    kinds: bool = False


def signature(metric: str, *libraries: str, **parts: object) -> str:
    """Join a metric's settings and the versions of the distributions it uses into one signature."""
    pairs = [f"{key}:{value}" for key, value in parts.items()]
    return "|".join([metric, *pairs, *(f"{library}:{version(library)}" for library in libraries)])


def mean(per_row: Sequence[float] | Floats) -> Of:
    """Average a number a row."""
    column = np.asarray(per_row, dtype=np.float64)
    return lambda counts: (counts @ column) / counts.sum(axis=1)


def pooled(table: Floats, finish: Of) -> Of:
    """Add up each row's statistics, `table` of shape (rows, k), then `finish` the sums, shape (resamples, k)."""
    return lambda counts: finish(counts @ table)


def different(row_of: Sequence[int], kind_of: Sequence[int]) -> Of:
    """Count the kinds that occur: thing i is of kind `kind_of[i]` and stands in row `row_of[i]`."""
    if not row_of:
        return lambda counts: np.zeros(len(counts))
    pairs = np.unique(np.stack([np.asarray(kind_of), np.asarray(row_of)], axis=1), axis=0)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    rows = pairs[:, 1]
    return lambda counts: np.logical_or.reduceat((counts > 0)[:, rows], starts, axis=1).sum(axis=1, dtype=np.float64)
