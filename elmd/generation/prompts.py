"""The files of prompts/: one text a prompt and language, with named holes `{{ name }}` and nothing else."""

import re
from collections.abc import Mapping
from functools import cache

from elmd.data import shipped
from elmd.errors import UsageError

HOLES: Mapping[str, frozenset[str]] = {
    "reply": frozenset({"user_emotion", "reply_emotion"}),
    "crisis": frozenset(),
}
"""Every prompt and the holes its caller fills."""

_HOLE = re.compile(r"\{\{ (\w+) \}\}")


def render(name: str, language: str, **values: str) -> str:
    """Return the prompt with its holes filled; values are put in as they are and never read for holes."""
    template = _read(name, language)
    if set(values) != HOLES[name]:
        raise UsageError(f"prompt {name} has the holes {sorted(HOLES[name])}, not {sorted(values)}")
    return _HOLE.sub(lambda match: values[match[1]], template)


def holes(name: str, language: str) -> frozenset[str]:
    """Return the holes of a prompt file."""
    return frozenset(_HOLE.findall(_read(name, language)))


@cache
def _read(name: str, language: str) -> str:
    path = shipped("prompts") / f"{name}.{language}.txt"
    if not path.is_file():
        raise UsageError(f"no prompt {path.name}; prompts/ needs one text a prompt and language")
    return path.read_text(encoding="utf-8").strip()
