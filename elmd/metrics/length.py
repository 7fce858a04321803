"""How long replies are beside the references, how many are different and how many are empty."""

from collections.abc import Sequence

from elmd.metrics._base import Measure, Settings, different, mean, signature
from elmd.types import Judged, Language

NAMES = ("length", "reference_length", "distinct_replies", "empty_replies")


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return mean lengths, and the shares of different and of empty replies, 0-100.

    Length counts characters without white space for Chinese, words between white space for English.
    Two replies are the same if they are so but for outer white space; empty ones are one kind.
    """
    replies = [row.hypothesis.strip() for row in rows]
    numbers = {reply: number for number, reply in enumerate(dict.fromkeys(replies))}
    kinds = different(range(len(rows)), [numbers[reply] for reply in replies])
    unit = "characters" if settings.language == "zh" else "words"
    lengths = signature("length", unit=unit, level="mean", n=len(rows))
    shares = signature("share", of="replies", unit="percent", n=len(rows))
    return (
        Measure("length", lengths, mean([length(reply, settings.language) for reply in replies])),
        Measure("reference_length", lengths, mean([length(row.reference, settings.language) for row in rows])),
        Measure("distinct_replies", shares, lambda counts: 100.0 * kinds(counts) / counts.sum(axis=1), kinds=True),
        Measure("empty_replies", shares, mean([0.0 if reply else 100.0 for reply in replies])),
    )


def length(text: str, language: Language) -> int:
    """Count characters (zh) or words (en)."""
    words = text.split()
    return len("".join(words)) if language == "zh" else len(words)
