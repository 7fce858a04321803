"""CMU-MOSEI as raw text: words and sentiment in [-3, 3], the standard split.

A csv file with the columns video_id, clip_id, text, label, mode.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets import _labels
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

CARD = DatasetCard(
    title="CMU-MOSEI, raw text",
    language="en",
    license="research only, the authors' terms",
    url="https://github.com/thuiar/MMSA",
    splits=("train", "valid", "test"),
    files=(_labels.FILE,),
    label_set=None,
    note="no audio or vision; the root may also be the csv file",
    scale="mosi",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split; ids are "<video>_<clip>", the origin is the video."""
    return _labels.samples(CARD, root, split, on_bad)
