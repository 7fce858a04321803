"""`label.csv`: words and sentiment of each clip with its split, as the sentiment sets are passed on without features."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from elmd.datasets._common import check_split, find, read_csv, sentiment
from elmd.errors import BadData, UsageError
from elmd.files import OnBad
from elmd.text import clean
from elmd.types import DatasetCard, Modality, Sample

FILE = "label.csv"
_HEADER = ("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode")
_ALSO = {"dev": "valid", "val": "valid"}
_ALONE: dict[str, Modality] = {"label_T": "text", "label_A": "audio", "label_V": "vision"}


def samples(card: DatasetCard, root: Path, split: str, on_bad: OnBad) -> Iterator[Sample]:
    """Yield the samples of a split in file order; a row is named by `id`, or by `video_id` and `clip_id`.

    A file without a header has the columns of CH-SIMS. Raises UsageError if there is no row of the split.
    """
    checked = check_split(card.title, split, card.splits)
    path = root if root.is_file() else find(root, FILE, get=f"it is in the authors' release: {card.url}")
    modes: Counter[str] = Counter()
    seen: set[str] = set()
    for line, row in read_csv(path, ("text", "label", "mode"), on_bad, header=_HEADER):
        mode = row["mode"].strip().casefold()
        mode = _ALSO.get(mode, mode)
        modes[mode] += 1
        try:
            if mode not in card.splits:
                raise ValueError(f"mode {row['mode']!r} is not one of {', '.join(card.splits)}")
            if mode == checked:
                yield _sample(card, row, seen)
        except ValueError as error:
            on_bad(BadData(path, line, str(error)))
    if not modes[checked]:
        raise UsageError(f"{path} holds no rows of {checked!r}; it has {', '.join(sorted(modes)) or 'none'}")


def _sample(card: DatasetCard, row: dict[str, str], seen: set[str]) -> Sample:
    name, video = _name(row)
    if name in seen:
        raise ValueError(f"id {name!r} is there twice")
    seen.add(name)
    scale = card.scale or "mosi"
    alone = {kind: sentiment(row[column], scale) for column, kind in _ALONE.items() if column in row}
    return Sample(
        id=name,
        origin=video,
        text=clean(row["text"]),
        language=card.language,
        sentiment=sentiment(row["label"], scale),
        sentiments={kind: value for kind, value in alone.items() if value is not None},
    )


def _name(row: dict[str, str]) -> tuple[str, str]:
    """Return the id "<video>_<clip>" of a row, and the video."""
    if "id" in row:
        name = row["id"].strip()
        return name, name.rpartition("_")[0] or name
    video, clip = row.get("video_id", "").strip(), row.get("clip_id", "").strip()
    if not video or not clip:
        raise ValueError("the row has neither an id nor a video_id and clip_id")
    return f"{video}_{clip}", video
