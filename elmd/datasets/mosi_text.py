"""CMU-MOSI as raw text: words and sentiment in [-3, 3], the standard split; with audio vectors where they lie beside.

A csv file with the columns id, text, label, mode. Of the utterance features beside it only the audio is joined: the
text and vision vectors come from networks that have seen most test videos of the standard split.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elmd.datasets import _labels
from elmd.datasets._mmsa import read_parts, samples_of
from elmd.datasets.mosi_utterance import CARD as UTTERANCE
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Sample

if TYPE_CHECKING:
    import numpy as np

CARD = DatasetCard(
    title="CMU-MOSI, raw text",
    language="en",
    license="research only, the authors' terms",
    url="https://github.com/thuiar/MMSA",
    splits=("train", "valid", "test"),
    files=(_labels.FILE,),
    label_set=None,
    note=f"{UTTERANCE.files[0]} beside it adds its audio vectors, never its text and vision; the root may be the csv file",
    scale="mosi",
)


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split; one that the utterance features do not have is without audio."""
    voices = _audio((root.parent if root.is_file() else root) / UTTERANCE.files[0], on_bad)
    for sample in _labels.samples(CARD, root, split, on_bad):
        yield replace(sample, features={"audio": voices[sample.id]}) if sample.id in voices else sample


def _audio(path: Path, on_bad: OnBad) -> dict[str, "np.ndarray"]:
    """Return the audio vectors of all parts by id, or none if the file is not there."""
    parts = read_parts(path).values() if path.is_file() else ()
    found = (sample for part in parts for sample in samples_of(UTTERANCE, path, part, on_bad))
    return {sample.id: sample.features["audio"] for sample in found if "audio" in sample.features}
