"""What training costs with the length of the sequences and with the number of samples: seconds an epoch, peak memory.

Run: python benchmarks/sentiment_cost.py OUT_FOLDER [--models NAME …] [--threads N]

Every point is a process of its own on random samples as wide as MOSI's. One batch warms up; then batches are timed until
the epoch or the time for a point is over, and scaled to the epoch. With the length, audio and vision have that many
frames and the text 50 vectors; with the number of samples, all have a little under what speech has in the middle. Peak
memory is what the process has held at most above what its imports hold. Writes cost.json and cost.png.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _mmsa_side import Clock, peak, resident

from elmd.sentiment.base import Shape
from elmd.sentiment.batch import Batch
from elmd.sentiment.config import Config
from elmd.sentiment.system import Loader
from elmd.sentiment.target import Target
from elmd.sentiment.train import Data, Trainer
from elmd.types import Modality, Sample

MODELS = ("lmf", "tfn", "mult", "self_mm", "almt", "misa", "mmim", "umdf")
WIDTHS: Mapping[Modality, int] = {"text": 768, "audio": 5, "vision": 20}
LENGTHS, COUNTS = (25, 50, 100, 200, 400, 800), (100, 300, 1000, 2500, 5000)
SAMPLES, SPEECH = 128, {"text": 12, "audio": 40, "vision": 48}
BATCH, SECONDS = 32, 1.0
AXES = (
    ("length", "frames", f"frames of audio and of vision ({SAMPLES} samples)"),
    ("samples", "samples", f"samples ({SPEECH['vision']} frames)"),
)
FIGURES = (("wall", "seconds an epoch"), ("peak", "peak memory, MB above imports"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in points(options.models, options.threads):
        print(f"{row['model']:<8} {row['frames']:>4} frames {row['samples']:>5} samples "
              f"{row['cpu']:8.2f} CPU s {row['wall']:8.2f} s {row['peak']:7.0f} MB", flush=True)  # fmt: skip
        rows.append(row)
    about = {
        "batch": BATCH,
        "threads": options.threads,
        "widths": WIDTHS,
        "torch": torch.__version__,
        "load": os.getloadavg(),
    }
    text = json.dumps({"about": about, "points": rows}, indent=1)
    (out / "cost.json").write_text(text + "\n", encoding="utf-8")
    plot(rows, out / "cost.png")


def points(models: Sequence[str], threads: int) -> Iterator[dict[str, Any]]:
    """Yield a row a point; a server that has done the imports, and nothing else, is forked for each."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["__main__", *(f"elmd.sentiment.models.{name}" for name in models)])
    speech = SPEECH["vision"]
    asked = [("length", frames, SAMPLES) for frames in LENGTHS] + [("samples", speech, count) for count in COUNTS]
    for model in models:
        for axis, frames, count in asked:
            with processes.Pool(1) as pool:
                yield pool.apply(point, (model, axis, frames, count, threads))


def point(model: str, axis: str, frames: int, count: int, threads: int) -> dict[str, Any]:
    """Train for a moment in this process; return what an epoch costs."""
    torch.set_num_threads(threads)
    before = resident()
    lengths = {"text": 50, "audio": frames, "vision": frames} if axis == "length" else SPEECH
    samples = made(count, lengths)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(model, samples, Path(folder))
        spent, steps = timed_epoch(trainer)
    scale = -(-count // BATCH) / steps
    seconds = {kind: value * scale for kind, value in spent.items()}
    return {
        "model": model, "axis": axis, "frames": frames, "samples": count, **seconds,
        "steps": steps, "peak": peak() - before,
    }  # fmt: skip


def made(count: int, lengths: Mapping[Any, int]) -> list[Sample]:
    """Return samples of noise, each with its own rows of one long array."""
    draw = np.random.default_rng(0)
    arrays = {m: draw.standard_normal((count * lengths[m], width), np.float32) for m, width in WIDTHS.items()}
    labels = draw.uniform(-3, 3, count)
    return [
        Sample(
            id=str(i),
            origin=str(i),
            features={m: array[i * lengths[m] : (i + 1) * lengths[m]] for m, array in arrays.items()},
            sentiment=float(labels[i]),
        )
        for i in range(count)
    ]


def trainer_of(model: str, samples: Sequence[Sample], folder: Path) -> Trainer:
    from accelerate import Accelerator

    config = Config.model_validate(
        {"model": {"name": model}, "data": {"name": "mosi", "root": "."}, "train": {"batch_size": BATCH}, "seeds": [1]}
    )
    loader = Loader(config, "mosi", torch.device("cpu"))
    table = loader.table(samples)
    data = Data(table, table, loader.statistics(samples, table), Shape(table.widths, Target(), len(table)), ())
    trainer = Trainer(config, data, loader, Accelerator(cpu=True), 1, folder)
    trainer.system.train()
    trainer.system.model.training_started(table.labels)
    return trainer


def timed_epoch(trainer: Trainer) -> tuple[dict[str, float], int]:
    """Return the seconds of as many batches of the second epoch as fit, through all phases, and how many they were."""
    table = trainer.data.train
    learn(trainer, 1, next(table.batches(BATCH, 1)))
    trainer.system.model.epoch_started(2)
    clock, steps = Clock(), 0
    for batch in table.batches(BATCH, 2):
        learn(trainer, 2, batch)
        steps += 1
        if clock.read()["wall"] > SECONDS:
            break
    return clock.read(), steps


def learn(trainer: Trainer, epoch: int, batch: Batch) -> None:
    """Take a step of every phase: what passes over the same batches cost together."""
    for phase in trainer.system.model.PHASES:
        trainer._learn(batch, phase)
        trainer._update(phase, epoch)


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw seconds and memory against length and against samples, all axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(10, 8), sharey="row", layout="constrained")
    for column, (axis, key, label) in enumerate(AXES):
        for panel, (kind, unit) in zip(panels[:, column], FIGURES, strict=True):
            for model in dict.fromkeys(row["model"] for row in rows):
                line = [(row[key], row[kind]) for row in rows if row["model"] == model and row["axis"] == axis]
                panel.plot(*zip(*line, strict=True), marker="o", markersize=3, label=model)
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
            ticks = sorted({row[key] for row in rows if row["axis"] == axis})
            panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            panel.xaxis.minorticks_off()
            panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
