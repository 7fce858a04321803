"""The trainer of every sentiment model: seeds, phases, early stop on valid, resuming, one process or several.

`accelerate launch -m elmd train sentiment …` spreads a run over several GPUs (or CPU processes): each learns from its own
share of the training set and keeps the pseudo-labels of that share, gradients are averaged.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from elmd.config import read_recipe
from elmd.datasets import read_samples
from elmd.errors import UsageError
from elmd.files import write_text
from elmd.runs import Card, data_files, plot_runs, write_card, write_metrics, write_run
from elmd.sentiment.assess import result_of
from elmd.sentiment.base import MAIN, Shape
from elmd.sentiment.batch import Batch, Table
from elmd.sentiment.config import Config, TrainConfig
from elmd.sentiment.metrics import Result, class_metrics
from elmd.sentiment.resume import Resume
from elmd.sentiment.system import ENCODER, Answer, Loader, System, build, outputs, save
from elmd.types import MODALITIES, Modality
from elmd.zoo import DATASETS

HISTORY = "history.json"
"""Written when a seed is done: a run that is started again passes over it."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is, for a bar: the seed, its epoch, the share of the epoch that is done, the valid scores."""

    seed: int
    epoch: int
    done: float
    valid: float | None = None
    best: float | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """What all seeds of a run learn from and select on."""

    train: Table
    valid: Table
    statistics: Mapping[Modality, tuple[Tensor, Tensor]]
    shape: Shape
    files: Sequence[Path]


def train(config: Config, out: Path, say: Callable[[str], None], show: Callable[[Step], None]) -> dict[str, Any]:
    """Train a model from every seed of a configuration, and return the metrics.

    Writes `seed-…/` (the weights of the best epoch, see `elmd.sentiment.system`), run.toml, metrics.json, curves.png
    and a card into `out`. Started again with the same configuration and `out`, it goes on after the last whole epoch.

    Args:
        config: Of the run.
        out: Folder to write to.
        say: Takes lines of talk.
        show: Takes the progress.

    Raises:
        UsageError: If `out` holds a run with another configuration, or the data has no labels of the target.
    """
    _check_same(config, out)
    if finished := _finished(config, out):
        return finished
    accelerator = _accelerator()
    loader = Loader(config, _scale(config.data.name), accelerator.device)
    data = load(config, loader)
    say(
        f"{config.model.name} on {config.data.name}: {len(data.train)} samples to learn, {len(data.valid)} to select on"
    )
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_run(out, "sentiment", config, data.files)
    predicted: dict[str, Tensor] = {}
    for seed in config.seeds:
        trainer = Trainer(config, data, loader, accelerator, seed, out / f"seed-{seed}")
        started = time.perf_counter()
        trainer.fit(show)
        predicted[str(seed)] = outputs(trainer.system, data.valid, accelerator.device)
        best = min(trainer.history, key=lambda row: row["valid"])
        say(
            f"seed {seed}: best valid {best['valid']:.4f} in epoch {best['epoch']:.0f}, {time.perf_counter() - started:.0f} s"
        )
    result = result_of(predicted, data.valid)
    metrics = {
        "valid": result.to_json(),
        "best_seed": _best_seed(out, config.seeds),
        "parameters": _size(trainer.system),
    }
    if accelerator.is_main_process:
        _report(config, out, result, metrics)
    return metrics


def load(config: Config, loader: Loader) -> Data:
    """Read the train and valid samples of a run and lay them out."""
    if config.data.root is None:
        raise UsageError("data.root: name the folder of the data set, --set data.root=DIR")
    root = Path(config.data.root)
    learn, valid = (loader.trimmed(read_samples(config.data.name, root, split)) for split in ("train", "valid"))
    tables = loader.table(learn), loader.table(valid)
    for name, table in zip(("train", "valid"), tables, strict=True):
        if not len(table) or not table.target.known(table.labels).any():
            raise UsageError(
                f"{config.data.name}: no {name} sample has a label for data.target = {config.data.target!r}"
            )
    statistics = loader.statistics(learn, tables[0])
    shape = Shape(loader.widths(tables[0]), loader.target, len(tables[0]))
    loader.forget_encoder()
    return Data(*tables, statistics, shape, data_files(root))


class Trainer:
    """Trains one system from one seed.

    Args:
        config: Of the run.
        data: Laid out by `load`.
        loader: Gives the text encoder, if it learns along.
        accelerator: Devices, precision and processes.
        seed: Of weights, order and dropout.
        folder: Where the weights go.
    """

    def __init__(
        self, config: Config, data: Data, loader: Loader, accelerator: Accelerator, seed: int, folder: Path
    ) -> None:
        self.config, self.settings, self.data = config, config.train, data
        self.accelerator, self.seed, self.folder = accelerator, seed, folder
        torch.manual_seed(seed)
        encoder = loader.fresh_encoder() if loader.tuned else None  # none has learned from another seed's run
        self.system = build(config, data.shape, encoder).to(accelerator.device)
        self.system.normalise_by(data.statistics)
        self.module = accelerator.prepare_model(self.system) if accelerator.num_processes > 1 else self.system
        self.optimizers = optimizers(self.system, self.settings)
        self.rows = _share(len(data.train), accelerator)
        self.history: list[dict[str, float]] = []
        self.resume = Resume(folder / f"resume-{accelerator.process_index}.safetensors", self.system, self.optimizers)

    def fit(self, show: Callable[[Step], None]) -> None:
        """Train to the early stop, or go on from where a killed run was; leave the best epoch in the system."""
        if not self._done():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.system.model.training_started(self.data.train.labels.to(self.accelerator.device))
            self.history = self.resume.load()
            while len(self.history) < self.settings.epochs and self._stalled() < self.settings.patience:
                self._epoch(len(self.history) + 1, show)
            self._finish()
        self._load_best()

    def _epoch(self, epoch: int, show: Callable[[Step], None]) -> None:
        started = time.perf_counter()
        self.system.train()
        self.system.model.epoch_started(epoch)
        losses = {phase: self._phase(phase, epoch, show) for phase in self.system.model.PHASES}
        valid = criterion(outputs(self.system, self.data.valid, self.accelerator.device), self.data.valid)
        row = {"epoch": float(epoch), "loss": losses[MAIN], "valid": valid, "seconds": time.perf_counter() - started}
        self.history.append(row)
        if not self._stalled() and self.accelerator.is_main_process:
            save(self.system, self.config, self.folder)
        self.resume.save(self.history)
        show(Step(self.seed, epoch, 1.0, valid, min(r["valid"] for r in self.history)))

    def _phase(self, phase: str, epoch: int, show: Callable[[Step], None]) -> float:
        """One pass over the data for one phase; return the mean loss."""
        batches = math.ceil(len(self.rows) / self.settings.batch_size)
        order = self.data.train.batches(self.settings.batch_size, self._order_seed(epoch), self.rows)
        total = 0.0
        for number, batch in enumerate(order, 1):
            answer = self._learn(batch.to(self.accelerator.device), phase)
            if number % self.settings.accumulate == 0 or number == batches:
                self._update(phase, epoch - 1 + number / batches)
            total += float(answer.loss.detach())
            show(Step(self.seed, epoch, number / batches))
        return total / batches

    def _learn(self, batch: Batch, phase: str) -> Answer:
        """Forward and backward of one batch."""
        batch = hide(batch, self.settings.missing) if self.settings.missing else batch
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            answer: Answer = self.module(batch, phase)
        if not answer.loss.isfinite():
            raise UsageError(f"the loss is {float(answer.loss.detach())}; lower train.learning_rate, or set train.clip")
        self.accelerator.backward(answer.loss / self.settings.accumulate)
        if phase == MAIN:
            with torch.no_grad():
                self.system.model.batch_ended(answer.batch, answer.prediction)
        return answer

    def _update(self, phase: str, epochs: float) -> None:
        """Step a phase's optimizer at the rate of this moment, and clear every gradient."""
        optimizer = self.optimizers[phase]
        factor = rate(self.settings, epochs, self._stalled())
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        if self.settings.clip:
            learned = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(learned, self.settings.clip)
        optimizer.step()
        self.system.zero_grad(set_to_none=True)

    def _stalled(self) -> int:
        """Epochs since the best."""
        if not self.history:
            return 0
        valid = [row["valid"] for row in self.history]
        return len(valid) - 1 - valid.index(min(valid))

    def _order_seed(self, epoch: int) -> int:
        return self.seed * 10_000 + epoch

    def _done(self) -> bool:
        path = self.folder / HISTORY
        if path.is_file():
            self.history = json.loads(path.read_text(encoding="utf-8"))
        return path.is_file()

    def _finish(self) -> None:
        if self.accelerator.is_main_process:
            write_text(self.folder / HISTORY, json.dumps(self.history) + "\n")
        self.accelerator.wait_for_everyone()
        self.resume.drop()

    def _load_best(self) -> None:
        from safetensors.torch import load_file

        self.system.load_state_dict(load_file(self.folder / "model.safetensors"), strict=False)


def optimizers(system: System, settings: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Return the AdamW optimizer of each phase; raise UsageError if `train.groups` names a group that is not there."""
    groups = system.parameter_groups()
    unknown = sorted(set(settings.groups) - set(groups))
    if unknown:
        raise UsageError(f"train.groups.{unknown[0]}: no such group; there are {', '.join(groups)}")
    phases = system.model.PHASES
    named = {name for names in phases.values() for name in names or ()}
    return {
        phase: _optimizer(
            {n: p for n, p in groups.items() if (n in names if names else n not in named)}, system, settings
        )
        for phase, names in phases.items()
    }


def rate(settings: TrainConfig, epochs: float, stalled: int) -> float:
    """Return the factor on every learning rate after so many (whole and part) epochs, `stalled` of them without a gain."""
    part = epochs / settings.epochs
    if part < settings.warmup:
        return part / settings.warmup
    rest = (part - settings.warmup) / (1 - settings.warmup)
    if settings.schedule == "linear":
        return max(0.0, 1 - rest)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
    if settings.schedule == "plateau" and stalled > settings.patience // 2:
        return 0.5
    return 1.0


def criterion(found: Tensor, table: Table) -> float:
    """Return what selection minimises: the mean absolute error, or 100 - macro-F1 for classes."""
    target = table.target
    known = target.known(table.labels)
    if target.labels:
        given = [target.labels[int(i)] for i in table.labels[known, 0]]
        said = [str(label) for label in target.decode(found[known])]
        return 100 - class_metrics(said, given, target.labels)["macro_f1"]
    return float(target.loss(found, table.labels))


def hide(batch: Batch, chance: float) -> Batch:
    """Return the batch with modalities hidden at random; a row never loses all that it has."""
    present = torch.stack([_there(batch, m) for m in MODALITIES], 1)
    hidden = (torch.rand(present.shape, device=present.device) < chance) & present
    hidden &= (present & ~hidden).any(1, keepdim=True)
    return batch.without({m: hidden[:, i] for i, m in enumerate(MODALITIES)})


def _there(batch: Batch, modality: Modality) -> Tensor:
    frames = batch.tokens if modality == "text" and batch.tokens is not None else batch.frames[modality]
    return frames.present


def _optimizer(groups: Mapping[str, list[Any]], system: System, settings: TrainConfig) -> torch.optim.Optimizer:
    tables = []
    for name, parameters in groups.items():
        own = settings.groups.get(name)
        encoder = system.encoder.config if name == ENCODER and system.encoder else settings
        base = (own and own.learning_rate) or encoder.learning_rate
        decay = own.weight_decay if own and own.weight_decay is not None else encoder.weight_decay
        tables.append({"params": parameters, "lr": base, "base": base, "weight_decay": decay})
    return torch.optim.AdamW([table for table in tables if table["params"]], fused=True)


def _share(count: int, accelerator: Accelerator) -> list[int]:
    """The rows of this process, as many as those of every other."""
    processes = accelerator.num_processes
    return [(accelerator.process_index + i * processes) % count for i in range(math.ceil(count / processes))]


def _accelerator() -> Accelerator:
    # Each process keeps its own pseudo-labels, and a phase uses only a part of the parameters.
    spread = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(kwargs_handlers=[spread])


def _scale(name: str) -> Any:
    return DATASETS.load(name).CARD.scale or "mosi"


def _check_same(config: Config, out: Path) -> None:
    """Refuse to mix two configurations in one folder; seeds may be added."""
    path = out / "run.toml"
    if not path.is_file():
        return
    there = read_recipe(str(path))
    there.pop("run", None)
    before, now = (c.model_dump(mode="json", exclude={"seeds"}) for c in (Config.model_validate(there), config))
    if before != now:
        raise UsageError(f"{out} holds a run with other settings; name another folder with --out, or delete it")


def _finished(config: Config, out: Path) -> dict[str, Any] | None:
    """The metrics of a run that is done for exactly these seeds."""
    path = out / "metrics.json"
    if not path.is_file() or not all((out / f"seed-{seed}" / HISTORY).is_file() for seed in config.seeds):
        return None
    metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metrics if set(metrics["valid"]["seeds"]) == {str(seed) for seed in config.seeds} else None


def _best_seed(out: Path, seeds: Sequence[int]) -> int:
    """The seed whose best epoch has the best valid score."""
    histories = {seed: json.loads((out / f"seed-{seed}" / HISTORY).read_text(encoding="utf-8")) for seed in seeds}
    return min(seeds, key=lambda seed: min(row["valid"] for row in histories[seed]))


def _size(system: System) -> int:
    return sum(p.numel() for group in system.parameter_groups().values() for p in group)


def _report(config: Config, out: Path, result: Result, metrics: Mapping[str, Any]) -> None:
    write_metrics(out, metrics)
    histories = {
        f"seed {seed}": json.loads((out / f"seed-{seed}" / HISTORY).read_text(encoding="utf-8"))
        for seed in config.seeds
    }
    plot_runs(out / "curves.png", histories, f"{config.model.name} on {config.data.name}")
    write_card(out, card(config), {"valid": {score.name: score.value for score in result.scores}})


def card(config: Config) -> Card:
    """What the model card of a run says."""
    data, text = config.data, {"vectors": "the set's vectors", "ids": "BERT ids", "words": "words"}[config.data.text]
    encoder = "" if data.text == "vectors" else f" through {config.encoder.model} ({config.encoder.tune})"
    return Card(
        title=f"{config.model.name} on {data.name}",
        summary=f"Multimodal sentiment analysis: {', '.join(data.modalities)} to {data.target}; text from {text}{encoder}.",
        data=f"The train split of {data.name} ({DATASETS.load(data.name).CARD.license}). The scores are those of its valid "
        f"split, which chose the epoch of each seed: means over {len(config.seeds)} seeds.",
        license="That of the data set: weights learned from research data may not be published under a free licence.",
        command="elmd train sentiment --recipe run.toml --out DIR",
        limits="Judges one utterance at a time, and is a guess. It knows the people, the language and the cameras of its "
        "data set.",
    )
