"""CMU-MOSI, one vector an utterance and modality, as bc-LSTM (ACL 2017) made them; in MMSA's pickle.

Text, audio and vision are 100, 73 and 100 wide. The text and vision vectors come from networks that were trained on
the train videos of this split: use them with this split only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elmd.datasets._common import check_split
from elmd.datasets._mmsa import read_parts, samples_of
from elmd.errors import UsageError
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

CARD = DatasetCard(
    title="CMU-MOSI, utterance features",
    language="en",
    license="research only, the authors' terms",
    url="https://github.com/declare-lab/multimodal-deep-learning",
    splits=("train", "valid", "test"),
    files=("utterance_unaligned.pkl",),
    label_set=None,
    note="each split may lie in another .pkl file of the folder; the split is bc-LSTM's own, not the standard one",
    scale="mosi",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split, one frame a modality; the root is a folder of .pkl files or one such file."""
    checked = check_split("mosi_utterance", split, CARD.splits)
    paths = files(root)
    for path in paths:
        part = read_parts(path).get(checked)
        if part is not None and (root.is_file() or _one_step(part)):
            return samples_of(CARD, path, part, on_bad)
    if paths:
        raise UsageError(f"no part {checked!r} with one step a modality in {', '.join(map(str, paths))}")
    raise UsageError(f"{CARD.files[0]} is not under {root}; docs/data.md says what it holds")


def files(root: Path) -> list[Path]:
    """Return the pickles to look into, the one with the usual name first."""
    return (
        [root] if root.is_file() else sorted(root.glob("*.pkl"), key=lambda path: (path.name not in CARD.files, path))
    )


def _one_step(part: Any) -> bool:
    shape: tuple[int, ...] = getattr(part.get("audio"), "shape", ()) if isinstance(part, dict) else ()
    return len(shape) == 3 and shape[1] == 1
