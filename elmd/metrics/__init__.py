"""Metrics: one file a family; each turns judged replies into measures that can be resampled.

The contract of an entry, say `elmd/metrics/bleu.py`:

- the first line of its docstring says what it measures (`elmd list metrics` prints it);
- `NAMES`: every score name it can produce, without language prefix;
- `scorer(rows, settings) -> tuple[Measure, ...]`: rows of one language, each row's statistics computed once;
  a measure that has nothing to score (no annotated emotions, say) is left out;
- `ON_DEMAND = True` if it is costly and scored only when asked for by name.

Heavy libraries are imported inside functions. `elmd.evaluate` calls the entries, resamples and builds `Score`s.
"""

from elmd.metrics._base import Measure, Settings, Vectors

__all__ = ["Measure", "Settings", "Vectors"]
