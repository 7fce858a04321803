"""Dialogue or sample JSONL: your own data, one dialogue or sample a line, in the format that elmd writes.

The root is a folder with `train.jsonl`, `valid.jsonl`, `test.jsonl` (any of them), or one .jsonl file whose rows
belong to the split they name; a row that names none belongs to every split. A line with "turns" is a dialogue, any
other a sample.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import check_split, find, of_split
from elmd.datasets._samples import read_rows
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Dialogue, Sample, Split

CARD = DatasetCard(
    title="Dialogue and sample JSONL",
    language="zh",
    license="unstated",
    url="https://jsonlines.org",
    splits=("train", "valid", "test"),
    files=("train.jsonl", "valid.jsonl", "test.jsonl"),
    label_set="ekman",
    note="Chinese or English, as each row says or its words show; the root may also be one .jsonl file",
)


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split; ids, `source` and `license` are the rows' own where they have them."""
    path, checked = _file(root, split)
    return of_split(path, "jsonl", CARD.license, checked, on_bad, mixed=root.is_file())


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split, those of dialogues as "<dialogue id>#<turn>"."""
    path, checked = _file(root, split)
    return read_rows(path, checked, on_bad, mixed=root.is_file())


def _file(root: Path, split: str) -> tuple[Path, Split]:
    if root.is_file():
        return root, check_split("jsonl", split, CARD.splits)
    there: tuple[Split, ...] = tuple(name for name in CARD.splits if (root / f"{name}.jsonl").is_file())
    checked = check_split("jsonl", split, there or CARD.splits)
    return find(root, f"{split}.jsonl", get="write one dialogue or sample a line as docs/data.md shows"), checked
