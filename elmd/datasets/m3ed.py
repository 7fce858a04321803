"""M3ED: Chinese television dialogues with an emotion for every utterance (ACL 2022).

Reads the official `annotation.json`. Shows belong to a split by the official `movie_list_*.txt`.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from elmd.datasets._common import Features, Turns, check_split, cut, emotion, feature, find, read_json, read_lines, take
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Utterance

CARD = DatasetCard(
    title="M3ED",
    language="zh",
    license="academic research only",
    url="https://github.com/AIM3-RUC/RUCM3ED",
    splits=("train", "valid", "test"),
    files=("annotation.json", "movie_list_train.txt", "movie_list_val.txt", "movie_list_test.txt"),
    label_set="m3ed",
    note="the lists may lie in splitInfo/; vision_clip_vitb16.npy with its .ids.txt adds visual features",
)

_GET = "ask the authors for the data (https://github.com/AIM3-RUC/RUCM3ED), which also has the lists in splitInfo/"
_LIST = {"train": "train", "valid": "val", "test": "test"}
_FRAMES_PER_SECOND = 25
_CLOCK = re.compile(r"(\d+):(\d+):(\d+):(\d+)")


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of the split's shows, in the order of the list; ids are "m3ed:<show>_<n>".

    A bad place in the JSON is reported with its key path and no line.
    """
    checked = check_split("m3ed", split, CARD.splits)
    name = f"movie_list_{_LIST[split]}.txt"
    shows = find(root, name, f"splitInfo/{name}", get=_GET)
    path = find(root, "annotation.json", get=_GET)
    data = read_json(path, dict)
    vision = _vision(root, on_bad)
    for line, show in read_lines(shows, on_bad):
        if not isinstance(data.get(show), dict):
            on_bad(BadData(shows, line, f"show {show!r} is not in {path.name}"))
            continue
        for key, dialogue in data[show].items():
            yield from cut("m3ed", CARD, checked, key, _turns(path, f"{show}.{key}", dialogue, vision, on_bad))


def _turns(path: Path, where: str, dialogue: Any, vision: Callable[[str], Features], on_bad: OnBad) -> Turns:
    try:
        entries = take(dialogue, "Dialog", dict)
    except ValueError as error:
        on_bad(BadData(path, None, f"{where}: {error}"))
        return {}
    turns: Turns = {}
    for name, entry in entries.items():
        try:
            turns[_number(name)] = _utterance(entry, vision(name))
        except (UsageError, ValueError) as error:
            on_bad(BadData(path, None, f"{where}.Dialog.{name}: {error}"))
    return turns


def _number(name: str) -> int:
    """Return the number an utterance id ends in: as text, 10 would come before 9."""
    suffix = name.rpartition("_")[2]
    if not suffix.isdecimal():
        raise ValueError("the utterance id does not end in a number")
    return int(suffix)


def _utterance(entry: Any, features: Features) -> Utterance:
    labels = take(entry, "EmoAnnotation", dict)
    several = labels.get("final_mul_emo") or []
    # The official file joins several labels with commas; re-annotations of it hold a list.
    names = several.split(",") if isinstance(several, str) else several
    if not isinstance(names, list):
        raise ValueError(f"final_mul_emo {several!r:.60} is neither words nor a list")
    return Utterance(
        speaker=take(entry, "Speaker", str),
        text=clean(take(entry, "Text", str)),
        emotion=emotion("m3ed", labels.get("final_main_emo")),
        emotions=tuple(label for label in (emotion("m3ed", name) for name in names) if label),
        start=_seconds(entry.get("StartTime")),
        end=_seconds(entry.get("EndTime")),
        features=features,
    )


def _seconds(time: Any) -> float | None:
    """Return seconds of "h:m:s:frames" at 25 frames a second, of a number, or None for null."""
    if time is None or (isinstance(time, int | float) and not isinstance(time, bool)):
        return time
    match = _CLOCK.fullmatch(time.strip()) if isinstance(time, str) else None
    if not match:
        raise ValueError(f"time {time!r} is not hours:minutes:seconds:frames")
    hours, minutes, seconds, frames = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + frames / _FRAMES_PER_SECOND


def _vision(root: Path, on_bad: OnBad) -> Callable[[str], Features]:
    """Return what finds an utterance's row in the array; it finds none if array or ids are missing."""
    array, ids = root / "vision_clip_vitb16.npy", root / "vision_clip_vitb16.ids.txt"
    if not array.is_file() or not ids.is_file():
        return partial(feature, "vision", None, {})
    return partial(feature, "vision", array, {name: line - 1 for line, name in read_lines(ids, on_bad)})
