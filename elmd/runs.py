"""What every training run leaves behind: `run.toml` (resolved config, versions, data hashes), metrics, a model card."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from elmd import __version__
from elmd.config import dump_toml
from elmd.files import sha256, write_text
from elmd.plots import new_figure, save_figure

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "sentence-transformers", "scikit-learn", "numpy")
DATA_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".pkl", ".npy", ".safetensors"})


def versions() -> dict[str, str]:
    """Return the versions of elmd and of the libraries that shape a result."""
    return {"elmd": __version__} | {name: _version(name) for name in LIBRARIES}


def write_run(out: Path, what: str, config: BaseModel, data: Iterable[Path]) -> None:
    """Write `run.toml`: the resolved configuration, which repeats the run, with versions and data hashes beside it."""
    hashes = {path.name: sha256(path) for path in data}
    notes = {"what": what, "versions": versions(), "data_sha256": hashes}
    write_text(out / "run.toml", dump_toml(config, {"run": notes}))


def draw(key: str) -> float:
    """Return a number in [0, 1) that depends on `key` alone: what decides in which part of the data a row lies."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32


def data_files(root: Path) -> list[Path]:
    """Return the data files directly under `root` (or `root` itself, if a file), whose hashes a run keeps."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.iterdir() if path.suffix in DATA_SUFFIXES)


def write_metrics(out: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`."""
    write_text(out / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Card:
    """What a model card says beside the measured scores."""

    title: str
    summary: str
    data: str
    license: str
    command: str
    limits: str


def write_card(out: Path, card: Card, metrics: Mapping[str, Any]) -> None:
    """Write `README.md`: what the weights are, data, licence, command, scores (every table of numbers in `metrics`), limits."""
    rows = [
        f"| {part}{' ' + name if name else ''} | {measure} | {value:.3f} |"
        for part, name, measures in _tables(metrics)
        for measure, value in measures.items()
    ]
    scores = "\n".join(["| rows | score | value |", "|---|---|---|", *rows])
    write_text(
        out / "README.md",
        f"# {card.title}\n\n{card.summary}\n\n## Data\n\n{card.data}\n\n## Licence\n\n{card.license}\n\n"
        f"## Made by\n\n```\n{card.command}\n```\n\n`run.toml` holds the resolved configuration, versions and data hashes.\n\n"
        f"## Scores\n\n{scores}\n\n## Limits\n\n{card.limits}\n",
    )


def _tables(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """The tables of numbers in metrics: those of a part, and those of each system inside a part."""
    for part, inner in metrics.items():
        if not isinstance(inner, Mapping):
            continue
        numbers = {key: value for key, value in inner.items() if isinstance(value, int | float)}
        if numbers:
            yield part, "", numbers
        for name, measures in inner.items():
            if isinstance(measures, Mapping):
                yield part, name, dict(measures)


def plot_curves(out: Path, curves: Mapping[str, list[float]], title: str) -> None:
    """Draw one line a metric over the epochs into `curves.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
    axes.set(title=title, xlabel="epoch")
    axes.legend()
    figure.savefig(out / "curves.png", dpi=120)
    pyplot.close(figure)


def plot_runs(path: Path, histories: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Draw the loss and the valid score of several runs over their epochs, a line a run."""
    figure = new_figure(9, 3.5)
    for axes, key in zip(figure.subplots(1, 2), ("loss", "valid"), strict=True):
        for name, rows in histories.items():
            axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], label=name)
        axes.set(title=f"{title}: {key}", xlabel="epoch")
    figure.axes[1].legend(fontsize="small")
    save_figure(figure, path)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
