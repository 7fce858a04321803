"""Windows over a recording, shared by the extractors of the voice."""

from collections.abc import Iterator

RATE = 16_000
"""Samples a second of every `Clip.audio()`."""


def windows(length: int, window: int, hop: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each window over `length` steps; the last one reaches the end, and may be short."""
    for start in range(0, length, hop):
        yield start, min(start + window, length)
        if start + window >= length:
            return
