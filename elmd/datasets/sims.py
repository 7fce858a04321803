"""CH-SIMS: Chinese film and television clips with sentiment in [-1, 1], also judged from each modality alone.

Yu et al., ACL 2020; features in MMSA's pickle: 768 (BERT), 33 and 709 wide.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets import _mmsa
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

CARD = DatasetCard(
    title="CH-SIMS",
    language="zh",
    license="research only, the authors' terms",
    url="https://github.com/thuiar/MMSA",
    splits=("train", "valid", "test"),
    files=("unaligned_39.pkl", "aligned_39.pkl"),
    label_set=None,
    note="one of the files, there or in Processed/; name the .pkl itself as the root to choose",
    scale="sims",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split; ids are "<video>_<clip>", the origin is the video."""
    return _mmsa.samples(CARD, root, split, on_bad)
