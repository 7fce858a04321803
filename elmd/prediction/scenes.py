"""What the transformer sees of a dialogue before a reply: its last turns, newest first. Nothing of the reply itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elmd.datasets._samples import FeatureFiles
from elmd.errors import AssetError, BadData
from elmd.labels import EKMAN
from elmd.types import Dialogue, EmotionState, Utterance

NOBODY, ASKER, ANSWERER, OTHER = range(4)
"""Who said a turn: nobody (the dialogue is shorter), the person to answer, who spoke last of the others, anyone else.

Who will really reply is part of the reply, so it is not known: it is taken to be the last other speaker.
"""

Encode = Callable[[Sequence[str]], np.ndarray]
Read = Callable[[Sequence[str]], Sequence[EmotionState]]


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """The contexts of n replies over a table of u utterances.

    Attributes:
        text: A sentence vector an utterance, (u, dimension) float32.
        emotions: Scores over EKMAN, (u, 7) float32.
        vision: Visual features, mean over the frames of an utterance, (u, width) float32; width 0: there are none.
        seen: Which utterances have visual features, (u,) bool.
        turns: Rows of the table, (n, turns) int64, the newest turn first; 0 where `roles` is NOBODY.
        roles: NOBODY, ASKER, ANSWERER or OTHER, (n, turns) int64.
    """

    text: np.ndarray
    emotions: np.ndarray
    vision: np.ndarray
    seen: np.ndarray
    turns: np.ndarray
    roles: np.ndarray

    def __len__(self) -> int:
        return len(self.turns)


def arrange(items: Sequence[Dialogue], turns: int) -> tuple[list[Utterance], np.ndarray, np.ndarray]:
    """Return the utterances that occur in the last `turns` of any item, and `Scenes.turns` and `Scenes.roles`.

    Contexts cut from one dialogue share their utterances: each is there once.
    """
    table: dict[tuple[int, int], int] = {}
    utterances: list[Utterance] = []
    places = np.zeros((len(items), turns), np.int64)
    roles = np.full((len(items), turns), NOBODY, np.int64)
    for row, item in enumerate(items):
        asker, answerer = item.last.speaker, _answerer(item)
        newest_first = range(len(item.turns) - 1, max(-1, len(item.turns) - 1 - turns), -1)
        for column, number in enumerate(newest_first):
            turn = item.turns[number]
            place = table.setdefault((id(turn), number), len(utterances))
            if place == len(utterances):
                utterances.append(turn)
            places[row, column] = place
            roles[row, column] = ASKER if turn.speaker == asker else ANSWERER if turn.speaker == answerer else OTHER
    return utterances, places, roles


def gather(items: Sequence[Dialogue], turns: int, encode: Encode, read: Read, root: Path) -> tuple[Scenes, np.ndarray]:
    """Return the contexts of replies with emotions as they are read, and the annotated emotions, (u, 7).

    Where an utterance has no annotation, what was read stands in. Feature files with relative paths start at `root`.
    """
    utterances, places, roles = arrange(items, turns)
    texts = [turn.text for turn in utterances]
    different = list(dict.fromkeys(texts))
    at = np.array([{text: i for i, text in enumerate(different)}[text] for text in texts], np.int64)
    emotions = scores(read(different))[at]
    vision, seen = look(utterances, root)
    given = emotions.copy()
    labelled = [i for i, turn in enumerate(utterances) if turn.emotion]
    given[labelled] = scores([EmotionState.of(utterances[i].emotion or "neutral") for i in labelled])
    return Scenes(np.asarray(encode(different))[at], emotions, vision, seen, places, roles), given


def scores(states: Sequence[EmotionState]) -> np.ndarray:
    """Return the scores of states over EKMAN, (n, 7) float32."""
    rows = [[state.scores[label] for label in EKMAN] for state in states]
    return np.array(rows, np.float32).reshape(len(rows), len(EKMAN))


def look(utterances: Sequence[Utterance], root: Path, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the visual features of utterances, (u, width) float32, and which have any, (u,) bool.

    Args:
        utterances: Their `features["vision"]` say where the vectors lie.
        root: Where relative paths start.
        width: What is wanted, 0 for nothing; what is found when None. Another one raises AssetError, since features of
            two extractors do not mix.
    """
    if width == 0:
        return np.zeros((len(utterances), 0), np.float32), np.zeros(len(utterances), bool)
    files = FeatureFiles(root)
    found: list[np.ndarray | None] = []
    for turn in utterances:
        place = (turn.features or {}).get("vision")
        try:
            found.append(files.load({"vision": place})["vision"].mean(0) if place else None)
        except ValueError as error:
            raise BadData(root, None, str(error)) from error
    widths = {len(row) for row in found if row is not None}
    width = width if width is not None else min(widths, default=0)
    if widths - {width}:
        raise AssetError(
            f"visual features of {max(widths - {width})} numbers where {width} are known: another extractor"
        )
    seen = np.array([row is not None for row in found], bool)
    vision = np.array([np.zeros(width, np.float32) if row is None else row for row in found], np.float32)
    return vision.reshape(len(found), width), seen


def _answerer(item: Dialogue) -> str | None:
    others = (turn.speaker for turn in reversed(item.turns) if turn.speaker != item.last.speaker)
    return next(others, None)
