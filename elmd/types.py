"""The frozen dataclasses that pass between the rooms: every hop of a turn hands on one of these.

The JSON lines elmd reads and writes have the same field names (see `elmd.files`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import isclose
from typing import TYPE_CHECKING, Literal

from elmd.labels import EKMAN, check_label, mean_vad
from elmd.text import detect_language

if TYPE_CHECKING:
    import numpy as np

Language = Literal["zh", "en"]
Split = Literal["train", "valid", "test"]
Modality = Literal["text", "audio", "vision"]
MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")
Source = Literal["text", "audio", "vision", "fused", "given"]
Scale = Literal["mosi", "sims"]
ASSISTANT = "elmd"
"""The speaker name of elmd's own turns."""
CONTEXT_TURNS = 3
"""How many utterances of the last speaker stand for a context at most, in an index and in a query alike."""


@dataclass(frozen=True, slots=True)
class EmotionState:
    """An emotion as a distribution over Ekman's seven labels, where it was read and when.

    Attributes:
        label: The arg-max label.
        scores: Probability of every label of EKMAN; they sum to 1.
        source: What it was read from; "given" means it was annotated or said by the person.
        start, end: Seconds into the recording, or None for text.
    """

    label: str
    scores: Mapping[str, float]
    source: Source = "text"
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        check_label(self.label)
        if set(self.scores) != set(EKMAN):
            raise ValueError(f"scores must name exactly {', '.join(EKMAN)}")
        if not isclose(sum(self.scores.values()), 1.0, abs_tol=1e-3):
            raise ValueError(f"scores must sum to 1, not {sum(self.scores.values()):.4f}")
        if self.scores[self.label] < max(self.scores.values()) - 1e-9:
            raise ValueError(f"label {self.label!r} is not the most probable one")

    @property
    def valence(self) -> float:
        """Mean valence of the distribution, in [-1, 1]."""
        return mean_vad(self.scores).valence

    @classmethod
    def of(cls, label: str, source: Source = "given") -> "EmotionState":
        """Make a certain state: all probability on `label`."""
        return cls(label, {name: float(name == check_label(label)) for name in EKMAN}, source)

    @classmethod
    def from_scores(cls, scores: Mapping[str, float], source: Source = "text") -> "EmotionState":
        """Make a state from non-negative weights over EKMAN, normalising them."""
        total = sum(scores.values())
        shares = {name: float(scores.get(name, 0.0)) / total for name in EKMAN}
        return cls(max(EKMAN, key=lambda name: shares[name]), shares, source)


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a clip: what each modality says there, the fused state, and the words if it is an utterance."""

    start: float
    end: float
    emotion: EmotionState
    modalities: Mapping[Modality, EmotionState]
    text: str = ""
    language: Language | None = None


@dataclass(frozen=True, slots=True)
class Perceived:
    """What was perceived of a clip.

    Attributes:
        duration: Seconds; 0 for a picture.
        utterances: What was said, each with its states.
        timeline: A moment every second in which there was something to read.
        missing: Why a modality is not there, a line each.
        emotion: The state of the whole clip, fused from the whole of each modality; None if nothing could be read.
        modalities: The state of the whole clip in each modality.
    """

    duration: float
    utterances: tuple[Moment, ...]
    timeline: tuple[Moment, ...]
    missing: tuple[str, ...]
    emotion: EmotionState | None
    modalities: Mapping[Modality, EmotionState]

    @property
    def text(self) -> str:
        """All that was said."""
        joint = "" if self.utterances and self.utterances[0].language == "zh" else " "
        return joint.join(moment.text for moment in self.utterances)


@dataclass(frozen=True, slots=True)
class Media:
    """Paths of the recordings of one utterance."""

    video: str | None = None
    audio: str | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """Where precomputed feature vectors lie: `rows` rows from row `row` on, of the array file `file`."""

    file: str
    row: int
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one speaker said at once. `emotion` is an annotated Ekman label; `start` and `end` are seconds."""

    speaker: str
    text: str
    emotion: str | None = None
    emotions: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    media: Media | None = None
    features: Mapping[str, FeatureRow] | None = None

    def __post_init__(self) -> None:
        for label in (self.emotion, *self.emotions):
            if label is not None and label not in EKMAN:
                raise ValueError(f"emotion {label!r} is not one of {', '.join(EKMAN)}")


def context_text(turns: Sequence[Utterance]) -> str:
    """Return the words that stand for a context when it is encoded: what the last speaker said since it was their turn.

    At most CONTEXT_TURNS utterances, a line each. Earlier turns are left out: with them, contexts of like length and
    shape come out near, whatever they are about.
    """
    closing = list(takewhile(lambda turn: turn.speaker == turns[-1].speaker, reversed(turns)))
    return "\n".join(turn.text for turn in reversed(closing[:CONTEXT_TURNS]))


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue, or the turns before a reply together with the `reference` reply that was given.

    An id may end in "~n" (the n-th unbroken stretch of a dialogue) and "#i" (the reply at turn i);
    `origin` is the id without them, so that retrieval can leave out a query's own dialogue.
    """

    id: str
    turns: tuple[Utterance, ...]
    language: Language | None = None
    split: Split | None = None
    reference: str | None = None
    reference_emotion: str | None = None
    topic: str | None = None
    license: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError("a dialogue needs at least one turn")
        if self.reference_emotion is not None and self.reference_emotion not in EKMAN:
            raise ValueError(f"reference_emotion {self.reference_emotion!r} is not one of {', '.join(EKMAN)}")
        if self.language is None:
            object.__setattr__(self, "language", detect_language(" ".join(t.text for t in self.turns)))

    @property
    def last(self) -> Utterance:
        """The turn to reply to."""
        return self.turns[-1]

    @property
    def origin(self) -> str:
        """The id of the dialogue this was cut from."""
        return self.id.split("#", 1)[0].split("~", 1)[0]

    def said(self, utterance: Utterance) -> "Dialogue":
        """Return the dialogue with one more turn."""
        return replace(self, turns=(*self.turns, utterance), reference=None, reference_emotion=None)

    def replies(self) -> tuple["Dialogue", ...]:
        """Cut the dialogue at every change of speaker: the turns before, and the new speaker's utterance as reference.

        A dialogue that already has a reference is returned alone.
        """
        if self.reference is not None:
            return (self,)
        changes = (i for i in range(1, len(self.turns)) if self.turns[i].speaker != self.turns[i - 1].speaker)
        return tuple(
            replace(
                self,
                id=f"{self.id}#{i}",
                turns=self.turns[:i],
                reference=self.turns[i].text,
                reference_emotion=self.turns[i].emotion,
            )
            for i in changes
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """Words that were recognised in speech, and when: `start` and `end` in seconds, `confidence` in [0, 1]."""

    start: float
    end: float
    text: str
    language: Language
    confidence: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What an extractor measured over time.

    Attributes:
        times: Start and end of each row in seconds, (n, 2) float32, in order.
        values: One row a moment, (n, len(columns)) float32.
        columns: What each column is.
    """

    times: "np.ndarray"
    values: "np.ndarray"
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> "np.ndarray":
        """Return one column, (n,)."""
        found: np.ndarray = self.values[:, self.columns.index(name)]
        return found

    def between(self, start: float, end: float) -> "Features":
        """Return the rows that overlap the time from `start` to `end`."""
        there = (self.times[:, 1] > start) & (self.times[:, 0] < end)
        return Features(self.times[there], self.values[there], self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One utterance to judge in multimodal sentiment analysis: what was said, heard and seen, and how it was labelled.

    Attributes:
        id: Unique in its split.
        origin: The video or dialogue it was cut from; intervals are drawn over these.
        text: The words, or "".
        features: Vectors by modality, (frames, width) float32, at their true length; a modality that is not there is missing.
        tokens: Ids of a BERT vocabulary, (length,) int64, at their true length.
        sentiment: On the scale of the data set: [-3, 3] for "mosi", [-1, 1] for "sims".
        sentiments: Labels given from one modality alone, on the same scale.
        emotion: An Ekman label.
        media: Recordings, where the data set has them.
    """

    id: str
    origin: str
    text: str = ""
    language: Language = "en"
    features: Mapping[Modality, "np.ndarray"] = field(default_factory=dict)
    tokens: "np.ndarray | None" = None
    sentiment: float | None = None
    sentiments: Mapping[Modality, float] = field(default_factory=dict)
    emotion: str | None = None
    media: Media | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """How someone answered in such a moment: the context, the reply and the reply's emotion.

    `similarity` is the cosine of the query and context vectors, in [-1, 1]; 0 until searched.
    """

    id: str
    context: tuple[Utterance, ...]
    reply: str
    emotion: str
    language: Language
    source: str
    license: str
    similarity: float = 0.0

    @property
    def origin(self) -> str:
        """The id of the dialogue it was cut from."""
        return self.id.split("#", 1)[0].split("~", 1)[0]

    @property
    def user_emotion(self) -> str | None:
        """The annotated emotion of the last turn of the context."""
        return self.context[-1].emotion


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a backend decodes. Temperature 0 is greedy; the same seed and chat give the same text on one machine."""

    max_tokens: int = 96
    temperature: float = 0.0
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend wrote, why it stopped, and how many tokens went in and came out."""

    text: str
    finish: Literal["stop", "length", "cancelled"]
    prompt_tokens: int = 0
    tokens: int = 0


SafetyLevel = Literal["none", "concern", "high", "imminent"]


@dataclass(frozen=True, slots=True)
class Safety:
    """What the crisis gate found: a level and the ids of the rules that fired."""

    level: SafetyLevel = "none"
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with everything that led to it, so that page, batch run and evaluation show one reasoning.

    `seconds` is the wall time of each stage: safety, perception, retrieval, prediction, generation. `perceived` is what
    was seen and heard, if the turn came as a recording.
    """

    text: str
    emotion: EmotionState
    user_emotion: EmotionState
    demonstrations: tuple[Demonstration, ...]
    chat: Chat
    safety: Safety
    seconds: Mapping[str, float]
    backend: str
    completion: Completion = field(default=Completion("", "stop"))
    perceived: Perceived | None = None


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What a data set is and what its loader needs.

    `files` are the paths, relative to the root, without which the loader cannot work; `label_set` names
    an entry of `elmd.labels.LABEL_SETS`, or None where utterances carry no emotion; `scale` says how
    sentiment is labelled and scored: "mosi" is [-3, 3], "sims" [-1, 1], None where there is none.
    """

    title: str
    language: Language
    license: str
    url: str
    splits: tuple[Split, ...]
    files: tuple[str, ...]
    label_set: str | None
    note: str
    scale: Scale | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One reply to be scored, beside what a person really answered. `origin` groups replies of one dialogue."""

    id: str
    origin: str
    language: Language
    hypothesis: str
    reference: str
    emotion: str | None = None
    reference_emotion: str | None = None
    user_emotion: str | None = None
    given_user_emotion: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One number with the settings that made it and a 95 % bootstrap interval over dialogues."""

    name: str
    value: float
    low: float
    high: float
    signature: str
