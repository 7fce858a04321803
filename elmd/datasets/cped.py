"""CPED: Chinese television dialogues with 13 emotions, dialogue acts and the speakers' personality.

Reads speaker, text and emotion of the official csv files.
"""

from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import Turns, add, check_split, cut, emotion, find, read_csv
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Utterance

CARD = DatasetCard(
    title="CPED",
    language="zh",
    license="Apache-2.0",
    url="https://github.com/scutcyr/CPED",
    splits=("train", "valid", "test"),
    files=("train_split.csv", "valid_split.csv", "test_split.csv"),
    label_set="cped",
    note="negative-other has no counterpart among Ekman's emotions: such an utterance has none",
)

_COLUMNS = ("Dialogue_ID", "Utterance_ID", "Speaker", "Emotion", "Utterance")


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split in file order; ids are "cped:<Dialogue_ID>"."""
    checked = check_split("cped", split, CARD.splits)
    path = find(root, f"{split}_split.csv", get=f"it is in data/CPED of {CARD.url}")
    dialogues: dict[str, Turns] = {}
    for line, row in read_csv(path, _COLUMNS, on_bad):
        try:
            add(dialogues, row["Dialogue_ID"], _number(row["Utterance_ID"]), _utterance(row))
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, line, str(error)))
    for key, turns in dialogues.items():
        yield from cut("cped", CARD, checked, key, turns)


def _number(name: str) -> int:
    suffix = name.rpartition("_")[2]
    if not suffix.isdecimal():
        raise ValueError(f"Utterance_ID {name!r} does not end in a number")
    return int(suffix)


def _utterance(row: dict[str, str]) -> Utterance:
    speaker = row["Speaker"].strip()
    if not speaker:
        raise ValueError("no Speaker")
    return Utterance(speaker, clean(row["Utterance"]), emotion("cped", row["Emotion"]))
