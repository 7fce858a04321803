"""ESConv: English emotional-support conversations between a help seeker and a supporter (ACL 2021).

Reads the tab files that the authors' code was trained on (a window of turns a line), or the official `ESConv.json`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elmd.datasets._common import Turns, check_split, cut, emotion, find, read_json, read_lines, take
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Split, Utterance

CARD = DatasetCard(
    title="ESConv",
    language="en",
    license="CC-BY-NC-4.0",
    url="https://github.com/thu-coai/Emotional-Support-Conversation",
    splits=("train", "valid", "test"),
    files=("train.tsv", "dev.tsv", "test.tsv"),
    label_set="esconv",
    note="ESConv.json alone also works and is all train; only it has emotions, one a dialogue",
)

_FILE = {"train": "train", "valid": "dev", "test": "test"}
_GET = f"it is in codes/dataset of {CARD.url}"
# A turn is "<number> <role> <turn> <text>". Role 1 is the supporter: only such turns have a [Strategy] and end a
# line. The first number (1.0 for the turn to be learnt; in other projects' copies an emotion) is not used.
_TURN = re.compile(r"\S+ ([01]) (\d+) (.*)", re.DOTALL)
_STRATEGY = re.compile(r"\[[^\]]*\]\s*")
_SPEAKERS = ("seeker", "supporter")


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split; ids are "esconv:<split>_<n>", counted from 0 in file order."""
    if (root / "ESConv.json").is_file() and not any(_tab_file(root, name) for name in CARD.splits):
        return _read_json(root / "ESConv.json", check_split("esconv", split, ("train",)), on_bad)
    checked = check_split("esconv", split, CARD.splits)
    # ESConv.json beside tab files is passed over: as train it would hold the dialogues of valid and test.
    path = _tab_file(root, checked) or find(root, f"{_FILE[split]}.tsv", get=_GET)
    return _read_tab(path, checked, on_bad)


def _tab_file(root: Path, split: str) -> Path | None:
    names = (f"{_FILE[split]}.tsv", f"{_FILE[split]}WithStrategy_short.tsv")
    return next((root / name for name in names if (root / name).is_file()), None)


def _read_tab(path: Path, split: Split, on_bad: OnBad) -> Iterator[Dialogue]:
    for count, turns in enumerate(_rebuilt(path, on_bad)):
        yield from cut("esconv", CARD, split, f"{split}_{count}", turns)


def _rebuilt(path: Path, on_bad: OnBad) -> Iterator[Turns]:
    """Yield whole dialogues from lines that hold the up to four turns before a supporter's turn, and that turn.

    Lines of one dialogue follow each other and overlap, so their turns are laid over each other by number.
    """
    turns: Turns = {}
    for line, text in read_lines(path, on_bad):
        try:
            window = dict(_turn(item.strip()) for item in text.split(" EOS"))
        except ValueError as error:
            on_bad(BadData(path, line, str(error)))
            continue
        if turns and _begins_another(turns, window):
            yield turns
            turns = {}
        turns.update(window)
    if turns:
        yield turns


def _begins_another(turns: Turns, window: Turns) -> bool:
    return max(window) <= max(turns) or any(turns.get(number, said) != said for number, said in window.items())


def _turn(item: str) -> tuple[int, Utterance]:
    match = _TURN.fullmatch(item)
    if not match:
        raise ValueError(f"{item!r:.60} is not number, role, turn and text")
    role, number, text = match.groups()
    words = _STRATEGY.sub("", text, count=1) if role == "1" and text.startswith("[") else text
    return int(number), Utterance(_SPEAKERS[int(role)], clean(words))


def _read_json(path: Path, split: Split, on_bad: OnBad) -> Iterator[Dialogue]:
    for count, row in enumerate(read_json(path, list)):
        try:
            felt, topic = emotion("esconv", take(row, "emotion_type", str)), take(row, "problem_type", str)
            said = take(row, "dialog", list)
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, None, f"{count}: {error}"))
            continue
        turns: Turns = {}
        for number, entry in enumerate(said):
            try:
                turns[number] = _utterance(entry, None if "seeker" in {t.speaker for t in turns.values()} else felt)
            except ValueError as error:
                on_bad(BadData(path, None, f"{count}.dialog.{number}: {error}"))
        yield from cut("esconv", CARD, split, f"{split}_{count}", turns, topic)


def _utterance(entry: Any, felt: str | None) -> Utterance:
    """Return a turn; `felt` is what the seeker came with, so it is given to the seeker's first turn alone."""
    speaker = take(entry, "speaker", str)
    if speaker not in _SPEAKERS:
        raise ValueError(f"speaker {speaker!r} is not {' or '.join(_SPEAKERS)}")
    return Utterance(speaker, clean(take(entry, "content", str)), felt if speaker == "seeker" else None)
