"""Training: one sub-command a part that learns."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elmd.cli._options import SetOption, talk

if TYPE_CHECKING:
    from elmd.sentiment.train import Step

app = typer.Typer(
    help="Train a part: emotion (text reader), predictor (reply emotion), sentiment (multimodal sentiment models).",
    no_args_is_help=True,
)

_OUT = typer.Option("--out", "-o", help="Folder for weights, run.toml, metrics and plots.")
OutOption = Annotated[Path, _OUT]


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
    from elmd.perception.text import TextReader
    from elmd.prediction.train import Config, train

    _run(lambda say: train(load(Config, recipe, set_ or ()), out, say, TextReader().read_many))


@app.command()
def sentiment(
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe `sentiment-<model>-<set>`, or a TOML file.")],
    set_: SetOption = None,
    out: Annotated[Path | None, _OUT] = None,
) -> None:
    """Train a multimodal sentiment model from several seeds; started again with the same --out it goes on."""
    from elmd.config import load
    from elmd.sentiment.config import Config
    from elmd.sentiment.train import train

    config = load(Config, recipe, set_ or ())
    folder = out or Path("runs") / f"sentiment-{config.model.name}-{config.data.name}"
    with _bar() as show:
        _run(lambda say: train(config, folder, say, show))


@contextmanager
def _bar() -> Iterator[Callable[["Step"], None]]:
    """A bar over the epochs of a run of several seeds."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("seed {task.fields[seed]} epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.fields[valid]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=talk(), transient=True, disable=not talk().is_terminal) as bar:
        task = bar.add_task("", total=1.0, seed="", epoch="", valid="")

        def show(step: "Step") -> None:
            bar.update(task, completed=step.done, seed=step.seed, epoch=step.epoch)
            if step.valid is not None:
                bar.update(task, valid=f"valid {step.valid:.4f} (best {step.best:.4f})")

        yield show


def _run(work: Callable[[Callable[[str], None]], dict[str, Any]]) -> None:
    metrics = work(lambda line: talk().print(line, markup=False))
    typer.echo(json.dumps(metrics, ensure_ascii=False))
