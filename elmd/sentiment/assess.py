"""Scores of trained sentiment systems on a data set: means over seeds with their spread and intervals over videos."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from torch import Tensor

from elmd.errors import UsageError
from elmd.sentiment.batch import Table
from elmd.sentiment.metrics import Result, circumplex_result, class_result, sentiment_result
from elmd.sentiment.system import FACTS, Predictor, outputs
from elmd.types import Modality, Sample


def seed_folders(checkpoint: Path) -> list[Path]:
    """Return the trained systems of a run's folder, or the folder itself if it is one seed's."""
    found = sorted(path.parent for path in checkpoint.glob(f"seed-*/{FACTS}"))
    if not found and not (checkpoint / FACTS).is_file():
        raise UsageError(f"{checkpoint} holds no trained sentiment model; train one: elmd train sentiment --out DIR")
    return found or [checkpoint]


def subsets(checkpoint: Path) -> list[tuple[Modality, ...]]:
    """Return every proper, non-empty subset of the modalities that a run reads, small ones first."""
    reads = Predictor(seed_folders(checkpoint)[0]).config.data.modalities
    return [subset for size in range(1, len(reads)) for subset in combinations(reads, size)]


def assess(checkpoint: Path, samples: Sequence[Sample], modalities: Sequence[Modality] | None = None) -> Result:
    """Score every seed of a run on samples; with `modalities`, as if the others were missing."""
    predicted: dict[str, Tensor] = {}
    table: Table | None = None
    for folder in seed_folders(checkpoint):
        predictor = Predictor(folder)
        if table is None or predictor.loader.tuned:
            table = predictor.loader.table(samples)
        shown = table.only(modalities) if modalities else table
        predicted[folder.name.removeprefix("seed-")] = outputs(predictor.system, shown, predictor.device)
    assert table is not None
    return result_of(predicted, table)


def result_of(predicted: Mapping[str, Tensor], table: Table) -> Result:
    """Return the scores of the outputs of some seeds, (n, target.outputs) each, on a table."""
    target, origins = table.target, table.origins
    known = target.known(table.labels)
    if not known.any():
        raise UsageError(f"none of these samples has a label for {target.name}")
    if target.labels:
        given = [target.labels[int(row[0])] if ok else None for row, ok in zip(table.labels, known, strict=True)]
        said = {seed: [str(label) for label in target.decode(rows)] for seed, rows in predicted.items()}
        return class_result(said, given, origins, target.labels)
    numbers = {seed: rows.numpy() for seed, rows in predicted.items()}
    if target.name == "valence_arousal":
        return circumplex_result(numbers, table.labels.numpy(), origins)
    flat = {seed: rows[:, 0] for seed, rows in numbers.items()}
    return sentiment_result(flat, table.labels[:, 0].numpy(), origins, target.scale)
