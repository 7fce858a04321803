"""Plain text rules: which language it is, and what is cleaned from what people type."""

import re
import unicodedata
from typing import Literal

MAX_CHARACTERS = 4000
"""Longest utterance elmd reads; of a longer one it keeps the beginning and the end."""

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z]+")
_KEPT_CONTROLS = "\n\t\u200d"


def detect_language(text: str) -> Literal["zh", "en"]:
    """Return "zh" if at least as many Chinese characters as Latin words occur, else "en"; "zh" for neither."""
    return "zh" if len(_CJK.findall(text)) >= len(_LATIN.findall(text)) else "en"


def clean(text: str) -> str:
    """Return `text` fit for models: no control or invisible characters, single blanks, bounded length.

    Emoji keep their joiners. Text over MAX_CHARACTERS keeps its first and last halves.
    """
    kept = "".join(c for c in text if c in _KEPT_CONTROLS or not unicodedata.category(c).startswith("C"))
    lines = (" ".join(line.split()) for line in kept.splitlines())
    short = "\n".join(line for line in lines if line).strip()
    if len(short) <= MAX_CHARACTERS:
        return short
    half = MAX_CHARACTERS // 2
    return f"{short[:half]} … {short[-half:]}"
