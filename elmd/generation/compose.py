"""From a dialogue, emotions and demonstrations to a chat prompt within a token budget."""

from collections.abc import Callable, Sequence

from elmd.generation.prompts import render
from elmd.labels import word_for
from elmd.text import clean
from elmd.types import ASSISTANT, Chat, Demonstration, Dialogue, Message, Utterance

CountTokens = Callable[[Chat], int]


def compose(
    dialogue: Dialogue,
    user_emotion: str,
    reply_emotion: str,
    demonstrations: Sequence[Demonstration],
    count_tokens: CountTokens,
    budget: int,
) -> tuple[Chat, int]:
    """Return the chat prompt of at most `budget` tokens, and how many demonstrations are in it.

    Demonstrations are dropped first, the least fitting one first, then the oldest turns. The system text and the
    turn to answer always stay, so a budget smaller than those two is exceeded.
    """
    language = dialogue.language or "zh"
    system = Message(
        "system",
        render(
            "reply",
            language,
            user_emotion=word_for(user_emotion, language),
            reply_emotion=word_for(reply_emotion, language),
        ),
    )
    turns = merge_turns(dialogue)
    shown = list(demonstrations)

    def chat() -> Chat:
        return (system, *(m for item in reversed(shown) for m in _shot(item)), *turns)

    while shown and count_tokens(chat()) > budget:
        shown.pop()
    while len(turns) > 1 and count_tokens(chat()) > budget:
        turns = turns[1:]
    return chat(), len(shown)


def merge_turns(dialogue: Dialogue) -> list[Message]:
    """Return the turns as chat messages that alternate: the one to answer is "user", everyone else "assistant"."""
    partner = dialogue.last.speaker
    messages: list[Message] = []
    for turn in dialogue.turns:
        role = "user" if turn.speaker == partner and turn.speaker != ASSISTANT else "assistant"
        if messages and messages[-1].role == role:
            messages[-1] = Message(messages[-1].role, f"{messages[-1].content}\n{clean(turn.text)}")
        else:
            messages.append(Message("user" if role == "user" else "assistant", clean(turn.text)))
    return messages


def _shot(item: Demonstration) -> tuple[Message, Message]:
    """A demonstration as one exchange, the best one nearest to the dialogue."""
    return Message("user", _last_words(item.context)), Message("assistant", item.reply)


def _last_words(context: Sequence[Utterance]) -> str:
    partner = context[-1].speaker
    return "\n".join(turn.text for turn in context if turn.speaker == partner)
