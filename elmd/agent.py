"""The agent: one turn from what a person says to the reply, with everything that led to it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256 as _sha256
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np

from elmd import assets, config, data
from elmd.config import Strict
from elmd.errors import UsageError
from elmd.files import sha256
from elmd.generation.compose import compose
from elmd.generation.prompts import render
from elmd.media import Clip
from elmd.perception.clip import ClipReader
from elmd.perception.clip import Config as ClipConfig
from elmd.perception.clip import to_json as perceived_json
from elmd.perception.fuse import fuse
from elmd.perception.text import Config as PerceptionConfig
from elmd.perception.text import TextReader
from elmd.prediction.predictor import Config as PredictionConfig
from elmd.prediction.predictor import ReplyEmotionPredictor, open_predictor
from elmd.retrieval.index import DemonstrationIndex, as_json, demonstrations_of
from elmd.retrieval.rank import Weights, rank
from elmd.safety import gate
from elmd.text import clean
from elmd.types import (
    Chat,
    Completion,
    Demonstration,
    Dialogue,
    EmotionState,
    Perceived,
    Reply,
    Safety,
    Sampling,
    Utterance,
)
from elmd.zoo import EMBEDDERS, LLMS

INDEX_FORMAT = 2
"""Raised when the way demonstrations become an index changes, so that ELMD_HOME's copy is built again."""


class SamplingConfig(Strict):
    """How the language model decodes; see `elmd.types.Sampling`."""

    max_tokens: int = 80
    temperature: float = 0.0
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    seed: int = 0


class RetrievalConfig(Strict):
    """ERM: which encoder and index, and how demonstrations are chosen."""

    embedder: str = "e5"
    encoder: dict[str, Any] = {}
    """The embedder's own keys."""
    index: str | None = None
    """A folder written by `elmd index build`; our own demonstrations when None."""
    candidates: int = 32
    """How many nearest contexts are ranked."""
    demonstrations: int = 4
    """How many of them go into the prompt."""
    weights: Weights = Weights()


class GenerationConfig(Strict):
    """EERG: which backend, and how it writes."""

    backend: str = "hf"
    llm: dict[str, Any] = {}
    """The backend's own keys."""
    sampling: SamplingConfig = SamplingConfig()
    prompt_tokens: int = 1024
    """Budget of the prompt: demonstrations are dropped first, then the oldest turns."""


class AgentConfig(Strict):
    """The configuration of an agent, a table a room."""

    perception: PerceptionConfig = PerceptionConfig()
    clip: ClipConfig = ClipConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    prediction: PredictionConfig = PredictionConfig()
    generation: GenerationConfig = GenerationConfig()


@dataclass(frozen=True, slots=True)
class Thought:
    """What is settled about a turn before its words are written."""

    dialogue: Dialogue
    safety: Safety
    user_emotion: EmotionState
    emotion: EmotionState
    demonstrations: tuple[Demonstration, ...]
    chat: Chat
    seconds: dict[str, float]
    perceived: Perceived | None = None


class Agent:
    """Answers dialogues; its models load on first use and are shared by all turns."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self._lock = Lock()

    @classmethod
    def from_recipe(cls, recipe: str = "agent-small", overrides: Sequence[str] = ()) -> "Agent":
        """Build an agent from a recipe with `--set` overrides; raises BadConfig."""
        return cls(config.load(AgentConfig, recipe, overrides))

    def reply(self, dialogue: Dialogue) -> Reply:
        """Answer the last turn of a dialogue."""
        return self.reply_many([dialogue])[0]

    def reply_many(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        """Answer the last turn of each dialogue, in order; the language model works in batches."""
        thoughts = [self._think(dialogue) for dialogue in dialogues]
        asked = [i for i, thought in enumerate(thoughts) if thought.chat]
        started = time.perf_counter()
        completions = self.backend.generate([thoughts[i].chat for i in asked], self._sampling) if asked else []
        each = (time.perf_counter() - started) / max(1, len(asked))
        written = dict(zip(asked, completions, strict=True))
        return [self._reply(thought, written.get(i), each) for i, thought in enumerate(thoughts)]

    def stream(self, dialogue: Dialogue, cancel: Event | None = None) -> Iterator[Reply]:
        """Yield the reply as it grows: first everything but its words, last the whole.

        Setting `cancel` or closing the iterator ends the writing.
        """
        thought = self._think(dialogue)
        if not thought.chat:
            yield self._reply(thought, None, 0.0)
            return
        started = time.perf_counter()
        text = ""
        yield self._reply(thought, Completion("", "stop"), 0.0)
        for piece in self.backend.stream(thought.chat, self._sampling, cancel):
            text += piece
            yield self._reply(thought, Completion(text, "stop"), time.perf_counter() - started)
        stopped = cancel is not None and cancel.is_set()
        whole = Completion(text, "cancelled" if stopped else "stop")
        yield self._reply(thought, whole, time.perf_counter() - started)

    def foresee(self, dialogue: Dialogue) -> tuple[EmotionState, EmotionState]:
        """Return the emotion read from the last turn and the one predicted for the reply, without writing it."""
        states = self._read(dialogue)
        return states[-1], self._predict(dialogue, states, self.index.encode(dialogue))

    def warm(self) -> None:
        """Load all models, so that the first turn is not slower than the next."""
        hello = Dialogue("warm", (Utterance("user", "你好"),), "zh")
        self.backend.generate([self._think(hello).chat], replace(self._sampling, max_tokens=1))

    @cached_property
    def backend(self) -> Any:
        """The language model."""
        module = LLMS.load(self.config.generation.backend)
        return module.Backend(config.validate(module.Config, self.config.generation.llm, "generation.llm"))

    @cached_property
    def encoder(self) -> Any:
        """The sentence encoder of retrieval and prediction."""
        module = EMBEDDERS.load(self.config.retrieval.embedder)
        return module.Embedder(config.validate(module.Config, self.config.retrieval.encoder, "retrieval.encoder"))

    @cached_property
    def index(self) -> DemonstrationIndex:
        """The demonstrations: the configured index, or our own, encoded once and kept in ELMD_HOME."""
        if self.config.retrieval.index:
            return DemonstrationIndex.load(Path(self.config.retrieval.index), self.encoder)
        return shipped_index(self.encoder)

    @cached_property
    def reader(self) -> TextReader:
        """The reader of emotion in words."""
        return TextReader(self.config.perception)

    @cached_property
    def clips(self) -> ClipReader:
        """The reader of recordings."""
        return ClipReader(self.config.clip, self.reader)

    @cached_property
    def predictor(self) -> ReplyEmotionPredictor:
        """The predictor of the reply's emotion."""
        return open_predictor(self.config.prediction)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(**self.config.generation.sampling.model_dump())

    def _think(self, dialogue: Dialogue) -> Thought:
        """Safety, perception, retrieval and prediction of one turn, and the prompt."""
        clock = Clock()
        with self._lock, clock("perception"):
            perceived = self._perceive(dialogue)
        dialogue = cleaned(heard(dialogue, perceived))
        with clock("safety"):
            safety = gate.check(dialogue)
        with self._lock, clock("perception"):
            states = self._read(dialogue, perceived)
        user = states[-1]
        if gate.needs_fixed_answer(safety):
            return Thought(dialogue, safety, user, EmotionState.of("neutral"), (), (), clock.seconds, perceived)
        with self._lock, clock("retrieval"):
            vector = self.index.encode(dialogue)
            candidates = self.index.search_vector(vector, dialogue, self.config.retrieval.candidates)
        with clock("prediction"):
            emotion = self._predict(dialogue, states, vector)
        with clock("retrieval"):
            chosen = self._choose(candidates, user, emotion)
        with clock("generation"):
            chat, shown = compose(
                dialogue,
                user.label,
                emotion.label,
                chosen,
                self.backend.count_tokens,
                self.config.generation.prompt_tokens,
            )
        return Thought(dialogue, safety, user, emotion, tuple(chosen[:shown]), chat, clock.seconds, perceived)

    def _perceive(self, dialogue: Dialogue) -> Perceived | None:
        """What is seen and heard of the last turn, if it came as a recording or a picture."""
        media = dialogue.last.media
        path = media and (media.video or media.audio or media.image)
        return self.clips.perceive(Clip(Path(path))) if path else None

    def _read(self, dialogue: Dialogue, perceived: Perceived | None = None) -> list[EmotionState]:
        """The emotion of the last turns, oldest first; voice and face speak with the words of the last one."""
        turns = dialogue.turns[-self.predictor.turns :]
        read = self.reader.read_many([turn.text for turn in turns])
        if perceived is not None:
            states = {**perceived.modalities, "text": read[-1]}
            read[-1] = fuse(states, self.config.clip.fusion)
        if not self.config.perception.annotated:
            return read
        return [EmotionState.of(t.emotion) if t.emotion else state for t, state in zip(turns, read, strict=True)]

    def _predict(self, dialogue: Dialogue, states: Sequence[EmotionState], vector: np.ndarray) -> EmotionState:
        return self.predictor.predict(dialogue, states, vector, self.encoder)

    def _choose(
        self, candidates: Sequence[Demonstration], user: EmotionState, emotion: EmotionState
    ) -> list[Demonstration]:
        retrieval = self.config.retrieval
        vectors = self.index.vectors_of(candidates)
        return rank(candidates, vectors, user.scores, emotion.scores, retrieval.demonstrations, retrieval.weights)

    def _reply(self, thought: Thought, completion: Completion | None, seconds: float) -> Reply:
        language = thought.dialogue.language or "zh"
        text = completion.text if completion else render("crisis", language)
        spent = {**thought.seconds, "generation": thought.seconds.get("generation", 0.0) + seconds}
        return Reply(
            text=text,
            emotion=thought.emotion,
            user_emotion=thought.user_emotion,
            demonstrations=thought.demonstrations,
            chat=thought.chat,
            safety=thought.safety,
            seconds=spent,
            backend=self.backend.name if completion else "fixed",
            completion=completion or Completion(text, "stop"),
            perceived=thought.perceived,
        )


class Clock:
    """Adds up the wall seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block's time to `stage`."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def heard(dialogue: Dialogue, perceived: Perceived | None) -> Dialogue:
    """Return the dialogue with the words that were heard in the last turn, where none were typed.

    Raises UsageError when there are none.
    """
    if perceived is None or dialogue.last.text.strip():
        return dialogue
    if not perceived.text:
        raise UsageError(f"no words to answer in the clip ({'; '.join(perceived.missing)}); type some beside it")
    last = replace(dialogue.last, text=perceived.text)
    language = perceived.utterances[0].language
    return replace(dialogue, turns=(*dialogue.turns[:-1], last), language=language)


def cleaned(dialogue: Dialogue) -> Dialogue:
    """Return the dialogue with cleaned words; raises UsageError when nothing is left of the turn to answer."""
    turns = tuple(replace(turn, text=clean(turn.text)) for turn in dialogue.turns)
    if not turns[-1].text:
        raise UsageError("nothing to answer: the last turn has no words")
    return replace(dialogue, turns=tuple(turn for turn in turns if turn.text))


def shipped_index(encoder: Any) -> DemonstrationIndex:
    """Return the index of our own demonstrations; the copy in ELMD_HOME is made again when it is missing or damaged.

    Its folder is named by data and encoder, so a change of either makes another one.
    """
    from filelock import FileLock

    files = data.demonstration_files()
    key = f"{INDEX_FORMAT}" + "".join(sha256(file) for file in files) + encoder.name + encoder.revision
    folder = assets.home() / "index" / _sha256(key.encode()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(assets.home() / "index.lock"):
        try:
            return DemonstrationIndex.load(folder, encoder)
        except UsageError:
            index = DemonstrationIndex.build(demonstrations_of(data.shipped_demonstrations()), encoder)
            index.save(folder)
            return index


def reply_json(reply: Reply) -> dict[str, Any]:
    """Return the public JSON of a reply."""
    return {
        "reply": reply.text,
        "emotion": emotion_json(reply.emotion),
        "user_emotion": emotion_json(reply.user_emotion),
        "demonstrations": [as_json(item) for item in reply.demonstrations],
        "safety": {"level": reply.safety.level},
        "seconds": {stage: round(seconds, 4) for stage, seconds in reply.seconds.items()},
        "backend": reply.backend,
        **({"perceived": perceived_json(reply.perceived)} if reply.perceived else {}),
    }


def emotion_json(state: EmotionState) -> dict[str, Any]:
    """Return the public JSON of an emotion."""
    scores = {label: round(score, 4) for label, score in state.scores.items()}
    return {"label": state.label, "scores": scores, "valence": round(state.valence, 4)}
