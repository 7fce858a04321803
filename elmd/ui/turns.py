"""One turn on the page, without gradio: the browser's history becomes a dialogue, replies become what is shown."""

import html
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from elmd.errors import ElmdError
from elmd.text import clean
from elmd.types import ASSISTANT, Dialogue, Reply, Utterance
from elmd.ui import cards

if TYPE_CHECKING:
    from elmd.agent import Agent

History = list[dict[str, Any]]
"""The messages of a chat as gradio hands them on."""

KEPT_MESSAGES = 40
"""How many of the last messages are read; the browser could send any number."""
LONGEST = 1000
"""Characters one may type into the box."""

_ENTITY = re.compile(r"&(?=[#\w])")
_SPEAKERS = {"user": "user", "assistant": ASSISTANT}


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows: None leaves a part as it is, "" empties it."""

    history: History | None = None
    notice: str | None = None
    heard: str | None = None
    tone: str | None = None
    demonstrations: str | None = None
    seconds: str | None = None


EMPTY = View([], "", "", "", "", "")
"""The page before the first turn."""


def said(text: str, history: History) -> History:
    """Return the history with the person's new message."""
    return [*history, {"role": "user", "content": for_chat(clean(text))}]


def for_chat(text: str) -> str:
    """Escape what gradio's chat would take for HTML: it shows an <img> even where it renders no Markdown."""
    return _ENTITY.sub("&amp;", text).replace("<", "&lt;")


def from_chat(text: str) -> str:
    """Return the text that `for_chat` escaped."""
    return html.unescape(text)


def dialogue_of(history: Sequence[Mapping[str, Any]]) -> Dialogue | None:
    """Return the dialogue to reply to, or None unless the person has the last word."""
    turns = tuple(
        Utterance(_SPEAKERS[message["role"]], words)
        for message in history[-KEPT_MESSAGES:]
        if message.get("role") in _SPEAKERS and (words := clean(from_chat(_text(message.get("content")))))
    )
    return Dialogue("page", turns) if turns and turns[-1].speaker == "user" else None


def answer(agent: "Agent", history: History) -> Iterator[View]:
    """Yield what to show while the agent replies; closing the iterator stops the writing."""
    dialogue = dialogue_of(history)
    if dialogue is None:
        return
    yield View(notice="")
    try:
        yield from _stream(agent, dialogue, history)
    except ElmdError as error:
        yield View(notice=cards.notice("failed", str(error)))


def _stream(agent: "Agent", dialogue: Dialogue, history: History) -> Iterator[View]:
    last = None
    with closing(cast("Generator[Reply]", agent.stream(dialogue))) as replies:
        for reply in replies:
            if last is None:
                yield _reasoning(reply)
            elif reply.text.strip():
                yield View(_with(history, reply))
            last = reply
    if last is not None:
        yield _whole(last, history)


def _reasoning(reply: Reply) -> View:
    """What is known before the first word."""
    return View(
        None,
        cards.safety_banner(reply.safety),
        cards.explained("heard", cards.emotion_card(reply.user_emotion)),
        cards.explained("tone", cards.emotion_card(reply.emotion)),
        cards.explained("demonstrations", cards.demonstration_cards(reply.demonstrations)),
    )


def _whole(reply: Reply, history: History) -> View:
    """Everything, once the last word is written."""
    known = _reasoning(reply)
    if not reply.text.strip():
        return View(history, known.notice or cards.notice("no_words"), known.heard, known.tone, known.demonstrations)
    seconds = cards.explained("seconds", cards.seconds_card(reply.seconds, reply.backend))
    return View(_with(history, reply), known.notice, known.heard, known.tone, known.demonstrations, seconds)


def _with(history: History, reply: Reply) -> History:
    return [*history, {"role": "assistant", "content": for_chat(reply.text.strip())}]


def _text(content: Any) -> str:
    """The plain text of a message: gradio hands it on as a string or as a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    return "\n".join(str(block.get("text") or "") for block in blocks if isinstance(block, Mapping))
