"""Scores of a trained part on a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elmd.cli._options import JsonOption, RecipeOption, SetOption, results, talk

if TYPE_CHECKING:
    from elmd.agent import Agent
    from elmd.evaluate import Report

app = typer.Typer(help="Test a trained part on a data set: emotion, predictor, sentiment.", no_args_is_help=True)

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
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the reader of emotion in words on every labelled utterance."""
    from elmd.assess import assess_emotion, read_dialogues

    agent = _agent(recipe, set_, "perception.weights", checkpoint)
    _show(assess_emotion(agent, read_dialogues(data, root, split), talk().print), as_json)


@app.command()
def predictor(
    data: DataOption,
    root: RootOption = None,
    split: SplitOption = "valid",
    checkpoint: CheckpointOption = None,
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the predictor of the reply's emotion at every change of speaker."""
    from elmd.assess import assess_predictor, read_dialogues

    agent = _agent(recipe, set_, "prediction.weights", checkpoint)
    _show(assess_predictor(agent, read_dialogues(data, root, split), talk().print), as_json)


@app.command()
def sentiment(
    data: DataOption,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="A folder of `elmd train sentiment`.")],
    root: Annotated[Path, typer.Option("--root", help="Folder or file of the data set.")],
    split: SplitOption = "valid",
    missing: Annotated[
        bool, typer.Option("--missing", help="Score every subset of the modalities, not only all.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the scores: .png, .svg or .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a sentiment model: mean and spread over its seeds, and intervals over videos."""
    from elmd.datasets import read_samples
    from elmd.sentiment import report
    from elmd.sentiment.assess import assess, subsets

    samples = list(read_samples(data, root, split))
    found = {"all": assess(checkpoint, samples)}
    if missing:
        found |= {"+".join(subset): assess(checkpoint, samples, subset) for subset in subsets(checkpoint)}
    if plot:
        report.plot(found, plot)
    if as_json:
        rest = {name: result.to_json() for name, result in found.items() if name != "all"}
        typer.echo(json.dumps({**found["all"].to_json(), **({"subsets": rest} if rest else {})}, ensure_ascii=False))
        return
    results().print(report.table(found))


def _agent(recipe: str, overrides: list[str] | None, key: str, checkpoint: Path | None) -> "Agent":
    from elmd.agent import Agent

    chosen = [f"{key}={json.dumps(str(checkpoint))}"] if checkpoint else []
    return Agent.from_recipe(recipe, [*(overrides or ()), *chosen])


def _show(report: "Report", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False))
        return
    from rich.table import Table

    systems = {"elmd": report.scores, **report.baselines}
    table = Table(f"score (n={report.n})", *systems)
    for row in zip(*systems.values(), strict=True):
        table.add_row(row[0].name, *(f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]" for score in row))
    results().print(table)
