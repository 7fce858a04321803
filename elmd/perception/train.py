"""Training the text reader: LoRA on the sentence encoder and a linear head, on our own statements and on CPED.

Loss: label-smoothed cross-entropy, CPED rows weighted down (its labels were given with sight and sound, so the
words alone often do not show them). Selection by macro-F1 on the valid part of our own data only.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elmd.config import Strict
from elmd.data import demonstration_files, feelings, shipped, shipped_demonstrations
from elmd.datasets import read_dialogues
from elmd.errors import UsageError
from elmd.labels import EKMAN
from elmd.perception.text import EmotionNetwork
from elmd.runs import Card, data_files, draw, plot_curves, write_card, write_metrics, write_run
from elmd.types import ASSISTANT, Dialogue


class DataConfig(Strict):
    """What is learned from, besides our own statements and the contexts of our own demonstrations."""

    name: str | None = None
    """A data set with emotion labels; none when None."""
    root: str | None = None
    """Its folder."""
    valid_dialogues: float = 0.12
    """Share of its train dialogues held out to report on, by show where the id names one."""
    rows: int = 2100
    """How many of its rows an epoch sees, drawn evenly over the labels."""
    weight: float = 0.3
    """Weight of one of its rows in the loss; ours weigh 1."""


class Config(Strict):
    """How the text reader is trained."""

    seed: int = 0
    encoder: str = "multilingual-e5-small"
    data: DataConfig = DataConfig()
    rank: int = 16
    learning_rate: float = 5e-4
    epochs: int = 6
    batch_size: int = 32
    label_smoothing: float = 0.1
    valid_share: float = 0.15
    """Share of our own rows that selection uses."""


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance to learn: its words, its label and its weight in the loss."""

    text: str
    label: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run: ours to learn and to select on, the data set's to learn and to report on."""

    own: list[Row]
    own_valid: list[Row]
    other: list[Row]
    other_valid: list[Row]
    files: list[Path]


def train(config: Config, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, keep the best epoch in `out` (adapter, head, run.toml, metrics.json, curves.png), return the metrics.

    A run that was stopped goes on after its last whole epoch when it is started again with the same `out`.
    """
    import torch

    from elmd.perception.checkpoint import Checkpoint

    rows = gather(config)
    say(f"{len(rows.own)} own rows, {len(rows.own_valid)} to select on, {len(rows.other)} of {config.data.name}")
    torch.manual_seed(config.seed)
    network, optimizer = _network(config)
    schedule = _schedule(optimizer, config.epochs * _steps(config, rows))
    checkpoint = Checkpoint(out, network, optimizer, schedule)
    write_run(out, "emotion", config, rows.files)
    history = checkpoint.resume()
    for epoch in range(len(history), config.epochs):
        started = time.perf_counter()
        loss = _epoch(config, rows, network, optimizer, schedule, epoch)
        accuracy, macro = score(network, rows.own_valid)
        history.append({"loss": loss, "valid_accuracy": accuracy, "valid_macro_f1": macro})
        say(
            f"epoch {epoch + 1}/{config.epochs} loss {loss:.3f} valid macro-F1 {macro:.3f} {time.perf_counter() - started:.0f} s"
        )
        best = macro >= max(row["valid_macro_f1"] for row in history)
        checkpoint.save(history, best)
    checkpoint.load_best()
    metrics = _metrics(network, rows, history)
    write_metrics(out, metrics)
    plot_curves(out, {key: [row[key] for row in history] for key in history[0]}, "text reader")
    write_card(out, card(config), metrics)
    return metrics


def card(config: Config) -> Card:
    """What the model card of a run says."""
    other = f" and {config.data.name} (rows weighted {config.data.weight})" if config.data.name else ""
    return Card(
        title="Text reader: words to one of seven emotions",
        summary=f"A LoRA adapter (rank {config.rank}) on {config.encoder} with a linear head over its mean-pooled vector.",
        data=f"elmd's own statements and demonstrations (CC0-1.0, written for this project){other}. "
        "`valid` is the part of our own rows that chose the epoch; `held_out` are shows of the data set that were "
        "not learned from, with the majority label beside them.",
        license="Apache-2.0; the encoder is MIT. Data sets that forbid it must not be trained on for weights you publish.",
        command="elmd train emotion --recipe emotion-cped --set data.root=DIR --out runs/emotion-text",
        limits="Reads one utterance at a time, in Chinese and English. It is a guess about words, not a measure of a "
        "person, and no tool for diagnosis. On television dialogue, where the feeling is often in voice and face "
        "only, it is far weaker than on what people write about themselves.",
    )


def gather(config: Config) -> Rows:
    """Read and split the rows of a run; the same text is always in the same part."""
    own = [Row(row.text, row.emotion) for row in feelings()]
    own += [
        Row(turn.text, turn.emotion)
        for dialogue in shipped_demonstrations()
        for turn in dialogue.turns
        if turn.emotion and turn.speaker != ASSISTANT
    ]
    valid = [row for row in own if draw(row.text) < config.valid_share]
    learned = [row for row in own if draw(row.text) >= config.valid_share]
    other, other_valid, files = _other(config.data)
    return Rows(
        learned, valid, other, other_valid, [shipped("data") / "feelings.jsonl", *demonstration_files(), *files]
    )


def score(network: EmotionNetwork, rows: Sequence[Row]) -> tuple[float, float]:
    """Return accuracy and macro-F1 over EKMAN of the network on `rows`."""
    from sklearn.metrics import accuracy_score, f1_score

    if not rows:
        return 0.0, 0.0
    said = predict(network, [row.text for row in rows])
    given = [row.label for row in rows]
    macro = f1_score(given, said, labels=EKMAN, average="macro", zero_division=0.0)
    return float(accuracy_score(given, said)), float(macro)


def predict(network: EmotionNetwork, texts: Sequence[str], batch_size: int = 128) -> list[str]:
    """Return the most probable label of each text."""
    import torch

    network.encoder.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    labels = [""] * len(texts)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for i, best in zip(chosen, network([texts[j] for j in chosen]).argmax(-1).tolist(), strict=True):
                labels[i] = EKMAN[best]
    return labels


def _other(data: DataConfig) -> tuple[list[Row], list[Row], list[Path]]:
    if data.name is None:
        return [], [], []
    if data.root is None:
        raise UsageError("data.root: name the folder of the data set, --set data.root=DIR")
    root = Path(data.root)
    dialogues = list(read_dialogues(data.name, root, "train"))
    held_out = {show for show in {_show(d) for d in dialogues} if draw(show) < data.valid_dialogues}
    held_out = held_out or {min((_show(d) for d in dialogues), key=draw)}
    learned = [row for d in dialogues if _show(d) not in held_out for row in _rows(d, data.weight)]
    valid = [row for d in dialogues if _show(d) in held_out for row in _rows(d, 1.0)]
    return learned, valid, data_files(root)


def _show(dialogue: Dialogue) -> str:
    """What to hold out together: the show where an id is "<set>:<show>_<number>", so that no voice is in both parts."""
    return dialogue.origin.rsplit("_", 1)[0]


def _rows(dialogue: Dialogue, weight: float) -> list[Row]:
    return [Row(turn.text, turn.emotion, weight) for turn in dialogue.turns if turn.emotion]


def _network(config: Config) -> tuple[EmotionNetwork, Any]:
    import torch
    from peft import LoraConfig, get_peft_model

    network = EmotionNetwork(config.encoder)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=2 * config.rank,
        lora_dropout=0.1,
        target_modules=["query", "key", "value", "dense"],
        exclude_modules=["pooler.dense"],
    )
    network.encoder = get_peft_model(network.encoder, lora)
    adapter = [p for p in network.encoder.parameters() if p.requires_grad]
    groups = [
        {"params": adapter, "lr": config.learning_rate},
        {"params": list(network.head.parameters()), "lr": 4 * config.learning_rate},
    ]
    return network, torch.optim.AdamW(groups, weight_decay=0.01)


def _schedule(optimizer: Any, steps: int) -> Any:
    import torch

    warm = max(1, steps // 16)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / warm) * max(0.0, 1 - s / steps))


def _steps(config: Config, rows: Rows) -> int:
    seen = len(rows.own) + (config.data.rows if rows.other else 0)
    return seen // config.batch_size + 1


def _epoch(config: Config, rows: Rows, network: EmotionNetwork, optimizer: Any, schedule: Any, epoch: int) -> float:
    import torch
    from rich.console import Console
    from rich.progress import track

    rng = random.Random(f"{config.seed}/{epoch}")
    batches = _batches(rows.own + _balanced(rows.other, config.data.rows, rng), config.batch_size, rng)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    network.encoder.train()
    total = 0.0
    for batch in track(batches, f"epoch {epoch + 1}", console=Console(stderr=True), transient=True):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network([row.text for row in batch])
        target = torch.tensor([EKMAN.index(row.label) for row in batch])
        weight = torch.tensor([row.weight for row in batch])
        losses = torch.nn.functional.cross_entropy(
            logits.float(), target, reduction="none", label_smoothing=config.label_smoothing
        )
        loss = (losses * weight).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += loss.item()
    return total / len(batches)


def _balanced(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """Draw about `count` rows, as many of each label."""
    by_label = {label: [row for row in rows if row.label == label] for label in EKMAN}
    present = [found for found in by_label.values() if found]
    return [rng.choice(found) for found in present for _ in range(count // len(present))]


def _batches(rows: list[Row], size: int, rng: random.Random) -> list[list[Row]]:
    """Shuffle into batches of rows of like length, which saves padding."""
    rng.shuffle(rows)
    pools = [sorted(rows[i : i + 16 * size], key=lambda row: len(row.text)) for i in range(0, len(rows), 16 * size)]
    batches = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def _metrics(network: EmotionNetwork, rows: Rows, history: list[dict[str, float]]) -> dict[str, Any]:
    accuracy, macro = score(network, rows.own_valid)
    metrics: dict[str, Any] = {"valid": {"n": len(rows.own_valid), "accuracy": accuracy, "macro_f1": macro}}
    if rows.other_valid:
        accuracy, macro = score(network, rows.other_valid)
        common, f1 = majority([row.label for row in rows.other_valid])
        metrics["held_out"] = {"n": len(rows.other_valid), "accuracy": accuracy, "macro_f1": macro}
        metrics["held_out_majority"] = {"accuracy": common, "macro_f1": f1}
    return {**metrics, "epochs": history}


def majority(labels: Sequence[str]) -> tuple[float, float]:
    """Return accuracy and macro-F1 over EKMAN of always saying the most frequent label."""
    share = max(labels.count(label) for label in EKMAN) / len(labels)
    return share, 2 * share / (1 + share) / len(EKMAN)
