"""MMED: the multimodal emotional dialogues of the ELMD paper; not public, EmotionTalk stands in for them.

Whoever has the data writes them as dialogue JSONL, one file a split: `mmed.train.jsonl`, `mmed.valid.jsonl` and
`mmed.test.jsonl`. Everyone else uses the data set `emotiontalk` in its place.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import check_split, find, of_split
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Dialogue

CARD = DatasetCard(
    title="MMED",
    language="zh",
    license="not public",
    url="https://doi.org/10.1145/3652583.3658104",
    splits=("train", "valid", "test"),
    files=("mmed.train.jsonl", "mmed.valid.jsonl", "mmed.test.jsonl"),
    label_set="ekman",
    note="not public: emotiontalk stands in for it",
)


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of `mmed.<split>.jsonl`; ids are the file's own."""
    checked = check_split("mmed", split, CARD.splits)
    path = find(root, f"mmed.{split}.jsonl", get="MMED is not public; use the data set 'emotiontalk' in its place")
    return of_split(path, "mmed", CARD.license, checked, on_bad)
