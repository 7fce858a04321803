"""Tokenisers for scoring: Chinese by character and by jieba word, English by word."""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

from elmd.assets import home
from elmd.types import Language

UNITS: tuple[str, ...] = ("char", "word")
"""The suffixes of score names."""

_REMEMBERED = 2**16
"""Texts whose tokens are kept: every metric and baseline cuts the same references."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A way to cut text into tokens.

    Attributes:
        unit: "char" or "word", the suffix of the score's name.
        signature: Name and version of the rule, and whether case is kept.
        tokenize: Text to tokens; no token is blank or holds white space, and blank text has none.
    """

    unit: str
    signature: str
    tokenize: Callable[[str], tuple[str, ...]]


def tokenizers(language: Language) -> tuple[Tokenizer, ...]:
    """Return the tokenisers a language is scored with: characters and words for Chinese, words for English."""
    if language == "zh":
        return (
            Tokenizer("char", "tok:zh|case:mixed", _characters),
            Tokenizer("word", f"tok:jieba-{version('jieba')}|case:mixed", _chinese_words),
        )
    return (Tokenizer("word", "tok:13a|case:lc", _english_words),)


@lru_cache(_REMEMBERED)
def _characters(text: str) -> tuple[str, ...]:
    return tuple(_sacrebleu_zh()(text.strip()).split())


@lru_cache(_REMEMBERED)
def _english_words(text: str) -> tuple[str, ...]:
    return tuple(_sacrebleu_13a()(text.strip().lower()).split())


@lru_cache(_REMEMBERED)
def _chinese_words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _jieba().lcut(text) if word.strip())


@cache
def _sacrebleu_zh() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    tokenizer: Callable[[str], str] = TokenizerZh()  # type: ignore[no-untyped-call]
    return tokenizer


@cache
def _sacrebleu_13a() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]
    return tokenizer


@cache
def _jieba() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42.1 has invalid escapes and looks for pkg_resources
        import jieba
    jieba.setLogLevel(logging.CRITICAL)
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = _cache_folder()
    tokenizer.initialize()
    return tokenizer


def _cache_folder() -> str:
    """Return a folder of this user alone: jieba unmarshals its cache, so it must not lie where others can write."""
    with suppress(OSError):  # jieba then builds its table each time, which takes a second
        home().mkdir(parents=True, exist_ok=True)
    return str(home())
