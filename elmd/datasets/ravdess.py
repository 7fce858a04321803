"""RAVDESS: 24 actors say two English sentences in eight emotions; recordings, or one audio vector each.

Two layouts: the official recordings, which name everything in their file names, or the feature arrays X.npy, y.npy.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd.datasets._common import check_split, emotion, find, part_of
from elmd.datasets._samples import finite
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.types import DatasetCard, Media, Sample, Split

if TYPE_CHECKING:
    import numpy as np

CARD = DatasetCard(
    title="RAVDESS, speech",
    language="en",
    license="CC BY-NC-SA 4.0",
    url="https://zenodo.org/records/1188976",
    splits=("train", "valid", "test"),
    files=("X.npy", "y.npy"),
    label_set="ravdess",
    note="or the recordings 03-01-06-01-02-01-12.wav …, also in Actor_01/ …: actors 1-18 are train, 19-21 valid, 22-24 "
    "test; the arrays name no actors, so their rows are split 8 : 1 : 1 by a hash and share voices",
)

_NAME = re.compile(r"(\d\d)-(\d\d-\d\d-\d\d-\d\d-\d\d-\d\d)")
_SUFFIXES = (".wav", ".mp4")
_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""The order of the codes 01 to 08 and of the columns of y.npy."""
_STATEMENTS = ("Kids are talking by the door.", "Dogs are sitting by the door.")
_SPEECH, _SOUND_ONLY = 1, 3
_ACTORS = 24
_WIDTH = 193


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split, from the recordings if there are any; songs are passed over."""
    checked = check_split("ravdess", split, CARD.splits)
    paths = sorted(path for path in root.rglob("*") if path.suffix.casefold() in _SUFFIXES)
    return _recordings(paths, checked, on_bad) if paths else _vectors(root, checked, on_bad)


def _recordings(paths: list[Path], split: Split, on_bad: OnBad) -> Iterator[Sample]:
    """Yield a sample for each recording; one that lies as sound and as video has both in its media."""
    found: dict[str, Sample] = {}
    for path in paths:
        try:
            sample = _recording(path)
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, None, str(error)))
            continue
        if sample is None or _split_of(sample.origin) != split:
            continue
        before = found.get(sample.id)
        found[sample.id] = replace(before, media=_both(before.media, sample.media)) if before else sample
    yield from found.values()


def _recording(path: Path) -> Sample | None:
    """Return what the name of a recording says, or None for a song."""
    match = _NAME.fullmatch(path.stem)
    if not match:
        raise ValueError("the name is not modality-channel-emotion-intensity-statement-repetition-actor")
    modality, (channel, feeling, _, statement, _, actor) = int(match[1]), map(int, match[2].split("-"))
    known = 1 <= modality <= _SOUND_ONLY and 1 <= feeling <= len(_EMOTIONS)
    if not known or not 1 <= statement <= len(_STATEMENTS) or not 1 <= actor <= _ACTORS:
        raise ValueError("the name has a number that RAVDESS does not define")
    if channel != _SPEECH:
        return None
    sound = modality == _SOUND_ONLY
    return Sample(
        id=match[2],
        origin=f"actor_{actor:02}",
        text=_STATEMENTS[statement - 1],
        emotion=emotion("ravdess", _EMOTIONS[feeling - 1]),
        media=Media(audio=str(path)) if sound else Media(video=str(path)),
    )


def _both(first: Media | None, second: Media | None) -> Media:
    """Join the media of one recording; video with sound, which comes first, goes before video without."""
    first, second = first or Media(), second or Media()
    return Media(video=first.video or second.video, audio=first.audio or second.audio)


def _split_of(actor: str) -> Split:
    number = int(actor.rpartition("_")[2])
    return "train" if number <= 18 else "valid" if number <= 21 else "test"


def _vectors(root: Path, split: Split, on_bad: OnBad) -> Iterator[Sample]:
    get = f"get the recordings from {CARD.url}"
    vectors, labels = (_array(find(root, name, get=get), width) for name, width in (("X.npy", _WIDTH), ("y.npy", 8)))
    if len(vectors) != len(labels):
        raise BadData(root / "y.npy", None, f"{len(labels)} rows where X.npy has {len(vectors)}")
    for row, (vector, label) in enumerate(zip(vectors, labels, strict=True)):
        name = f"row_{row:04}"
        if part_of(f"ravdess:{name}") != split:
            continue
        if sorted(label.tolist()) != [0] * 7 + [1]:
            on_bad(BadData(root / "y.npy", None, f"row {row} is not one-hot"))
            continue
        feeling = emotion("ravdess", _EMOTIONS[int(label.argmax())])
        yield Sample(id=name, origin=name, features={"audio": finite(vector[None])}, emotion=feeling)


def _array(path: Path, width: int) -> "np.ndarray":
    import numpy as np

    try:
        array: Any = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise BadData(path, None, f"cannot be read as an array ({' '.join(str(error).split()):.200})") from error
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "fiu":
        raise BadData(path, None, f"must be (rows, {width}) numbers, found {array.shape} of {array.dtype}")
    return array  # type: ignore[no-any-return]
