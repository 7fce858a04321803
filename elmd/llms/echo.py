"""Repeats the last message in a short sentence; deterministic and without weights, for tests only."""

from collections.abc import Iterator, Sequence
from threading import Event

from elmd.config import Strict
from elmd.llms._base import Pieces, finished, stopped
from elmd.text import detect_language
from elmd.types import Chat, Completion, Sampling

QUOTED = 40
"""Characters of the last message that are repeated."""


class Config(Strict):
    """Nothing to set."""


class Backend:
    """A backend whose tokens are characters and which ignores temperature and seed."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @property
    def name(self) -> str:
        """The name "echo"."""
        return "echo"

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion]:
        """Answer every chat with its own last user message."""
        return [self._complete(chat, sampling) for chat in chats]

    def stream(self, chat: Chat, sampling: Sampling, cancel: Event | None = None) -> Iterator[str]:
        """Yield the answer character by character; whitespace comes with the character after it."""
        text, pieces = _answer(chat)[: sampling.max_tokens], Pieces(sampling.stop)
        for end in range(1, len(text) + 1):
            if cancel is not None and cancel.is_set():
                return
            if piece := pieces.more(text[:end]):
                yield piece
            if stopped(text[:end], sampling.stop):
                break
        if piece := pieces.last(text):
            yield piece

    def count_tokens(self, chat: Chat) -> int:
        """Count the characters of all messages."""
        return sum(len(message.content) for message in chat)

    def _complete(self, chat: Chat, sampling: Sampling) -> Completion:
        whole = _answer(chat)
        text = whole[: sampling.max_tokens]
        cut = len(whole) > len(text) and not stopped(text, sampling.stop)
        shown = finished(text, sampling.stop)
        return Completion(shown, "length" if cut else "stop", self.count_tokens(chat), len(shown))


def _answer(chat: Chat) -> str:
    said = next((message.content for message in reversed(chat) if message.role == "user"), "").strip()[:QUOTED]
    return f"我听见你说：{said}" if detect_language(said) == "zh" else f"I hear you say: {said}"
