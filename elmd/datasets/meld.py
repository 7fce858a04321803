"""MELD: English dialogues of several speakers from the series Friends, seven emotions (ACL 2019).

Reads the official csv files; OpenFace action units beside them become visual features.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import Features, Turns, add, check_split, cut, emotion, feature, find, read_csv, read_lines
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Utterance

CARD = DatasetCard(
    title="MELD",
    language="en",
    license="GPL-3.0",
    url="https://github.com/declare-lab/MELD",
    splits=("train", "valid", "test"),
    files=("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv"),
    label_set="meld",
    note="OpenFace files train.txt, dev.txt, test.txt in the root or in openface/ add 17 action units an utterance",
)

_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
_FILE = {"train": "train", "valid": "dev", "test": "test"}
_CLOCK = re.compile(r"(\d+):(\d+):(\d+)[.,](\d+)")
_UNITS = 17


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split in file order; ids are "meld:<split>_<Dialogue_ID>".

    Numbers start anew in each split, hence the split in the id.
    """
    checked = check_split("meld", split, CARD.splits)
    path = find(root, f"{_FILE[split]}_sent_emo.csv", get=f"it is in data/MELD of {CARD.url}")
    units, rows = _openface(root, f"{_FILE[split]}.txt", on_bad)
    dialogues: dict[str, Turns] = {}
    for line, row in read_csv(path, _COLUMNS, on_bad, _WINDOWS_1252):
        try:
            dialogue, number = _number(row, "Dialogue_ID"), _number(row, "Utterance_ID")
            features = feature("vision", units, rows, f"dia{dialogue}_utt{number}")
            add(dialogues, f"{split}_{dialogue}", number, _utterance(row, features))
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, line, str(error)))
    for key, turns in dialogues.items():
        yield from cut("meld", CARD, checked, key, turns)


def _number(row: dict[str, str], column: str) -> int:
    if not row[column].strip().isdecimal():
        raise ValueError(f"{column} {row[column]!r} is not a number")
    return int(row[column])


def _utterance(row: dict[str, str], features: Features) -> Utterance:
    return Utterance(
        speaker=row["Speaker"].strip(),
        text=clean(row["Utterance"]),
        emotion=emotion("meld", row["Emotion"]),
        start=_seconds(row["StartTime"]),
        end=_seconds(row["EndTime"]),
        features=features,
    )


def _seconds(time: str) -> float | None:
    """Return seconds of "h:m:s,milliseconds", or None for a blank."""
    match = _CLOCK.fullmatch(time.strip())
    if not match:
        if time.strip():
            raise ValueError(f"time {time!r} is not hours:minutes:seconds,milliseconds")
        return None
    hours, minutes, seconds, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def _openface(root: Path, name: str, on_bad: OnBad) -> tuple[Path | None, dict[str, int]]:
    """Return the action-unit file and the row (line, from 0) of each "dia<X>_utt<Y>" in it, or (None, {})."""
    path = next((p for p in (root / name, root / "openface" / name) if p.is_file()), None)
    rows: dict[str, int] = {}
    for line, text in read_lines(path, on_bad) if path else ():
        key, *numbers = text.split()
        if len(numbers) == _UNITS:
            rows[key] = line - 1
        else:
            on_bad(BadData(path or name, line, f"{len(numbers)} numbers where OpenFace writes {_UNITS}"))
    return path, rows


def _windows_1252() -> dict[int, str]:
    """Map stray Windows-1252 bytes, and control characters that were such bytes, to what they stood for."""
    table: dict[int, str] = {}
    for byte in range(0x80, 0x100):
        character = bytes([byte]).decode("cp1252", errors="ignore")
        if character:
            table[0xDC00 + byte] = character
        if character and byte < 0xA0:
            table[byte] = character
    return table


_WINDOWS_1252 = _windows_1252()
