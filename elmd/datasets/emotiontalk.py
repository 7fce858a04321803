"""EmotionTalk: acted Chinese dialogues of two, with emotions judged from text, voice, face and all together.

An utterance's emotion is the label judged from all modalities (`mm.csv`). Its id is group_session_speaker_turn:
the first two fields name the dialogue, the last orders it. elmd reads it where the ELMD paper used MMED.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from elmd.datasets._common import Turns, add, check_split, cut, emotion, find, read_csv, read_lines
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Dialogue, Media, Utterance

CARD = DatasetCard(
    title="EmotionTalk",
    language="zh",
    license="CC-BY-NC-SA-4.0",
    url="https://github.com/NKU-HLT/EmotionTalk",
    splits=("train", "valid", "test"),
    files=("transcription.csv", "mm.csv", "split_train.txt", "split_val.txt", "split_test.txt"),
    label_set="emotiontalk",
    note="stands in for MMED; clips are used where the paths of mm.csv exist under the root",
)

_GET = "EmotionTalk comes from https://github.com/NKU-HLT/EmotionTalk (docs/data.md says how to lay it out)"
_LIST = {"train": "train", "valid": "val", "test": "test"}
# Marks of overlapping speech and sounds: [over/] [/over] [interrupted] [laughing] … Some lack a bracket, as in
# "[over/你]" or "/over]", and leave one behind. A sound is no word, and its name would give the emotion away.
_MARK = re.compile(
    r"\[+/?over/?\]?|/?over/?\]|\[/?(?:interrupted|laughing|sobbing|crying|screaming)\]|[\[\]]", re.IGNORECASE
)
_WORD = re.compile(r"\w")


def read(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Dialogue]:
    """Yield the dialogues of a split; ids are "emotiontalk:<group>_<session>", "~n" added where turns are missing."""
    checked = check_split("emotiontalk", split, CARD.splits)
    listed = find(root, f"split_{_LIST[split]}.txt", get=_GET)
    texts, labels = find(root, "transcription.csv", get=_GET), find(root, "mm.csv", get=_GET)
    text_of = {_stem(row["name"]): row["chinese"] for _, row in read_csv(texts, ("name", "chinese"), on_bad)}
    label_of = {
        _stem(row["file_name"]): (line, row) for line, row in read_csv(labels, ("file_name", "emotion"), on_bad)
    }
    dialogues: dict[str, Turns] = {}
    for line, name in read_lines(listed, on_bad):
        label_line, label = label_of.get(name, (None, {"file_name": "", "emotion": ""}))
        try:
            felt = emotion("emotiontalk", label["emotion"])
        except UsageError as error:
            on_bad(BadData(labels, label_line, str(error)))
            continue
        try:
            dialogue, speaker, number = _place(name)
            if name not in text_of:
                raise ValueError(f"{name} is not in {texts.name}")
            media = _media(root, label["file_name"])
            add(dialogues, dialogue, number, Utterance(speaker, _words(text_of[name]), felt, media=media))
        except ValueError as error:
            on_bad(BadData(listed, line, str(error)))
    for key, turns in dialogues.items():
        yield from cut("emotiontalk", CARD, checked, key, turns)


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _place(name: str) -> tuple[str, str, int]:
    """Return (dialogue, speaker, number) of an utterance id."""
    fields = name.split("_")
    if len(fields) != 4 or not fields[3].isdecimal():
        raise ValueError(f"{name!r} is not group_session_speaker_turn")
    return f"{fields[0]}_{fields[1]}", fields[2], int(fields[3])


def _words(text: str) -> str:
    """Return what was said without the transcribers' marks; "" if no word is left."""
    words = clean(_MARK.sub("", text))
    return words if _WORD.search(words) else ""


def _media(root: Path, file: str) -> Media | None:
    path = root / file
    return Media(video=str(path.absolute())) if file and path.is_file() else None
