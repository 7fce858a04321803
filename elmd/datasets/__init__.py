"""Data sets: one file each, named as a user types it; `elmd.zoo.DATASETS` finds them.

The contract of an entry: the first docstring line says what it is; `CARD` (a `DatasetCard`) says what it needs; and
it has one or both of

- `read(root, split, on_bad=stop)`, which yields `Dialogue`s with `id`, `source`, `license`, `language` and `split` set,
- `samples(root, split, on_bad=stop)`, which yields `Sample`s for sentiment analysis.

A bad row goes to `on_bad` and reading goes on if that returns; a missing file raises UsageError, a split the set
does not have UnknownName. A missing label is None. An utterance that is left out (bad, or without words) cuts its
dialogue into stretches "id~0", "id~1", so that no reply is ever paired with words it did not answer.

Callers go through `read_dialogues` and `read_samples`: a set that has only dialogues gives samples as well.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.errors import UsageError
from elmd.files import OnBad, stop
from elmd.types import Dialogue, Sample
from elmd.zoo import DATASETS


def read_dialogues(name: str, root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Return the dialogues of a split of the data set `name`; raise UsageError if it holds samples only."""
    entry = DATASETS.load(name)
    if not hasattr(entry, "read"):
        raise UsageError(f"{name} holds samples for sentiment analysis, not dialogues; `elmd data list` says which do")
    dialogues: Iterator[Dialogue] = entry.read(root, split, on_bad)
    return dialogues


def read_samples(name: str, root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Return the samples of a split of the data set `name`.

    Of a set that has dialogues only, every utterance with words is a sample, without a sentiment.
    """
    entry = DATASETS.load(name)
    if hasattr(entry, "samples"):
        samples: Iterator[Sample] = entry.samples(root, split, on_bad)
        return samples
    if not hasattr(entry, "read"):
        raise UsageError(f"{name} holds neither dialogues nor samples")
    from elmd.datasets._samples import of_dialogues

    return of_dialogues(entry.read(root, split, on_bad), root, on_bad)
