"""What the data sets share: finding files, reading rows with their line numbers, cutting dialogues at gaps."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from elmd.errors import BadData, UnknownName, UsageError
from elmd.files import OnBad, read_dialogues
from elmd.labels import LABEL_SETS
from elmd.runs import draw
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, FeatureRow, Scale, Split, Utterance

LIMITS: Mapping[Scale, float] = {"mosi": 3.0, "sims": 1.0}
"""The end of each scale of sentiment, either way from 0."""

Turns = dict[int, Utterance]
"""The utterances of one dialogue by their number in it."""

Features = dict[str, FeatureRow] | None
"""What `Utterance.features` takes."""

_UNDECODED = re.compile("[\udc80-\udcff]")

T = TypeVar("T")


def check_split(name: str, split: str, known: tuple[Split, ...]) -> Split:
    """Return `split` if the data set has it, else raise UnknownName."""
    if split not in known:
        raise UnknownName(f"{name} split", split, known)
    return split


def find(root: Path, *names: str, get: str) -> Path:
    """Return the first of `names` that is a file under `root`, else raise UsageError that says where to `get` it."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise UsageError(f"{' or '.join(names)} is not under {root}; {get}")


def take(row: Any, key: str, kind: type[T]) -> T:
    """Return `row[key]` if `row` is a JSON object that has it as a `kind`, else raise ValueError."""
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    value = row.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{key} must be {kind.__name__}, found {value!r:.60}")
    return value


def read_json(path: Path, kind: type[T]) -> T:
    """Return the value of a whole JSON file; raise BadData with the line if it is not JSON or not a `kind`."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadData(path, error.lineno, f"not JSON ({error.msg})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadData(path, None, f"not JSON ({error})") from error
    if not isinstance(value, kind):
        raise BadData(path, None, f"must hold a JSON {kind.__name__}, found {type(value).__name__}")
    return value


def read_lines(path: Path, on_bad: OnBad) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) for each line of a UTF-8 file (".gz" is unpacked); blank lines are passed over."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    on_bad(BadData(path, number, f"not UTF-8 (byte {error.start + 1} of the line)"))
                    continue
                if text:
                    yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(path, None, f"damaged gzip file ({error}); copy it again") from error


def read_csv(
    path: Path,
    columns: tuple[str, ...],
    on_bad: OnBad,
    repair: Mapping[int, str] | None = None,
    header: tuple[str, ...] = (),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) for each row of a UTF-8 csv file with a header.

    Args:
        path: The file; a byte order mark is passed over.
        columns: Columns it must have; BadData is raised if one is missing, since then no row can be read.
        on_bad: Takes rows with too few or too many cells and rows that are not UTF-8.
        repair: Characters to replace before parsing, as for `str.translate`; bytes that are not UTF-8 are the
            code points 0xDC80 to 0xDCFF.
        header: The header of a file that may come without one.
    """
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    text = text.translate(repair) if repair else text
    rows = csv.reader(io.StringIO(text, newline=""))
    first = tuple(next(rows, ()))
    if header and first and not set(first) & set(header):
        first, rows = header, csv.reader(io.StringIO(text, newline=""))
    missing = [column for column in columns if column not in first]
    if missing:
        raise BadData(path, 1, f"no column {', '.join(missing)}; the header is {','.join(first)!r:.200}")
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            on_bad(BadData(path, line, f"not csv ({error})"))
            continue
        if cells is None:
            return
        if cells and len(cells) != len(first):
            on_bad(BadData(path, line, f"{len(cells)} cells where the header has {len(first)}"))
        elif any(map(_UNDECODED.search, cells)):
            on_bad(BadData(path, line, "not UTF-8"))
        elif cells:
            yield line, dict(zip(first, cells, strict=True))


def emotion(label_set: str, label: object) -> str | None:
    """Map a data set's label to Ekman's seven; None or blank gives None, an unknown one raises UnknownName."""
    if label is not None and not isinstance(label, str):
        raise ValueError(f"emotion {label!r:.60} is not a word")
    return LABEL_SETS[label_set].to_ekman(label) if label and label.strip() else None


def sentiment(value: Any, scale: Scale) -> float | None:
    """Return a sentiment as its shortest decimal; None for a blank or NaN, ValueError off the scale.

    Files hold 0.1 as the float32 0.10000000149, which would fall into another class.
    """
    import numpy as np

    if isinstance(value, str) and not value.strip():
        return None
    number = float(str(np.float32(value)))
    if number != number:
        return None
    if abs(number) > LIMITS[scale]:
        raise ValueError(f"sentiment {number} is outside [-{LIMITS[scale]:g}, {LIMITS[scale]:g}]")
    return number


def part_of(key: str) -> Split:
    """Return the split of a row that has none of its own: 8 : 1 : 1, by a hash of `key` alone."""
    share = draw(key)
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def feature(kind: str, file: Path | None, rows: Mapping[str, int], key: str) -> Features:
    """Return `{kind: FeatureRow}` if `file` has a row for `key`; the path is absolute, so it holds in any folder."""
    return {kind: FeatureRow(str(file.absolute()), rows[key])} if file and key in rows else None


def add(dialogues: dict[str, Turns], key: str, number: int, utterance: Utterance) -> None:
    """Put an utterance at its place in its dialogue; raise ValueError if the place is taken."""
    turns = dialogues.setdefault(key, {})
    if number in turns:
        raise ValueError(f"utterance {number} of dialogue {key!r} is there twice")
    turns[number] = utterance


def cut(name: str, card: DatasetCard, split: Split, key: str, turns: Turns, topic: str | None = None) -> list[Dialogue]:
    """Return the unbroken stretches of a dialogue, in order.

    Utterances without text are left out. Where a number is missing, words that were said are missing: the dialogue
    is cut there into "name:key~0", "name:key~1" and so on. One without gaps is "name:key".
    """
    stretches = _unbroken(turns)
    return [
        Dialogue(
            id=f"{name}:{key}~{i}" if len(stretches) > 1 else f"{name}:{key}",
            turns=stretch,
            language=card.language,
            split=split,
            topic=topic,
            license=card.license,
            source=name,
        )
        for i, stretch in enumerate(stretches)
    ]


def _unbroken(turns: Turns) -> list[tuple[Utterance, ...]]:
    stretches: list[list[Utterance]] = []
    previous = None
    for number in sorted(turns):
        if not turns[number].text:
            continue
        if previous is None or number != previous + 1:
            stretches.append([])
        stretches[-1].append(turns[number])
        previous = number
    return [tuple(stretch) for stretch in stretches]


def of_split(
    path: Path, name: str, terms: str, split: Split, on_bad: OnBad, *, mixed: bool = False
) -> Iterator[Dialogue]:
    """Yield the dialogues of a dialogue JSONL file that belong to `split`, with cleaned text.

    A row's own source and licence are kept; else they are `name` and `terms`. A row of another split is passed over
    in a `mixed` file; in one that holds a single split it is bad, since it would leak between splits.
    """
    for dialogue in read_dialogues(path, on_bad):
        if dialogue.split not in (None, split):
            if not mixed:
                on_bad(BadData(path, None, f"id {dialogue.id!r} says split {dialogue.split!r} in a file of {split!r}"))
            continue
        yield replace(
            dialogue,
            turns=tuple(replace(turn, text=clean(turn.text)) for turn in dialogue.turns),
            reference=dialogue.reference and clean(dialogue.reference),
            split=split,
            source=dialogue.source or name,
            license=dialogue.license or terms,
        )
