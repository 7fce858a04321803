"""SMILE: Chinese counselling dialogues that ChatGPT spread out from single questions and answers; no emotions.

Reads `dialogues.jsonl.gz`, `dialogues.jsonl`, or the official folder of JSON files (one a dialogue). The set has no
split: the SHA-256 of a dialogue's id, as a number modulo 100, gives train (below 90), valid (below 95) or test.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elmd.datasets._common import Turns, check_split, cut, read_json, read_lines, take
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Split, Utterance

CARD = DatasetCard(
    title="SMILE",
    language="zh",
    license="CC0-1.0",
    url="https://github.com/qiuhuachuan/smile",
    splits=("train", "valid", "test"),
    files=("dialogues.jsonl.gz",),
    label_set=None,
    note="synthetic, and holds talk of self-harm; dialogues.jsonl or the official data/*.json work as well",
)

_SPEAKERS = ("client", "counselor")


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split; ids are "smile:<id>" (in the official folder the id is the file's name)."""
    checked = check_split("smile", split, CARD.splits)
    seen: set[str] = set()
    for path, line, row in _rows(root, on_bad):
        try:
            key, said = _name(row), take(row, "data", list)
            if key in seen:
                raise ValueError(f"id {key!r} is there twice")
        except ValueError as error:
            on_bad(BadData(path, line, str(error)))
            continue
        seen.add(key)
        if split_of(key) == split:
            yield from cut("smile", CARD, checked, key, _turns(path, line, said, on_bad))


def split_of(key: str) -> Split:
    """Return the split of a dialogue id: the same on every machine and in every release of elmd."""
    share = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 100
    return "train" if share < 90 else "valid" if share < 95 else "test"


def _rows(root: Path, on_bad: OnBad) -> Iterator[tuple[Path, int | None, Any]]:
    """Yield (file, line, dialogue) from the first layout that is there."""
    for name in ("dialogues.jsonl.gz", "dialogues.jsonl"):
        if (root / name).is_file():
            yield from _lines(root / name, on_bad)
            return
    files = sorted([*root.glob("*.json"), *root.glob("data/*.json")], key=lambda p: (len(p.stem), p.stem))
    if not files:
        raise UsageError(f"{CARD.files[0]}, dialogues.jsonl or data/*.json is not under {root}; it is at {CARD.url}")
    for path in files:
        try:
            yield path, None, {"id": path.stem, "data": read_json(path, list)}
        except BadData as problem:
            on_bad(problem)


def _lines(path: Path, on_bad: OnBad) -> Iterator[tuple[Path, int | None, Any]]:
    for line, text in read_lines(path, on_bad):
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            on_bad(BadData(path, line, f"not JSON ({error})"))
            continue
        yield path, line, row


def _name(row: Any) -> str:
    name = row.get("id") if isinstance(row, dict) else None
    return str(name) if isinstance(name, int) else take(row, "id", str)


def _turns(path: Path, line: int | None, said: list[Any], on_bad: OnBad) -> Turns:
    turns: Turns = {}
    for number, entry in enumerate(said):
        try:
            speaker = take(entry, "role", str)
            if speaker not in _SPEAKERS:
                raise ValueError(f"role {speaker!r} is not {' or '.join(_SPEAKERS)}")
            turns[number] = Utterance(speaker, clean(take(entry, "content", str)))
        except ValueError as error:
            on_bad(BadData(path, line, f"data.{number}: {error}"))
    return turns
