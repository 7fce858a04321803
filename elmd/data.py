"""The data elmd ships: demonstrations, statements and prompts, found in a checkout and in an installed wheel alike."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from elmd.errors import UsageError
from elmd.files import read_dialogues, read_jsonl
from elmd.types import Dialogue, Language

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Statement:
    """An utterance on its own with its Ekman label."""

    id: str
    language: Language
    text: str
    emotion: str


def shipped(kind: str) -> Path:
    """Return the folder "data" or "prompts": inside the package in a wheel, beside it in a checkout."""
    for folder in (_PACKAGE / f"_{kind}", _PACKAGE.parent / kind):
        if folder.is_dir():
            return folder
    raise UsageError(f"this installation of elmd has no {kind!r} folder; install it again")


def demonstration_files() -> tuple[Path, ...]:
    """The files of our own demonstrations."""
    return tuple(sorted((shipped("data") / "demonstrations").glob("*.jsonl")))


@cache
def shipped_demonstrations() -> tuple[Dialogue, ...]:
    """Our own demonstrations as dialogues with reference and reference emotion."""
    return tuple(
        replace(dialogue, source="elmd") for file in demonstration_files() for dialogue in read_dialogues(file)
    )


def feelings() -> Iterator[Statement]:
    """Short statements of feeling to learn from (`data/feelings.jsonl`)."""
    return _statements("feelings.jsonl")


def statements() -> Iterator[Statement]:
    """The hand-written test statements (`data/statements.jsonl`), never trained on."""
    return _statements("statements.jsonl")


def _statements(name: str) -> Iterator[Statement]:
    for _, row in read_jsonl(shipped("data") / name):
        yield Statement(row["id"], row["language"], row["text"], row["emotion"])
