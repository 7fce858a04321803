"""Files: JSON lines in and out, atomic writes, resumable appends, hashes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from elmd.errors import BadData, ElmdError, UsageError
from elmd.types import Dialogue

OnBad = Callable[[BadData], None]
"""What to do with a bad row: raise it (the default), or note it and go on."""


def stop(problem: BadData) -> None:
    """Raise the problem: reading ends at the first bad row."""
    raise problem


def read_jsonl(path: Path, on_bad: OnBad = stop) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line of a UTF-8 JSON lines file; blank lines are passed over."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(line) if line else None
            except UnicodeDecodeError as error:
                on_bad(BadData(path, number, f"not UTF-8 (byte {error.start + 1} of the line)"))
                continue
            except (json.JSONDecodeError, RecursionError) as error:
                on_bad(BadData(path, number, f"not JSON ({error})"))
                continue
            if isinstance(row, dict):
                yield number, row
            elif line:
                on_bad(BadData(path, number, "not a JSON object"))


def read_dialogues(path: Path, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a dialogue JSONL file; keys elmd does not know are ignored."""
    seen: dict[str, int] = {}
    for number, row in read_jsonl(path, on_bad):
        try:
            dialogue = _dialogue_adapter().validate_python(row)
        except ValidationError as error:
            on_bad(BadData(path, number, _first_reason(error)))
            continue
        if dialogue.id in seen:
            on_bad(BadData(path, number, f"id {dialogue.id!r} is already on line {seen[dialogue.id]}"))
            continue
        seen[dialogue.id] = number
        yield dialogue


def to_json(value: Any) -> Any:
    """Turn a frozen dataclass into plain JSON values, leaving out what is None or empty."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, to_json(getattr(value, f.name))) for f in fields(value))
        return {name: item for name, item in pairs if item is not None and item != [] and item != {}}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def dumps(row: Any) -> str:
    """Return one line of JSON, with Chinese readable."""
    return json.dumps(to_json(row), ensure_ascii=False)


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all: a reader never sees half of it, a full disk leaves the old one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ElmdError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ElmdError(f"cannot write {path}: {error.strerror}") from error
        raise


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines, atomically; return how many."""
    lines = [dumps(row) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


class JsonlAppender:
    """Append rows to a JSON lines file so that a kill at any moment loses at most the row being written.

    On opening, a last line without its newline (the mark of a kill) is cut off.

    Args:
        path: The file; its folder is made if need be.
        first_key: The first key of every row, by which a torn row is told from the end of some other file.

    Raises ElmdError when the file cannot be opened, UsageError when its last line is not a torn row.
    """

    def __init__(self, path: Path, first_key: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused must not be written at the next chance, behind the rows kept.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise ElmdError(f"cannot write {path}: {error.strerror}") from error
        try:
            self._cut_torn_line(f'{{"{first_key}": '.encode())
        except UsageError:
            self._file.close()
            raise

    def __enter__(self) -> "JsonlAppender":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Iterable[Any]) -> None:
        """Write rows and force them to disk. Raises ElmdError when the disk is full, with the file left whole."""
        data = memoryview("".join(f"{dumps(row)}\n" for row in rows).encode())
        start = self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), start)
            raise ElmdError(f"cannot write {self.path}: {error.strerror}; what is done so far is kept") from error

    def _cut_torn_line(self, start: bytes) -> None:
        self._file.seek(0)
        data = self._file.read()
        end = data.rfind(b"\n") + 1
        if torn := data[end:]:
            if torn[: len(start)] != start[: len(torn)]:
                raise UsageError(f"{self.path} ends in something else than a row of ours; name another output file")
            os.ftruncate(self._file.fileno(), end)
        self._file.seek(0, os.SEEK_END)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_dict(value: Any) -> dict[str, Any]:
    """Return a dataclass as a dict with every field, empty ones too."""
    return asdict(value)


@cache
def _dialogue_adapter() -> TypeAdapter[Dialogue]:
    return TypeAdapter(Dialogue)


def _first_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
