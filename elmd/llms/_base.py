"""What every backend offers, and the rules by which a growing text is shown piece by piece."""

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Protocol

from elmd.types import Chat, Completion, Sampling

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are not, or not yet, a character."""


class Backend(Protocol):
    """A language model that answers chats. Its methods may be called from several threads."""

    @property
    def name(self) -> str:
        """The backend and the model behind it, such as "hf:qwen2.5-0.5b+adapter"."""
        ...

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion]:
        """Answer every chat, in the order given; no chats give no answers. Raises BackendError."""
        ...

    def stream(self, chat: Chat, sampling: Sampling, cancel: Event | None = None) -> Iterator[str]:
        """Yield the answer in pieces whose concatenation is the text `generate` gives. Raises BackendError.

        A piece holds whole characters. Generation ends within one token once `cancel` is set or the iterator is closed.
        """
        ...

    def count_tokens(self, chat: Chat) -> int:
        """Count the tokens of `chat`, with the chat template and the opening of the reply."""
        ...


def stopped(text: str, stop: Sequence[str]) -> bool:
    """Tell whether a stop string occurs in `text`."""
    return any(word and word in text for word in stop)


def finished(text: str, stop: Sequence[str] = ()) -> str:
    """Return a finished text: cut before the first stop string, without a broken last character or outer whitespace."""
    ends = [text.find(word) for word in stop if word and word in text]
    return text[: min(ends, default=len(text))].rstrip(UNFINISHED).strip()


class Pieces:
    """Cuts a growing text into pieces to show, which together are `finished(text, stop)`.

    What may still change is held back: a broken last character, whitespace at the end, the beginning of a stop string.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(word for word in stop if word)
        self._shown = 0

    def more(self, text: str) -> str:
        """Return what of the whole `text` so far can be shown and was not yet; may be empty."""
        settled = text.rstrip(UNFINISHED)
        held = 0 if stopped(settled, self._stop) else self._begun(settled)
        return self._show(settled[: len(settled) - held])

    def last(self, text: str) -> str:
        """Return the rest, now that `text` will not grow."""
        return self._show(text)

    def _show(self, text: str) -> str:
        piece = finished(text, self._stop)[self._shown :]
        self._shown += len(piece)
        return piece

    def _begun(self, text: str) -> int:
        lengths = (n for word in self._stop for n in range(1, len(word)) if text.endswith(word[:n]))
        return max(lengths, default=0)
