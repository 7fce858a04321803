"""CMU-MOSEI: English video opinions, many speakers, sentiment in [-3, 3]; features in MMSA's pickle.

Zadeh et al., ACL 2018; features as MMSA releases them: 768 (BERT), 74 and 35 wide.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets import _mmsa
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

CARD = DatasetCard(
    title="CMU-MOSEI",
    language="en",
    license="research only, the authors' terms",
    url="https://github.com/thuiar/MMSA",
    splits=("train", "valid", "test"),
    files=("unaligned_50.pkl", "aligned_50.pkl"),
    label_set=None,
    note="one of the files, there or in Processed/; name the .pkl itself as the root to choose; takes 10 GB of memory",
    scale="mosi",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split; ids are "<video>_<clip>", the origin is the video."""
    return _mmsa.samples(CARD, root, split, on_bad)
