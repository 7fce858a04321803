"""The page in the browser, or one turn on a shipped sample."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from elmd.cli._options import JsonOption, RecipeOption, SetOption, results, talk
from elmd.errors import UnknownName

if TYPE_CHECKING:
    from rich.console import RenderableType

    from elmd.agent import Agent
    from elmd.types import Demonstration, Dialogue, EmotionState, Reply

_BAR = 28
"""Characters of the longest bar."""


def command(
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is reachable from here only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 7860,
    once: Annotated[bool, typer.Option("--once", help="Answer a shipped sample in the terminal and exit.")] = False,
    language: Annotated[str, typer.Option(help="Language of the sample: zh or en.")] = "zh",
    as_json: JsonOption = False,
) -> None:
    """Serve the page, or with --once print one full turn on a shipped sample."""
    dialogue = sample(language)
    from elmd.agent import Agent

    agent = Agent.from_recipe(recipe, set_ or ())
    if not once and not as_json:
        _serve(agent, host, port)
        return
    from elmd.agent import reply_json

    with talk().status("loading the models"):
        agent.warm()
    reply = agent.reply(dialogue)
    if as_json:
        typer.echo(json.dumps(reply_json(reply), ensure_ascii=False))
    else:
        _show(dialogue, reply, language)


def sample(language: str) -> "Dialogue":
    """Return the shipped sample dialogue in `language`; its last turn waits for a reply."""
    from elmd.data import shipped
    from elmd.files import read_dialogues

    samples = {str(dialogue.language): dialogue for dialogue in read_dialogues(shipped("data") / "sample.jsonl")}
    if language not in samples:
        raise UnknownName("language of the sample", language, samples)
    return samples[language]


def _serve(agent: "Agent", host: str, port: int) -> None:
    from elmd.ui.page import launch

    with talk().status("loading the models"):
        page = launch(agent, host, port)
    talk().print(f"elmd is listening at {page.local_url} (Ctrl-C ends it)", soft_wrap=True)
    page.block_thread()


def _show(dialogue: "Dialogue", reply: "Reply", language: str) -> None:
    from rich.panel import Panel
    from rich.text import Text

    from elmd.ui.words import say

    said = Text("\n").join(Text(f"{turn.speaker}: {turn.text}") for turn in dialogue.turns)
    parts: tuple[tuple[str, RenderableType], ...] = (
        (say("conversation", language), said),
        (say("heard", language), _emotion(reply.user_emotion, language)),
        (say("tone", language), _emotion(reply.emotion, language)),
        (say("demonstrations", language), _demonstrations(reply.demonstrations, language)),
        (f"elmd ({reply.backend})", Text(reply.text, style="bold")),
        (say("seconds", language), _seconds(reply, language)),
    )
    for title, body in parts:
        results().print(Panel(body, title=Text(title), title_align="left"))


def _emotion(state: "EmotionState", language: str) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    from elmd.labels import word_for
    from elmd.ui.words import say

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(min_width=_BAR)
    table.add_column(justify="right")
    for label, score in sorted(state.scores.items(), key=lambda item: -item[1]):
        style = "bold" if label == state.label else "dim"
        table.add_row(word_for(label, language), "█" * round(_BAR * score), f"{score:.0%}", style=style)
    table.add_row(say("valence", language), Text(""), f"{state.valence:+.2f}")
    return table


def _demonstrations(demonstrations: "tuple[Demonstration, ...]", language: str) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    from elmd.labels import word_for
    from elmd.ui.words import say

    if not demonstrations:
        return Text(say("no_demonstrations", language))
    table = Table.grid(padding=(0, 2))
    for item in demonstrations:
        emotion = f"{word_for(item.emotion, language)}, {item.source}"
        table.add_row(f"{item.similarity:.2f}", Text(f"{item.context[-1].text}\n→ {item.reply} [{emotion}]"))
    return table


def _seconds(reply: "Reply", language: str) -> "RenderableType":
    from rich.table import Table

    from elmd.ui.words import WORDS, say

    table = Table.grid(padding=(0, 2))
    for stage, spent in reply.seconds.items():
        table.add_row(say(stage, language) if stage in WORDS else stage, f"{spent:8.3f}")
    table.add_row(say("total", language), f"{sum(reply.seconds.values()):8.3f}", style="bold")
    return table
