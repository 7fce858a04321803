"""Score replies against what people answered, beside the baselines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elmd.errors import BadData

if TYPE_CHECKING:
    from elmd.evaluate import Report, Run

LIBRARIES = ("numpy", "sacrebleu", "rouge-score", "nltk", "jieba")
"""Distributions that `run.toml` names with their versions, beside elmd."""


def command(
    replies: Annotated[Path, typer.Argument(metavar="REPLIES.jsonl", help="What `elmd generate` wrote.")],
    references: Annotated[
        Path | None, typer.Option(help="Dialogue JSONL with the references, joined by id.", metavar="FILE")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Names with commas between (see `elmd list metrics`); default: all but embedding."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="How often dialogues are drawn for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the main scores: .png, .svg or .pdf.", metavar="FILE")] = None,
    out: Annotated[Path | None, typer.Option(help="Write scores.json and run.toml there.", metavar="DIR")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Pass over lines that cannot be scored.")] = False,
) -> None:
    """Score replies against what people answered: BLEU, ROUGE, METEOR, chrF, Distinct, lengths and emotions.

    Every score stands beside what a constant reply and the first demonstration get.
    """
    from elmd import evaluate as house
    from elmd.files import stop
    from elmd.plots import check_plot_path

    if plot:
        check_plot_path(plot)
    chosen = _names(metrics) or house.default_metrics()
    skipped: list[BadData] = []
    read = house.read_replies(replies, references, skipped.append if skip_bad else stop)
    for problem in skipped:
        typer.echo(f"skipped {problem}", err=True)
    found = house.report(read, chosen, house.default_encoder(), house.Bootstrap(resamples, seed))
    if plot:
        house.plot(found, plot)
    if out:
        run = house.Run(
            replies=str(replies),
            references=str(references) if references else None,
            metrics=chosen,
            resamples=resamples,
            seed=seed,
            skip_bad=skip_bad,
        )
        _write(out, found, run)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        _print_table(found)


def _names(metrics: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for names in metrics or () for name in names.split(",") if name.strip())


def _write(folder: Path, report: "Report", run: "Run") -> None:
    from importlib.metadata import version

    from elmd import __version__
    from elmd.config import dump_toml
    from elmd.files import sha256, write_text

    versions = {"elmd": __version__, **{library: version(library) for library in LIBRARIES}}
    inputs = {name: sha256(Path(path)) for name in ("replies", "references") if (path := getattr(run, name))}
    write_text(folder / "scores.json", json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n")
    write_text(folder / "run.toml", dump_toml(run, {"sha256": inputs, "versions": versions}))


def _print_table(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, 100)  # a pipe counts as 80, and the widest rows would lose their ends
    table = Table("metric", title=f"{report.n} replies")
    table.columns[0].no_wrap = True
    for column in ("elmd [low, high]", *report.baselines):
        table.add_column(column, justify="right", no_wrap=True)
    rivals = {name: {score.name: score.value for score in scores} for name, scores in report.baselines.items()}
    for score in report.scores:
        cells = (f"{values[score.name]:.2f}" if score.name in values else "-" for values in rivals.values())
        table.add_row(score.name, f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]", *cells)
    console.print(table)
    for score in report.scores:
        console.print(f"{score.name}: {score.signature}", soft_wrap=True)
