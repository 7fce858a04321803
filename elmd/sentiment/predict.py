"""A trained sentiment system on samples that are at hand: one utterance, or a file of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elmd.errors import BadData, UsageError
from elmd.sentiment.assess import seed_folders
from elmd.sentiment.system import Predictor
from elmd.text import detect_language
from elmd.types import Modality, Sample


def best_folder(checkpoint: Path) -> Path:
    """Return the folder of the seed that was best on valid, or the folder itself if it is one seed's."""
    folders = seed_folders(checkpoint)
    path = checkpoint / "metrics.json"
    best = json.loads(path.read_text(encoding="utf-8"))["best_seed"] if path.is_file() else None
    return next((folder for folder in folders if folder.name == f"seed-{best}"), folders[0])


def judge(checkpoint: Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return a row a sample: its id, what the best seed of a run says, and for classes the score of each.

    Raises UsageError for a sample that has nothing of what the system reads.
    """
    predictor = Predictor(best_folder(checkpoint))
    for sample in samples:
        if not predictor.reads(sample):
            wanted = ", ".join(predictor.config.data.modalities)
            raise UsageError(
                f"{sample.id}: nothing to judge; this system reads {wanted} (text as {predictor.config.data.text})"
            )
    found = predictor.outputs(samples)
    rows = []
    for sample, value, output in zip(samples, predictor.target.decode(found), found, strict=True):
        row: dict[str, Any] = {"id": sample.id, predictor.target.name: value}
        if predictor.target.labels:
            row["scores"] = dict(zip(predictor.target.labels, output.softmax(-1).tolist(), strict=True))
        rows.append(row)
    return rows


def sample_of(
    text: str = "", words: Path | None = None, audio: Path | None = None, vision: Path | None = None
) -> Sample:
    """Return one utterance as a sample: its words, and files of vectors where there are any."""
    files: dict[Modality, Path | None] = {"text": words, "audio": audio, "vision": vision}
    features = {m: read_vectors(path) for m, path in files.items() if path is not None}
    return Sample("input", "input", text, detect_language(text), features)


def read_vectors(path: Path) -> np.ndarray:
    """Return the vectors of a .npy or .safetensors file as (frames, width) float32; one vector counts as one frame.

    Raises BadData if the file is something else, or holds other than one or two dimensions or what is not a number.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".safetensors":
            (values,) = load_file(path).values()
        else:
            values = np.load(path, allow_pickle=False)
        vectors = np.atleast_2d(np.asarray(values, np.float32))
    except (ValueError, TypeError, EOFError, SafetensorError) as error:
        raise BadData(path, None, f"not one array of numbers in .npy or .safetensors ({error})") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise BadData(path, None, "must hold (frames, width) finite numbers")
    return vectors
