"""UMDF when modalities are missing, beside the same network without distillation: MAE on every subset of the modalities.

python benchmarks/sentiment_missing.py --root DIR --out runs/missing
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from elmd.config import load
from elmd.datasets import read_samples
from elmd.sentiment.assess import assess, subsets
from elmd.sentiment.config import Config
from elmd.sentiment.metrics import Result
from elmd.sentiment.train import train
from elmd.types import MODALITIES, Sample

SYSTEMS = {"UMDF": "true", "without distillation": "false"}


def main(
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the table.")],
    part: Annotated[str, typer.Option("--on", help="One of `elmd list sets`.")] = "mosi-utterance",
    split: str = "valid",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key of both runs.")] = None,
) -> None:
    """Train both from five seeds, score them on each subset, write missing-<split>.json."""
    console = Console(stderr=True)
    found: dict[str, dict[str, Result]] = {}
    for name, distil in SYSTEMS.items():
        keys = [f"data.root={json.dumps(str(root))}", f"data.modalities={json.dumps(MODALITIES)}"]
        config = load(Config, f"sentiment-umdf-{part}", [*keys, f"model.settings.distil={distil}", *(set_ or ())])
        folder = out / name.replace(" ", "-")
        train(config, folder, lambda line: console.print(line, markup=False), lambda step: None)
        found[name] = scored(folder, list(read_samples(config.data.name, root, split)))
    rows = {name: {subset: result.to_json() for subset, result in results.items()} for name, results in found.items()}
    (out / f"missing-{split}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    Console(width=120).print(table(found))


def scored(folder: Path, samples: list[Sample]) -> dict[str, Result]:
    """Return the scores of a run on every subset, all modalities last."""
    parts = {"+".join(subset): assess(folder, samples, subset) for subset in subsets(folder)}
    return parts | {"+".join(MODALITIES): assess(folder, samples)}


def table(found: dict[str, dict[str, Result]]) -> Table:
    """Return a table of subsets by systems: MAE and correlation, with the deviation over seeds."""
    shown = Table("there", *(f"{name}: {score}" for name in found for score in ("MAE", "Corr")))
    for subset in next(iter(found.values())):
        cells = [cell(found[name][subset], score) for name in found for score in ("mae", "corr")]
        shown.add_row(subset, *cells)
    return shown


def cell(result: Result, name: str) -> str:
    """Return "value ± deviation" of one score."""
    value = next(score.value for score in result.scores if score.name == name)
    return f"{value:.3f} ± {result.sd[name]:.3f}"


if __name__ == "__main__":
    typer.run(main)
