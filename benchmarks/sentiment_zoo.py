"""Every sentiment model on one data set, from five seeds, beside ridge regression and the mean: a table and a plot.

    python benchmarks/sentiment_zoo.py --root DIR --out runs/zoo                      # MOSI utterances, valid
    python benchmarks/sentiment_zoo.py --root DIR --out runs/zoo --split test         # the same runs on the test split
    python benchmarks/sentiment_zoo.py --root DIR --out runs/given --set data.text=vectors \
        --set 'data.modalities=["text","audio","vision"]'                             # the set's own vectors

Runs that are there already are kept, and a killed run goes on, so the table can be made again at no cost.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from elmd.config import load
from elmd.datasets import read_samples
from elmd.sentiment import report
from elmd.sentiment.assess import assess, result_of
from elmd.sentiment.batch import Table
from elmd.sentiment.config import Config
from elmd.sentiment.metrics import Result
from elmd.sentiment.system import Loader
from elmd.sentiment.train import train
from elmd.types import MODALITIES, Sample, Score
from elmd.zoo import DATASETS, SENTIMENT


def main(
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the runs, the table and the plot.")],
    part: Annotated[str, typer.Option("--on", help="One of `elmd list sets`.")] = "mosi-utterance",
    split: str = "valid",
    models: Annotated[str, typer.Option(help="Comma-separated; all when none.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key of every run.")] = None,
) -> None:
    """Train what is not trained yet, score all on `split`, write results-<split>.json, .md and .png."""
    console = Console(stderr=True)
    overrides = [f"data.root={json.dumps(str(root))}", *(set_ or ())]
    names = models.split(",") if models else list(SENTIMENT.names())
    found: dict[str, Result] = {}
    config = load(Config, f"sentiment-{names[0]}-{part}", overrides)
    samples = list(read_samples(config.data.name, root, split))
    for name in names:
        config = load(Config, f"sentiment-{name}-{part}", overrides)
        metrics = train(config, out / name, lambda line: console.print(line, markup=False), lambda step: None)
        found[name] = of_json(metrics["valid"]) if split == "valid" else assess(out / name, samples)
    found |= baselines(config, list(read_samples(config.data.name, root, "train")), samples)
    write(found, out, split)
    Console(width=160).print(report.table(found))


def of_json(row: dict[str, Any]) -> Result:
    """Return a result from its JSON."""
    return Result(row["n"], tuple(Score(**score) for score in row["scores"]), row["sd"], row["seeds"])


def baselines(config: Config, learn: list[Sample], judged: list[Sample]) -> dict[str, Result]:
    """Score ridge regression on the means of each modality's frames, and the training set's mean."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    loader = Loader(config, DATASETS.load(config.data.name).CARD.scale or "mosi", torch.device("cpu"))
    tables = loader.table(learn), loader.table(judged)
    given = tables[0].labels[:, 0].numpy()
    known = ~np.isnan(given)
    scaler = StandardScaler().fit(means(tables[0])[known])
    model = RidgeCV(np.logspace(0, 5, 11)).fit(scaler.transform(means(tables[0])[known]), given[known])
    ridge = torch.tensor(model.predict(scaler.transform(means(tables[1]))), dtype=torch.float32)[:, None]
    mean = torch.full_like(ridge, float(given[known].mean()))
    return {"ridge": result_of({"0": ridge}, tables[1]), "mean": result_of({"0": mean}, tables[1])}


def means(table: Table) -> np.ndarray:
    """Return the mean frame of every modality, side by side, (n, sum of widths)."""
    batch = table.batch(range(len(table)))
    parts = [batch.frames[m].values.sum(1) / batch.frames[m].lengths.clamp(min=1)[:, None] for m in MODALITIES]
    return torch.cat(parts, 1).numpy()


def write(found: dict[str, Result], out: Path, split: str) -> None:
    """Write the results as JSON, as a markdown table and as a plot."""
    rows = {name: result.to_json() for name, result in found.items()}
    (out / f"results-{split}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / f"results-{split}.md").write_text(report.markdown(found), encoding="utf-8")
    report.plot(found, out / f"results-{split}.png")


if __name__ == "__main__":
    typer.run(main)
