"""Samples for sentiment analysis: made from dialogues, written as JSON lines with one tensor file, and read again."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from elmd.errors import BadData, ElmdError, UsageError
from elmd.files import OnBad, read_jsonl, write_jsonl
from elmd.text import clean, detect_language
from elmd.types import MODALITIES, Dialogue, FeatureRow, Language, Media, Modality, Sample, Split, Utterance

if TYPE_CHECKING:
    import numpy as np

Sentiment = Annotated[float, Field(allow_inf_nan=False)]


class SampleRow(BaseModel):
    """A line of sample JSONL. `features` say where the vectors lie; a relative path starts at the file of the line."""

    id: str
    origin: str | None = None
    text: str = ""
    language: Language | None = None
    split: Split | None = None
    sentiment: Sentiment | None = None
    sentiments: dict[Modality, Sentiment] = {}
    emotion: str | None = None
    media: Media | None = None
    tokens: list[int] | None = None
    features: dict[Modality, FeatureRow] = {}


class FeatureFiles:
    """The feature files that rows point at, each opened once.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrays: dict[tuple[str, str], Any] = {}

    def load(self, features: Mapping[Any, FeatureRow] | None) -> dict[Modality, "np.ndarray"]:
        """Return the vectors by modality, (rows, width) float32; raise ValueError where a row is not there."""
        return {kind: self._rows(kind, place) for kind, place in (features or {}).items() if kind in MODALITIES}

    def _rows(self, kind: Modality, place: FeatureRow) -> "np.ndarray":
        key = (place.file, kind)
        if key not in self._arrays:
            self._arrays[key] = _open(self._folder / place.file, kind)
        array, end = self._arrays[key], place.row + place.rows
        if place.row < 0 or place.rows < 1 or end > len(array):
            raise ValueError(f"{kind}: rows {place.row} to {end} are not in {place.file}, which has {len(array)}")
        return finite(array[place.row : end])


def finite(values: Any) -> "np.ndarray":
    """Return an array as float32, with 0 for what is no finite number; a view where nothing had to change."""
    import numpy as np

    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32)
    return array if np.isfinite(array).all() else np.where(np.isfinite(array), array, np.float32(0))


def of_dialogues(dialogues: Iterable[Dialogue], root: Path, on_bad: OnBad) -> Iterator[Sample]:
    """Yield every utterance with words as a sample "<dialogue id>#<turn>"; feature paths start at `root`."""
    files = FeatureFiles(root if root.is_dir() else root.parent)
    for dialogue in dialogues:
        for number, turn in enumerate(dialogue.turns):
            try:
                if turn.text:
                    yield _of_turn(dialogue, number, turn, files)
            except BadData as problem:
                on_bad(problem)
            except ValueError as error:
                on_bad(BadData(root, None, f"id {dialogue.id}#{number}: {error}"))


def _of_turn(dialogue: Dialogue, number: int, turn: Utterance, files: FeatureFiles) -> Sample:
    return Sample(
        id=f"{dialogue.id}#{number}",
        origin=dialogue.origin,
        text=turn.text,
        language=dialogue.language or "zh",
        features=files.load(turn.features),
        emotion=turn.emotion,
        media=turn.media,
    )


def read_rows(path: Path, split: str, on_bad: OnBad, *, mixed: bool) -> Iterator[Sample]:
    """Yield the samples of a JSONL file that belong to `split`: a line with "turns" is a dialogue, any other a sample.

    A row of another split is passed over in a `mixed` file, and bad in one that holds a single split.
    """
    files, seen = FeatureFiles(path.parent), set[str]()
    for number, row in read_jsonl(path, on_bad):
        try:
            found = _of_row(row, split, mixed, files)
            for sample in found:
                _check_new(sample.id, seen)
                yield sample
        except ValidationError as error:
            on_bad(BadData(path, number, _first_reason(error)))
        except BadData as problem:
            on_bad(problem)
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, number, str(error)))


def _of_row(row: dict[str, Any], split: str, mixed: bool, files: FeatureFiles) -> list[Sample]:
    item = _dialogues().validate_python(row) if "turns" in row else SampleRow.model_validate(row)
    if item.split not in (None, split):
        if not mixed:
            raise ValueError(f"id {item.id!r} says split {item.split!r} in a file of {split!r}")
        return []
    if isinstance(item, Dialogue):
        return [_of_turn(item, number, turn, files) for number, turn in enumerate(item.turns) if turn.text]
    return [_of_sample(item, files)]


def _of_sample(row: SampleRow, files: FeatureFiles) -> Sample:
    import numpy as np

    from elmd.labels import check_label

    return Sample(
        id=row.id,
        origin=row.origin or row.id,
        text=clean(row.text),
        language=row.language or detect_language(row.text),
        features=files.load(row.features),
        tokens=None if row.tokens is None else np.array(row.tokens, np.int64),
        sentiment=row.sentiment,
        sentiments=row.sentiments,
        emotion=row.emotion and check_label(row.emotion),
        media=row.media,
    )


def _check_new(name: str, seen: set[str]) -> None:
    if name in seen:
        raise ValueError(f"id {name!r} is there twice")
    seen.add(name)


def write_samples(path: Path, samples: Iterable[Sample], split: str | None = None) -> int:
    """Write samples as JSON lines, and their vectors in one .safetensors file beside it; return how many.

    The tensors "text", "audio" and "vision" are (all frames, width) float32: a row says where its own lie. Each file
    is written as a whole or not at all. Raises UsageError where samples differ in the width of a modality.
    """
    tensors = path.with_suffix(".safetensors")
    if tensors == path:
        raise UsageError(f"{path}: name the JSON lines file; the vectors go beside it")
    parts: dict[Modality, list[Any]] = {kind: [] for kind in MODALITIES}
    ends = dict.fromkeys(MODALITIES, 0)
    rows = [_to_row(sample, split, tensors.name, parts, ends) for sample in samples]
    if any(parts.values()):
        _save(tensors, parts)
    return write_jsonl(path, rows)


def _to_row(
    sample: Sample,
    split: str | None,
    file: str,
    parts: dict[Modality, list[Any]],
    ends: dict[Modality, int],
) -> dict[str, Any]:
    places = {}
    for kind, array in sample.features.items():
        if parts[kind] and parts[kind][0].shape[1] != array.shape[1]:
            raise UsageError(f"id {sample.id!r}: {kind} is {array.shape[1]} wide, before {parts[kind][0].shape[1]}")
        places[kind] = FeatureRow(file, ends[kind], len(array))
        parts[kind].append(array)
        ends[kind] += len(array)
    row = {
        "id": sample.id,
        "origin": sample.origin,
        "split": split,
        "language": sample.language,
        "text": sample.text,
        "sentiment": sample.sentiment,
        "sentiments": dict(sample.sentiments),
        "emotion": sample.emotion,
        "media": sample.media,
        "tokens": None if sample.tokens is None else sample.tokens.tolist(),
        "features": places,
    }
    return {key: value for key, value in row.items() if value is not None and value != {}}


def _save(path: Path, parts: dict[Modality, list[Any]]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({kind: np.concatenate(arrays) for kind, arrays in parts.items() if arrays}, partial)
        partial.replace(path)
    except OSError as error:
        raise ElmdError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path, kind: Modality) -> Any:
    """Return a feature file as something 2-D to cut rows from."""
    try:
        array = _numbers(path) if path.suffix == ".txt" else _tensor(path, kind)
    except Exception as error:  # each library has its own errors for a damaged file
        raise BadData(path, None, f"cannot be read as features ({' '.join(str(error).split()):.200})") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise BadData(path, None, f"must hold rows of numbers, found shape {array.shape} of {array.dtype}")
    return array


def _tensor(path: Path, kind: Modality) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(kind)
    import numpy as np

    return np.load(path, mmap_mode="r")


def _numbers(path: Path) -> Any:
    """Read a text file of a key and numbers a line; a line that does not fit becomes zeros, and no row points at it."""
    import numpy as np

    lines = [line.split()[1:] for line in path.read_text(encoding="utf-8-sig").split("\n")]
    width = max(map(len, lines), default=0)
    return np.array([line if len(line) == width else ["0"] * width for line in lines], np.float32)


@cache
def _dialogues() -> TypeAdapter[Dialogue]:
    return TypeAdapter(Dialogue)


def _first_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
