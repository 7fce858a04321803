"""Dialogue JSONL: your own dialogues, one a line, in the format that elmd writes.

The root is a folder with `train.jsonl`, `valid.jsonl`, `test.jsonl` (any of them), or one .jsonl file whose rows
belong to the split they name; a row that names none belongs to every split.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import check_split, find, of_split
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Dialogue, Split

CARD = DatasetCard(
    title="Dialogue JSONL",
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
    if root.is_file():
        return of_split(root, "jsonl", CARD.license, check_split("jsonl", split, CARD.splits), on_bad, mixed=True)
    there: tuple[Split, ...] = tuple(name for name in CARD.splits if (root / f"{name}.jsonl").is_file())
    checked = check_split("jsonl", split, there or CARD.splits)
    path = find(root, f"{split}.jsonl", get="write one dialogue a line as docs/data.md shows")
    return of_split(path, "jsonl", CARD.license, checked, on_bad)
