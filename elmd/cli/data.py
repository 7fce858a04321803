"""Data sets: what each needs, whether a copy is whole, their conversion to JSONL, and synthetic ones to try out."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from elmd.datasets import read_dialogues, read_samples
from elmd.errors import BadData, UnknownName, UsageError
from elmd.files import stop, write_jsonl
from elmd.labels import EKMAN
from elmd.types import MODALITIES, Dialogue, Sample, Split
from elmd.zoo import DATASETS

app = typer.Typer(help=__doc__, no_args_is_help=True)

_SHOWN = 20
_NONE = "none"
"""How the tables call an utterance without an emotion."""

Name = Annotated[str, typer.Argument(help="Data set, as `elmd data list` names it.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the data set's files.")]
Samples = Annotated[bool, typer.Option("--samples", help="Take samples, also of a set that holds dialogues.")]
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
class Modal:
    """One modality of the samples of a split: how many have it, how wide it is, how many frames they have on average."""

    share: float = 0.0
    widths: list[int] = field(default_factory=list)
    frames: float = 0.0


@dataclass
class SampleCounts:
    """What one split of a sample set holds; `sentiment` is the least, mean and largest label."""

    split: str
    samples: int = 0
    origins: int = 0
    labelled: int = 0
    sentiment: tuple[float, float, float] | None = None
    modalities: dict[str, Modal] = field(default_factory=dict)
    emotions: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """What `check` found: counts by split, bad rows, and why a split cannot be read at all."""

    splits: list[Counts | SampleCounts] = field(default_factory=list)
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
        {"name": name, "summary": DATASETS.summary(name), "holds": _holds(name), **asdict(DATASETS.load(name).CARD)}
        for name in DATASETS.names()
    ]
    if as_json:
        typer.echo(json.dumps(cards, ensure_ascii=False))
        return
    for card in cards:
        typer.echo(f"{card['name']}  ({card['language']}, {' and '.join(card['holds'])}; {card['license']})")
        typer.echo(f"    {card['summary']}")
        typer.echo(f"    files: {' '.join(card['files'])}")
        typer.echo(f"    note: {card['note']}")


@app.command()
def check(
    name: Name,
    root: Root,
    split: Annotated[str | None, typer.Option(help="Only this split; else every split the set has.")] = None,
    samples: Samples = False,
    as_json: Json = False,
) -> None:
    """Read a copy of a data set and say what is missing, which rows are bad and what it holds.

    Exits with 1 when rows are bad and 2 when required files are missing.
    """
    report = examine(name, root, split, samples)
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
    out: Annotated[Path, typer.Option(help="JSON lines file to write; vectors of samples go beside it.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report bad rows and go on, instead of stopping.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Write no more than this many replies or samples.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Keep only the last reply of each dialogue.")] = False,
    samples: Samples = False,
) -> None:
    """Write a split as dialogue JSONL: one line a reply, with the turns before it and the reply as reference.

    Of a set that holds samples: one line a sample, with its vectors in a .safetensors file beside.
    Each file is written as a whole or not at all.
    """
    on_bad = _complain if skip_bad else stop
    if samples or "dialogues" not in _holds(name):
        if last:
            raise UsageError("--last keeps replies of dialogues; samples have none")
        count = _write_samples(out, islice(read_samples(name, root, split, on_bad), limit), split)
        typer.echo(f"wrote {count} samples to {out}", err=True)
        return
    dialogues = read_dialogues(name, root, split, on_bad)
    replies = _last_of_each(_replies(dialogues)) if last else _replies(dialogues)
    count = write_jsonl(out, islice(replies, limit))
    typer.echo(f"wrote {count} replies to {out}", err=True)


@app.command()
def synthesize(
    name: Annotated[str, typer.Argument(help="mosi, mosei, sims, simsv2 or mosi_utterance.")],
    out: Annotated[Path, typer.Option(help="Folder to write the pickle into, under its usual name.")],
    samples: Annotated[int | None, typer.Option(min=3, help="Samples in all; else as many as the real set.")] = None,
    train: Annotated[int | None, typer.Option(min=1, help="Samples to train on.")] = None,
    valid: Annotated[int | None, typer.Option(min=1, help="Samples to validate on.")] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Samples to test on.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same file.")] = 0,
    full_length: Annotated[bool, typer.Option("--full-length", help="Every sample fills its padded length.")] = False,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="The aligned file: a frame a word in all modalities.")
    ] = False,
) -> None:
    """Write a synthetic sentiment set in the exact format of the real one, with a signal that can be learned.

    For trying out, tests and timing without the real data; scores on it mean nothing.
    """
    from elmd.datasets import _synthetic

    given: dict[Split, int | None] = {"train": train, "valid": valid, "test": test}
    chosen = {split: size for split, size in given.items() if size is not None}
    if samples is not None and chosen:
        raise UsageError("give --samples, or --train, --valid and --test")
    sizes = _synthetic.sizes_for(name, samples) if samples is not None else chosen or None
    path = _synthetic.synthesize(name, out, sizes, seed, full_length, aligned)
    typer.echo(f"wrote {path}", err=True)


def examine(name: str, root: Path, split: str | None = None, samples: bool = False) -> Report:
    """Read one split, or all that the data set has, and count what is there."""
    card, report = DATASETS.load(name).CARD, Report()
    count = _sample_counter(name, root) if samples or "dialogues" not in _holds(name) else _counter(name, root)
    for each in [split] if split else card.splits:
        try:
            report.splits.append(count(each, report.bad))
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


def _holds(name: str) -> list[str]:
    """What a data set's own loader yields."""
    entry = DATASETS.load(name)
    return [what for what, export in (("dialogues", "read"), ("samples", "samples")) if hasattr(entry, export)]


def _counter(name: str, root: Path) -> Callable[[str, list[BadData]], Counts]:
    return lambda split, bad: _count(split, read_dialogues(name, root, split, bad.append))


def _sample_counter(name: str, root: Path) -> Callable[[str, list[BadData]], SampleCounts]:
    return lambda split, bad: _count_samples(split, read_samples(name, root, split, bad.append))


def _write_samples(out: Path, samples: Iterable[Sample], split: str) -> int:
    from elmd.datasets._samples import write_samples

    return write_samples(out, samples, split)


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


def _count_samples(split: str, samples: Iterable[Sample]) -> SampleCounts:
    """Count samples one by one, so that not all of them need be in memory."""
    counts, origins, emotions = SampleCounts(split), set(), Counter[str]()
    frames, having, labels = Counter[str](), Counter[str](), list[float]()
    widths: dict[str, set[int]] = {kind: set() for kind in MODALITIES}
    for sample in samples:
        counts.samples += 1
        origins.add(sample.origin)
        emotions[sample.emotion or _NONE] += 1
        labels += [] if sample.sentiment is None else [sample.sentiment]
        for kind, array in sample.features.items():
            having[kind] += 1
            frames[kind] += len(array)
            widths[kind].add(array.shape[1])
    counts.origins, counts.labelled = len(origins), len(labels)
    counts.sentiment = (min(labels), sum(labels) / len(labels), max(labels)) if labels else None
    counts.emotions = {label: emotions[label] for label in (*EKMAN, _NONE)}
    counts.modalities = {
        kind: Modal(having[kind] / counts.samples, sorted(widths[kind]), frames[kind] / having[kind])
        for kind in MODALITIES
        if having[kind]
    }
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
        _print_table(("", *(counts.split for counts in report.splits)), _rows(report.splits))


def _rows(splits: list[Counts | SampleCounts]) -> list[tuple[str, ...]]:
    """Return the table of counts: a row a quantity, a column a split; emotions that never occur are left out."""
    dialogues = [counts for counts in splits if isinstance(counts, Counts)]
    samples = [counts for counts in splits if isinstance(counts, SampleCounts)]
    rows = _sample_rows(samples) if samples else _dialogue_rows(dialogues)
    labels = [label for label in EKMAN if any(counts.emotions[label] for counts in splits)]
    if not samples or labels:
        labels += [_NONE] if any(counts.emotions[_NONE] for counts in splits) else []
    return rows + [(label, *(_share(counts, label) for counts in splits)) for label in labels]


def _dialogue_rows(splits: list[Counts]) -> list[tuple[str, ...]]:
    whole = ("dialogues", "stretches", "utterances", "replies")
    return [(what, *(f"{getattr(counts, what):,}" for counts in splits)) for what in whole]


def _sample_rows(splits: list[SampleCounts]) -> list[tuple[str, ...]]:
    whole = ("samples", "origins", *(("labelled",) if any(counts.labelled for counts in splits) else ()))
    rows = [(what, *(f"{getattr(counts, what):,}" for counts in splits)) for what in whole]
    if any(counts.sentiment for counts in splits):
        rows.append(("least, mean, largest", *(_sentiment(counts) for counts in splits)))
    kinds = [kind for kind in MODALITIES if any(kind in counts.modalities for counts in splits)]
    return rows + [(kind, *(_modality(counts.modalities.get(kind)) for counts in splits)) for kind in kinds]


def _sentiment(counts: SampleCounts) -> str:
    return ", ".join(f"{value:.2f}" for value in counts.sentiment) if counts.sentiment else "-"


def _modality(found: Modal | None) -> str:
    if found is None:
        return "-"
    return f"{found.share:.1%}, {'/'.join(map(str, found.widths))} wide, {found.frames:.1f} frames"


def _share(counts: Counts | SampleCounts, label: str) -> str:
    return f"{counts.emotions[label]:,} ({counts.emotions[label] / max(sum(counts.emotions.values()), 1):.1%})"


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
