"""Training: one sub-command a part that learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from elmd.cli._options import SetOption, talk

app = typer.Typer(help="Train a part: emotion (text reader), predictor (reply emotion).", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for weights, run.toml, metrics and plots.")]


@app.command()
def emotion(
    recipe: Annotated[str, typer.Option("--recipe", "-r")] = "emotion-cped",
    set_: SetOption = None,
    out: OutOption = Path("runs/emotion-text"),
) -> None:
    """Train the reader of emotion in words; started again with the same --out it goes on after its last epoch."""
    from elmd.config import load
    from elmd.perception.train import Config, train

    _run(lambda say: train(load(Config, recipe, set_ or ()), out, say))


@app.command()
def predictor(
    recipe: Annotated[str, typer.Option("--recipe", "-r")] = "predictor-cped",
    set_: SetOption = None,
    out: OutOption = Path("runs/reply-emotion"),
) -> None:
    """Train the predictor of the reply's emotion (REP)."""
    from elmd.config import load
    from elmd.prediction.train import Config, train

    _run(lambda say: train(load(Config, recipe, set_ or ()), out, say))


def _run(work: Callable[[Callable[[str], None]], dict[str, Any]]) -> None:
    metrics = work(lambda line: talk().print(line, markup=False))
    typer.echo(json.dumps(metrics, ensure_ascii=False))
