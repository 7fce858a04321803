"""Data sets: what each needs, whether a copy is whole, and their conversion to dialogue JSONL."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from elmd.errors import BadData, UnknownName, UsageError
from elmd.files import stop, write_jsonl
from elmd.labels import EKMAN
from elmd.types import Dialogue
from elmd.zoo import DATASETS

app = typer.Typer(help=__doc__, no_args_is_help=True)

_SHOWN = 20
_NONE = "none"
"""How the tables call an utterance without an emotion."""

Name = Annotated[str, typer.Argument(help="Data set, as `elmd data list` names it.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the data set's files.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass
class Counts:
    """What one split holds; `stretches` are the unbroken pieces the dialogues fall into."""

    split: str
    dialogues: int = 0
    stretches: int = 0
    utterances: int = 0
    replies: int = 0
    emotions: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """What `check` found: counts by split, bad rows, and why a split cannot be read at all."""

    splits: list[Counts] = field(default_factory=list)
    bad: list[BadData] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """2 when required files are missing, else 1 when there are bad rows, else 0."""
        return 2 if self.missing else 1 if self.bad else 0


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the data sets: licence, splits and the files each needs."""
    cards = [
        {"name": name, "summary": DATASETS.summary(name), **asdict(DATASETS.load(name).CARD)}
        for name in DATASETS.names()
    ]
    if as_json:
        typer.echo(json.dumps(cards, ensure_ascii=False))
        return
    for card in cards:
        typer.echo(f"{card['name']}  ({card['language']}, {card['license']})")
        typer.echo(f"    {card['summary']}")
        typer.echo(f"    files: {' '.join(card['files'])}")
        typer.echo(f"    note: {card['note']}")


@app.command()
def check(
    name: Name,
    root: Root,
    split: Annotated[str | None, typer.Option(help="Only this split; else every split the set has.")] = None,
    as_json: Json = False,
) -> None:
    """Read a copy of a data set and say what is missing, which rows are bad and what it holds.

    Exits with 1 when rows are bad and 2 when required files are missing.
    """
    report = examine(name, root, split)
    if as_json:
        typer.echo(json.dumps(_to_json(name, root, report), ensure_ascii=False))
    else:
        _print_report(report)
    raise typer.Exit(report.exit_code)


@app.command()
def prepare(
    name: Name,
    root: Root,
    split: Annotated[str, typer.Option(help="train, valid or test.")],
    out: Annotated[Path, typer.Option(help="Dialogue JSONL file to write.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report bad rows and go on, instead of stopping.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Write no more than this many replies.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Keep only the last reply of each dialogue.")] = False,
) -> None:
    """Write a split as dialogue JSONL: one line a reply, with the turns before it and the reply as reference.

    The file is written as a whole or not at all.
    """
    dialogues = DATASETS.load(name).read(root, split, _complain if skip_bad else stop)
    replies = _last_of_each(_replies(dialogues)) if last else _replies(dialogues)
    count = write_jsonl(out, islice(replies, limit))
    typer.echo(f"wrote {count} replies to {out}", err=True)


def examine(name: str, root: Path, split: str | None = None) -> Report:
    """Read one split, or all that the data set has, and count what is there."""
    entry = DATASETS.load(name)
    report = Report()
    for each in [split] if split else entry.CARD.splits:
        try:
            report.splits.append(_count(each, entry.read(root, each, report.bad.append)))
        except UnknownName:
            if split:
                raise
        except BadData as problem:
            report.bad.append(problem)
        except UsageError as problem:
            report.missing[each] = str(problem)
    # A file that several splits share is read once for each: its bad rows are the same ones.
    report.bad = list({(p.file, p.line, p.reason): p for p in report.bad}.values())
    return report


def _count(split: str, dialogues: Iterable[Dialogue]) -> Counts:
    counts, origins, emotions = Counts(split), set(), Counter[str]()
    for dialogue in dialogues:
        origins.add(dialogue.origin)
        counts.stretches += 1
        counts.utterances += len(dialogue.turns)
        counts.replies += len(dialogue.replies())
        emotions.update(turn.emotion or _NONE for turn in dialogue.turns)
    counts.dialogues = len(origins)
    counts.emotions = {label: emotions[label] for label in (*EKMAN, _NONE)}
    return counts


def _replies(dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
    return chain.from_iterable(dialogue.replies() for dialogue in dialogues)


def _last_of_each(replies: Iterable[Dialogue]) -> Iterator[Dialogue]:
    return iter({reply.origin: reply for reply in replies}.values())


def _complain(problem: BadData) -> None:
    typer.echo(f"skipped: {problem}", err=True)


def _to_json(name: str, root: Path, report: Report) -> dict[str, Any]:
    first = [{"file": p.file, "line": p.line, "reason": p.reason} for p in report.bad[:_SHOWN]]
    return {
        "name": name,
        "root": str(root),
        "missing": [{"split": split, "reason": reason} for split, reason in report.missing.items()],
        "bad": {"count": len(report.bad), "first": first},
        "splits": [asdict(counts) for counts in report.splits],
    }


def _print_report(report: Report) -> None:
    for split, reason in report.missing.items():
        typer.echo(f"missing: {split}: {reason}")
    for problem in report.bad[:_SHOWN]:
        typer.echo(f"bad: {problem}")
    if len(report.bad) > _SHOWN:
        typer.echo(f"… and {len(report.bad) - _SHOWN} more")
    typer.echo(f"{len(report.bad)} bad rows")
    if report.splits:
        _print_table(("", *(counts.split for counts in report.splits)), _count_rows(report.splits))


def _count_rows(splits: list[Counts]) -> list[tuple[str, ...]]:
    """Return the table of counts: a row a quantity, a column a split; emotions that never occur are left out."""
    whole = ("dialogues", "stretches", "utterances", "replies")
    rows = [(what, *(f"{getattr(counts, what):,}" for counts in splits)) for what in whole]
    labels = [label for label in (*EKMAN, _NONE) if any(counts.emotions[label] for counts in splits)]
    return rows + [(label, *(_share(counts, label) for counts in splits)) for label in labels]


def _share(counts: Counts, label: str) -> str:
    return f"{counts.emotions[label]:,} ({counts.emotions[label] / max(counts.utterances, 1):.1%})"


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
