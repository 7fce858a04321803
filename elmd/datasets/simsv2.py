"""CH-SIMS v2(s): the larger CH-SIMS, with sentiment in [-1, 1], also judged from each modality alone.

Liu et al., ICMI 2022; the labelled part, features in MMSA's pickle: 768 (BERT), 25 and 177 wide.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets import _mmsa
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

CARD = DatasetCard(
    title="CH-SIMS v2(s)",
    language="zh",
    license="research only, the authors' terms",
    url="https://github.com/thuiar/ch-sims-v2",
    splits=("train", "valid", "test"),
    files=("ch-simsv2s.pkl", "unaligned.pkl", "unaligned_39.pkl", "aligned_39.pkl"),
    label_set=None,
    note="one of the files, there or in Processed/; name the .pkl itself as the root to choose",
    scale="sims",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split; ids are "<video>_<clip>", the origin is the video."""
    return _mmsa.samples(CARD, root, split, on_bad)
