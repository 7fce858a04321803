"""Plain text rules: which language it is, and what is cleaned from what people type."""

import re
import unicodedata
from typing import Literal

MAX_CHARACTERS = 4000
"""Longest utterance elmd reads; of a longer one it keeps the beginning and the end."""

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z]+")
_CARRIED = re.compile(
    r"<\|[^|>]*\|>"  # chat tokens
    r"|(?:https?://|www\.)[\w./?=&%#:~@+-]+|\b[\w.+-]+@[\w-]+\.[\w.]+\b"  # addresses
    r"|(?<!\d)(?:\+\d{1,3}[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)"  # Chinese mobile numbers
    r"|(?<!\d)(?:\+\d{1,3}[ -]?)?(?:\(\d{3,4}\) ?|\d{3,4}[ -])(?:\d{7,8}|\d{3,4}[ -]\d{4})(?!\d)",  # other numbers
    re.ASCII,
)
_KEPT_CONTROLS = "\n\t\u200d"


def detect_language(text: str) -> Literal["zh", "en"]:
    """Return "zh" if at least as many Chinese characters as Latin words occur, else "en"; "zh" for neither."""
    return "zh" if len(_CJK.findall(text)) >= len(_LATIN.findall(text)) else "en"


def scrub(text: str) -> str:
    """Return `text` without what retrieved words must not carry into a prompt: addresses, phone numbers, chat tokens."""
    while (less := _CARRIED.sub("", text)) != text:  # what is left may join to another one
        text = less
    return text.strip()


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
    return f"{short[:half].rstrip()} … {short[-half:].lstrip()}"
