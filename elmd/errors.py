"""The errors elmd raises on purpose: each message is one line that says what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class ElmdError(Exception):
    """The work failed. The command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(ElmdError):
    """The caller asked for something that cannot be: a wrong argument, name, key or input file."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not among the known ones; the message offers the nearest."""

    def __init__(self, word: str, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(f"unknown {word} {name!r}; {_offer(name, self.known)}")


class BadConfig(UsageError):
    """A configuration key or value that the schema refuses, named by its path."""


class BadData(UsageError):
    """A data file that cannot be read as what it should be, with file and line."""

    def __init__(self, file: Path | str, line: int | None, reason: str) -> None:
        self.file, self.line, self.reason = str(file), line, reason
        where = f"{file}:{line}" if line else str(file)
        super().__init__(f"{where}: {reason}")


class MissingExtra(UsageError):
    """An optional library is not installed; the message holds the command that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'elmd[{extra}]'")


class AssetError(ElmdError):
    """A model file is missing, damaged or cannot be fetched."""


class BackendError(ElmdError):
    """A language-model backend did not answer."""


def _offer(name: str, known: tuple[str, ...]) -> str:
    near = nearest(name, known)
    listed = ", ".join(known) or "none"
    return f"did you mean {near!r}? (known: {listed})" if near else f"known: {listed}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, or None when nothing is near."""
    near = get_close_matches(name, tuple(known), n=1, cutoff=0.5)
    return near[0] if near else None
