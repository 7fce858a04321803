"""Emotion labels: Ekman's seven, polarity, valence–arousal–dominance, each data set's own set, and the maps between them.

Every map is by name, never by index: projects order the same labels differently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import dist
from typing import NamedTuple

from elmd.errors import UnknownName, UsageError

EKMAN: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""Ekman's six basic emotions as nouns, plus neutral; alphabetical, the order of every score vector in elmd."""

POLARITY: tuple[str, ...] = ("negative", "neutral", "positive")


class VAD(NamedTuple):
    """A point in valence–arousal–dominance space, each axis in [-1, 1]."""

    valence: float
    arousal: float
    dominance: float


VAD_OF: Mapping[str, VAD] = {
    "anger": VAD(-0.51, 0.59, 0.25),
    "disgust": VAD(-0.60, 0.35, 0.11),
    "fear": VAD(-0.64, 0.60, -0.43),
    "happiness": VAD(0.81, 0.51, 0.46),
    "neutral": VAD(0.0, 0.0, 0.0),
    "sadness": VAD(-0.63, -0.27, -0.33),
    "surprise": VAD(0.40, 0.67, -0.13),
}
"""Mean ratings of the emotion words (Russell and Mehrabian 1977, "Evidence for a three-factor theory of emotions")."""

_POLARITY_OF: Mapping[str, str] = {
    "anger": "negative", "disgust": "negative", "fear": "negative", "sadness": "negative",
    "happiness": "positive", "neutral": "neutral", "surprise": "neutral",
}  # fmt: skip

_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {label: label for label in EKMAN},
    "zh": {
        "anger": "愤怒", "disgust": "厌恶", "fear": "恐惧", "happiness": "快乐",
        "neutral": "平静", "sadness": "悲伤", "surprise": "惊讶",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A data set's own labels and where each goes among Ekman's seven.

    `ekman` maps each label to a name in EKMAN, or to None where the set's label has no counterpart
    (such an utterance keeps no emotion rather than a wrong one). `polarity` overrides what the
    Ekman label implies, for labels that have none.
    """

    name: str
    ekman: Mapping[str, str | None]
    polarity: Mapping[str, str] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The set's labels in the order its authors list them."""
        return tuple(self.ekman)

    def to_ekman(self, label: str) -> str | None:
        """Map one of the set's labels to Ekman's seven, ignoring case and outer blanks; raise UnknownName.

        Ekman's own nouns stand for themselves in every set (CPED's files write "sadness" for its list's "sad").
        """
        key = label.strip().casefold()
        if key in self.ekman:
            return self.ekman[key]
        if key in EKMAN:
            return key
        raise UnknownName(f"{self.name} emotion label", label, self.ekman)

    def to_polarity(self, label: str) -> str:
        """Map one of the set's labels to negative, neutral or positive."""
        ekman = self.to_ekman(label)
        key = label.strip().casefold()
        if self.polarity and key in self.polarity:
            return self.polarity[key]
        return polarity(ekman) if ekman else "neutral"


LABEL_SETS: Mapping[str, LabelSet] = {
    s.name: s
    for s in (
        LabelSet("ekman", {label: label for label in EKMAN}),
        LabelSet("m3ed", {
            "happy": "happiness", "neutral": "neutral", "sad": "sadness", "disgust": "disgust",
            "anger": "anger", "fear": "fear", "surprise": "surprise",
        }),
        LabelSet("emotiontalk", {
            "neutral": "neutral", "angry": "anger", "happy": "happiness", "surprised": "surprise",
            "disgusted": "disgust", "sad": "sadness", "fearful": "fear",
        }),
        LabelSet("meld", {
            "neutral": "neutral", "joy": "happiness", "surprise": "surprise", "anger": "anger",
            "sadness": "sadness", "disgust": "disgust", "fear": "fear",
        }),
        LabelSet(
            "cped",
            {
                "happy": "happiness", "grateful": "happiness", "relaxed": "happiness", "positive-other": "happiness",
                "neutral": "neutral", "anger": "anger", "sad": "sadness", "fear": "fear", "depress": "sadness",
                "disgust": "disgust", "astonished": "surprise", "worried": "fear", "negative-other": None,
            },
            {"negative-other": "negative"},
        ),
        LabelSet("esconv", {
            "anger": "anger", "anxiety": "fear", "depression": "sadness", "disgust": "disgust", "fear": "fear",
            "nervousness": "fear", "sadness": "sadness", "shame": "sadness", "guilt": "sadness", "pain": "sadness",
            "jealousy": "anger",
        }),
        LabelSet("ravdess", {
            "neutral": "neutral", "calm": "neutral", "happy": "happiness", "sad": "sadness", "angry": "anger",
            "fearful": "fear", "disgust": "disgust", "surprised": "surprise",
        }),
    )
}  # fmt: skip
"""The label sets elmd reads, by data set name."""


def check_label(label: str) -> str:
    """Return `label` if it is one of EKMAN, else raise UnknownName with the nearest."""
    if label not in EKMAN:
        raise UnknownName("emotion", label, EKMAN)
    return label


def polarity(label: str) -> str:
    """Return negative, neutral or positive for one of EKMAN; surprise is neutral, as it goes either way."""
    return _POLARITY_OF[check_label(label)]


def polarity_of_sentiment(value: float) -> str:
    """Return the polarity of a sentiment score by its sign; exactly 0 is neutral (the MSA field's convention)."""
    return "neutral" if value == 0 else "positive" if value > 0 else "negative"


def nearest_label(point: VAD) -> str:
    """Return the Ekman label whose VAD point is nearest to `point` in Euclidean distance."""
    return min(EKMAN, key=lambda label: dist(VAD_OF[label], point))


def mean_vad(scores: Mapping[str, float]) -> VAD:
    """Return the mean VAD point of an emotion distribution (scores over EKMAN that sum to 1)."""
    columns = zip(*(tuple(p * axis for axis in VAD_OF[check_label(label)]) for label, p in scores.items()), strict=True)
    return VAD(*(sum(column) for column in columns))


def word_for(label: str, language: str) -> str:
    """Return the everyday word for an Ekman label in `language` ("zh" or "en")."""
    if language not in _WORDS:
        raise UsageError(f"no emotion words for language {language!r}; known: {', '.join(_WORDS)}")
    return _WORDS[language][check_label(label)]
