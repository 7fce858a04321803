"""Talk with elmd in the terminal."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elmd.cli._options import JsonOption, RecipeOption, SetOption, results, talk

if TYPE_CHECKING:
    from elmd.agent import Agent
    from elmd.types import Reply, Utterance


def command(
    text: Annotated[str | None, typer.Option("--text", "-t", help="Say this, print one reply and exit.")] = None,
    clip: Annotated[
        Path | None, typer.Option("--clip", help="Say it by a video or picture; --text may add words.")
    ] = None,
    audio: Annotated[Path | None, typer.Option("--audio", help="Say it by a sound recording.")] = None,
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one text or clip, or hold a conversation in the terminal (an empty line or Ctrl-D ends it)."""
    from elmd.agent import Agent, reply_json
    from elmd.types import Dialogue, Media, Utterance

    agent = Agent.from_recipe(recipe, set_ or ())
    if text is not None or clip or audio:
        media = Media(video=str(clip) if clip else None, audio=str(audio) if audio else None) if clip or audio else None
        reply = agent.reply(Dialogue("chat", (Utterance("user", text or "", media=media),)))
        typer.echo(json.dumps(reply_json(reply), ensure_ascii=False) if as_json else reply.text)
        return
    _converse(agent, as_json)


def _converse(agent: "Agent", as_json: bool) -> None:
    from elmd.agent import reply_json
    from elmd.types import ASSISTANT, Utterance

    with talk().status("loading the models"):
        agent.warm()
    talk().print("elmd is listening. An empty line ends the conversation.")
    turns: tuple[Utterance, ...] = ()
    while said := _ask():
        turns = (*turns, Utterance("user", said))
        reply = _stream(agent, turns, show=not as_json)
        if as_json:
            typer.echo(json.dumps(reply_json(reply), ensure_ascii=False))
        turns = (*turns, Utterance(ASSISTANT, reply.text))


def _ask() -> str:
    from elmd.text import clean

    talk().print("you: ", end="")  # typer's prompt writes a blank to stdout
    try:
        return clean(input())
    except (EOFError, KeyboardInterrupt):
        return ""


def _stream(agent: "Agent", turns: "tuple[Utterance, ...]", show: bool) -> "Reply":
    from elmd.types import Dialogue

    shown = 0
    for reply in agent.stream(Dialogue("chat", turns)):
        if show:
            results().print(reply.text[shown:], end="", markup=False)
            shown = len(reply.text)
    if show:
        results().print()
        talk().print(f"[dim]heard {reply.user_emotion.label}, answered with {reply.emotion.label}[/dim]")
    return reply
