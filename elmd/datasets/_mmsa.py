"""MMSA's pickle: a dict of splits, each a dict of arrays with a row a clip; shared by MOSI, MOSEI, SIMS and SIMSv2."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd.datasets._common import check_split, sentiment
from elmd.datasets._samples import finite
from elmd.datasets._unpickle import read_pickle
from elmd.errors import BadData, UsageError
from elmd.files import OnBad
from elmd.text import clean
from elmd.types import MODALITIES, DatasetCard, Modality, Sample, Scale

if TYPE_CHECKING:
    import numpy as np

_ALONE: Mapping[Modality, str] = {
    "text": "regression_labels_T",
    "audio": "regression_labels_A",
    "vision": "regression_labels_V",
}
_COLUMNS = (
    *MODALITIES, "text_bert", "raw_text", "audio_lengths", "vision_lengths", "regression_labels", *_ALONE.values(),
)  # fmt: skip
_LARGEST_ID = 2**31


def samples(card: DatasetCard, root: Path, split: str, on_bad: OnBad) -> Iterator[Sample]:
    """Yield the samples of a split; `root` is a folder with one of the card's files, there or in Processed/, or the file.

    Arrays are cropped to true lengths: views of the file's arrays, which stay in memory as long as a sample does.
    """
    checked = check_split(card.title, split, card.splits)
    path = _find(card, root)
    data = read_parts(path)
    if checked not in data:
        raise UsageError(f"{path} holds no part {checked!r}; it has {', '.join(map(str, data)) or 'none'}")
    part = data[checked]
    del data  # the other parts are as large as this one
    yield from samples_of(card, path, part, on_bad)


def read_parts(path: Path) -> dict[str, Any]:
    """Return the parts of a pickle by split; raise BadData if it holds no dict."""
    data = read_pickle(path)
    if not isinstance(data, dict):
        raise BadData(path, None, f"must hold a dict of train, valid and test, found {type(data).__name__}")
    return data


def samples_of(card: DatasetCard, path: Path, part: Any, on_bad: OnBad) -> Iterator[Sample]:
    """Yield the samples of one part of a pickle; a row that cannot be one goes to `on_bad` with its id."""
    reader = _Part(card, path, part)
    seen: set[str] = set()
    for row in range(reader.rows):
        try:
            sample = reader.sample(row)
            if sample.id in seen:
                raise ValueError("it is there twice")
            seen.add(sample.id)
        except (ValueError, TypeError, OverflowError, IndexError) as error:
            on_bad(BadData(path, None, f"id {reader.ids[row]!r:.60}: {' '.join(str(error).split()):.200}"))
            continue
        yield sample


def split_id(name: str) -> tuple[str, str]:
    """Return the id "video_clip" and the video of "video$_$clip"; without the mark, the last "_" parts them."""
    if "$_$" in name:
        video, _, clip = name.partition("$_$")
        return f"{video}_{clip}", video
    return name, name.rpartition("_")[0] or name


def _find(card: DatasetCard, root: Path) -> Path:
    if root.is_file():
        return root
    places = (folder / name for name in card.files for folder in (root, root / "Processed"))
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise UsageError(f"{' or '.join(card.files)} is not under {root}; it is in the authors' release: {card.url}")
    return found


class _Part:
    """One split of a pickle, with its columns checked to have a value a row."""

    def __init__(self, card: DatasetCard, path: Path, part: Any) -> None:
        if not isinstance(part, dict) or not _has_rows(part.get("id")):
            raise BadData(path, None, "a part must be a dict with the key id; is this MMSA's format?")
        self._scale: Scale = card.scale or "mosi"
        self._language = card.language
        self.ids: Any = part["id"]
        self.rows = len(self.ids)
        self._columns = {name: part[name] for name in _COLUMNS if _has_rows(part.get(name))}
        if not {*MODALITIES, "raw_text"} & self._columns.keys():
            raise BadData(path, None, "a part has neither features nor raw_text; is this MMSA's format?")
        for name, column in self._columns.items():
            if len(column) < self.rows:  # a list of lengths may be longer: some files keep those of dropped rows
                raise BadData(path, None, f"{name} has {len(column)} rows where id has {self.rows}")

    def sample(self, row: int) -> Sample:
        name = self.ids[row]
        name, video = split_id(name.decode() if isinstance(name, bytes) else str(name))
        tokens = self._tokens(row)
        features = {kind: self._features(kind, row, tokens) for kind in MODALITIES if kind in self._columns}
        alone = {kind: self._sentiment(column, row) for kind, column in _ALONE.items()}
        return Sample(
            id=name,
            origin=video,
            text=clean(str(self._columns["raw_text"][row])) if "raw_text" in self._columns else "",
            language=self._language,
            features={kind: array for kind, array in features.items() if len(array)},
            tokens=tokens,
            sentiment=self._sentiment("regression_labels", row),
            sentiments={kind: value for kind, value in alone.items() if value is not None},
        )

    def _features(self, kind: Modality, row: int, tokens: "np.ndarray | None") -> "np.ndarray":
        import numpy as np

        frames = np.asarray(self._columns[kind][row])
        if frames.ndim != 2 or frames.dtype.kind not in "fiu":
            raise ValueError(f"{kind} has the shape {frames.shape} of {frames.dtype}, not rows of numbers")
        lengths = self._columns.get(f"{kind}_lengths")
        if kind == "text" and tokens is not None and len(tokens):
            length = len(tokens)
        elif lengths is not None:
            length = max(int(lengths[row]), 0)
        else:
            length = int(np.flatnonzero(frames.any(axis=1))[-1:].sum()) + 1 if frames.any() else 0
        return finite(frames[:length])

    def _tokens(self, row: int) -> "np.ndarray | None":
        """Return the token ids where the mask is set, or None if the file has none."""
        import numpy as np

        if "text_bert" not in self._columns:
            return None
        bert = np.asarray(self._columns["text_bert"][row])
        if bert.ndim != 2 or len(bert) < 2 or bert.dtype.kind not in "fiu":
            raise ValueError(f"text_bert has the shape {bert.shape} of {bert.dtype}, not ids, mask and segment")
        ids = bert[0, : int((bert[1] > 0).sum())]
        if not (np.isfinite(ids).all() and (ids >= 0).all() and (ids < _LARGEST_ID).all()):
            raise ValueError("text_bert has ids that are none")
        return ids.astype(np.int64)

    def _sentiment(self, column: str, row: int) -> float | None:
        return sentiment(self._columns[column][row], self._scale) if column in self._columns else None


def _has_rows(column: Any) -> bool:
    """Whether a column is a list or an array with rows."""
    return isinstance(column, list) or bool(getattr(column, "shape", ()))
