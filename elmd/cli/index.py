"""The demonstration index: build it, search it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from elmd.cli._options import RecipeOption, SetOption, SkipBadOption, talk

app = typer.Typer(help="The demonstration index: build, search.", no_args_is_help=True)


@app.command()
def build(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Dialogue JSONL; our own demonstrations when none.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("runs/index"),
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    skip_bad: SkipBadOption = False,
) -> None:
    """Encode the demonstrations in dialogue JSONL files: every reply whose emotion is known."""
    from elmd.agent import Agent
    from elmd.data import demonstration_files
    from elmd.files import read_dialogues, stop
    from elmd.retrieval.index import DemonstrationIndex, demonstrations_of

    agent = Agent.from_recipe(recipe, set_ or ())
    on_bad = (lambda problem: talk().print(f"skipped {problem}", markup=False)) if skip_bad else stop
    chosen = files or list(demonstration_files())
    items = [item for file in chosen for item in demonstrations_of(read_dialogues(file, on_bad))]
    with talk().status(f"encoding {len(items)} demonstrations"):
        DemonstrationIndex.build(items, agent.encoder).save(out)
    talk().print(f"{len(items)} demonstrations in {out}; use it with --set retrieval.index={out}", markup=False)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What the person says.")],
    index: Annotated[Path | None, typer.Option(help="An index folder; our own demonstrations when none.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
) -> None:
    """Print the demonstrations nearest to a text, one JSON object a line, best first."""
    from elmd.agent import Agent, cleaned
    from elmd.retrieval.index import as_json
    from elmd.types import Dialogue, Utterance

    chosen = [f"retrieval.index={json.dumps(str(index))}"] if index else []
    agent = Agent.from_recipe(recipe, [*(set_ or ()), *chosen])
    for item in agent.index.search(cleaned(Dialogue("query", (Utterance("user", text),))), k):
        typer.echo(json.dumps(as_json(item), ensure_ascii=False))
