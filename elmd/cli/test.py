"""Scores of a trained part on a data set."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elmd.cli._options import JsonOption, SetOption, results, talk

if TYPE_CHECKING:
    from elmd.types import Score

app = typer.Typer(help="Test a trained part on a data set: emotion, predictor.", no_args_is_help=True)

DataOption = Annotated[str, typer.Option("--data", help="A data set; 'statements' is our own test set.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="Folder of the data set.")]
SplitOption = Annotated[str, typer.Option("--split", help="train, valid or test.")]
CheckpointOption = Annotated[Path | None, typer.Option("--checkpoint", help="The shipped weights when none.")]


@app.command()
def emotion(
    data: DataOption = "statements",
    root: RootOption = None,
    split: SplitOption = "valid",
    checkpoint: CheckpointOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the reader of emotion in words on every labelled utterance."""
    from elmd.agent import Agent
    from elmd.assess import assess_emotion, read_dialogues

    chosen = [f"perception.weights={json.dumps(str(checkpoint))}"] if checkpoint else []
    agent = Agent.from_recipe("agent-small", [*(set_ or ()), *chosen])
    scores = assess_emotion(agent, read_dialogues(data, root, split), talk().print)
    _show({"reader": scores}, as_json)


@app.command()
def predictor(
    data: DataOption,
    root: RootOption = None,
    split: SplitOption = "valid",
    checkpoint: CheckpointOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the predictor of the reply's emotion at every change of speaker."""
    from elmd.agent import Agent
    from elmd.assess import assess_predictor, read_dialogues

    chosen = [f"prediction.weights={json.dumps(str(checkpoint))}"] if checkpoint else []
    agent = Agent.from_recipe("agent-small", [*(set_ or ()), *chosen])
    _show(assess_predictor(agent, read_dialogues(data, root, split), talk().print), as_json)


def _show(systems: "dict[str, list[Score]]", as_json: bool) -> None:
    first, *others = systems
    if as_json:
        baselines = {name: [asdict(score) for score in systems[name]] for name in others}
        n = _n(systems[first])
        typer.echo(json.dumps({"n": n, "scores": [asdict(s) for s in systems[first]], "baselines": baselines}))
        return
    from rich.table import Table

    table = Table("score", *systems)
    for row in zip(*systems.values(), strict=True):
        table.add_row(row[0].name, *(f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]" for score in row))
    results().print(table)


def _n(scores: "list[Score]") -> int:
    parts = dict(part.split(":", 1) for part in scores[0].signature.split("|") if ":" in part)
    return int(parts["n"])
