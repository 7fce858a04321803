"""The clip reader: a recording or a picture to how the person feels over time, and to what they said.

Words come from speech recognition and the text reader, the voice from prosody, the face from expressions; each second
and each utterance has a state of every modality that is there, and the fused one.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import ceil
from typing import Any, Literal, Protocol

from elmd.config import Strict, validate
from elmd.errors import ElmdError
from elmd.media import Clip
from elmd.perception import fuse
from elmd.perception.face import Config as FaceConfig
from elmd.perception.face import FaceReader
from elmd.perception.text import TextReader
from elmd.perception.voice import Config as VoiceConfig
from elmd.perception.voice import VoiceReader
from elmd.types import EmotionState, Features, Modality, Moment, Perceived, Segment
from elmd.zoo import ASR, EXTRACTORS

STEP = 1.0
"""Seconds of one moment of the timeline."""


class Config(Strict):
    """What reads a clip."""

    asr: str = "whisper"
    recogniser: dict[str, Any] = {}
    """The recogniser's own keys."""
    face: dict[str, Any] = {}
    """The face extractor's own keys."""
    prosody: dict[str, Any] = {}
    """The prosody extractor's own keys."""
    voice_reader: VoiceConfig = VoiceConfig()
    face_reader: FaceConfig = FaceConfig()
    fusion: fuse.Config = fuse.Config()
    language: Literal["zh", "en"] | None = None
    """Of the speech; recognised when None."""


class _Reader(Protocol):
    """What turns features into a state."""

    def read(self, features: Features, start: float, end: float) -> EmotionState | None:
        """Return the state between two moments."""


class ClipReader:
    """Reads clips; what it reads with loads on first use.

    Args:
        config: Which recogniser and extractors, and how they are fused.
        words: The reader of emotion in words.
    """

    def __init__(self, config: Config, words: TextReader) -> None:
        self.config, self.words = config, words
        self.readers: dict[Modality, _Reader] = {
            "audio": VoiceReader(config.voice_reader),
            "vision": FaceReader(config.face_reader),
        }

    def perceive(self, clip: Clip) -> Perceived:
        """Return how the person in a clip feels.

        What cannot be read (no speech, no face, a model that is not there) is said in `missing`; raises BadData for a
        file that is no recording or picture.
        """
        info, missing = clip.info, list[str]()
        segments = self._heard(clip, missing)
        measured = {"audio": self._measured("prosody", clip, missing), "vision": self._measured("face", clip, missing)}
        features: dict[Modality, Features] = {m: f for m, f in measured.items() if f is not None and len(f)}  # type: ignore[misc]
        for modality, name in (("audio", "voice"), ("vision", "face")):
            if measured[modality] is not None and modality not in features:
                missing.append(f"{name}: none found")
        read = self.words.read_many([segment.text for segment in segments])
        spoken = [_placed(state, s.start, s.end) for state, s in zip(read, segments, strict=True)]
        end = info.duration or STEP
        steps = [(float(i), min(float(i + 1), end)) for i in range(ceil(end / STEP))]
        timeline = [self._moment(start, stop, segments, spoken, features) for start, stop in steps]
        utterances = [
            self._moment(s.start, s.end, [s], [state], features) for s, state in zip(segments, spoken, strict=True)
        ]
        whole = self._whole(segments, end, features)
        return Perceived(
            info.duration,
            tuple(moment for moment in utterances if moment),
            tuple(moment for moment in timeline if moment),
            tuple(missing),
            fuse.fuse(whole, self.config.fusion) if whole else None,
            whole,
        )

    def watch(self, clip: Clip) -> Iterator[EmotionState]:
        """Yield the state of the face second by second while the clip is decoded: what can be said before the words."""
        for features in self._face.watch(clip.frames(self._face.config.fps)):
            state = self.readers["vision"].read(features, *_span(features))
            if state:
                yield state

    @cached_property
    def _recogniser(self) -> Any:
        module = ASR.load(self.config.asr)
        return module.Recogniser(validate(module.Config, self.config.recogniser, "perception.clip.recogniser"))

    @cached_property
    def _face(self) -> Any:
        return self._extractor("face", self.config.face)

    @cached_property
    def _prosody(self) -> Any:
        return self._extractor("prosody", self.config.prosody)

    def _extractor(self, name: str, settings: Mapping[str, Any]) -> Any:
        module = EXTRACTORS.load(name)
        return module.Extractor(validate(module.Config, settings, f"perception.clip.{name}"))

    def _heard(self, clip: Clip, missing: list[str]) -> Sequence[Segment]:
        if not clip.info.has_audio:
            missing.append("words: no sound")
            return ()
        try:
            segments: Sequence[Segment] = self._recogniser.transcribe(clip.audio(), self.config.language)
        except ElmdError as error:  # a model that is not there must not take the face's reading with it
            missing.append(f"words: {error}")
            return ()
        if not segments:
            missing.append("words: no speech")
        return segments

    def _measured(self, name: str, clip: Clip, missing: list[str]) -> Features | None:
        there = clip.info.has_audio if name == "prosody" else clip.info.has_video
        if not there:
            missing.append("voice: no sound" if name == "prosody" else "face: no picture")
            return None
        extractor = self._prosody if name == "prosody" else self._face
        measured: Features = extractor.extract(clip)
        return measured

    def _moment(
        self,
        start: float,
        end: float,
        segments: Sequence[Segment],
        spoken: Sequence[EmotionState],
        features: Mapping[Modality, Features],
    ) -> Moment | None:
        """What is said between two moments, by words that overlap them and by each reader."""
        states: dict[Modality, EmotionState] = {}
        there = [(s, state) for s, state in zip(segments, spoken, strict=True) if s.end > start and s.start < end]
        if there:
            longest = max(there, key=lambda pair: min(pair[0].end, end) - max(pair[0].start, start))
            states["text"] = longest[1]
        states |= self._read(features, start, end)
        if not states:
            return None
        words = there[0][0] if len(segments) == 1 and there else None
        emotion = _placed(fuse.fuse(states, self.config.fusion), start, end)
        return Moment(start, end, emotion, states, words.text if words else "", words.language if words else None)

    def _whole(
        self, segments: Sequence[Segment], end: float, features: Mapping[Modality, Features]
    ) -> dict[Modality, EmotionState]:
        states: dict[Modality, EmotionState] = {}
        if segments:
            states["text"] = self.words.read(" ".join(segment.text for segment in segments))
        return states | self._read(features, 0.0, end)

    def _read(self, features: Mapping[Modality, Features], start: float, end: float) -> dict[Modality, EmotionState]:
        found = {m: self.readers[m].read(measured, start, end) for m, measured in features.items()}
        return {m: state for m, state in found.items() if state is not None}


def to_json(perceived: Perceived) -> dict[str, Any]:
    """Return the public JSON of what was perceived."""
    return {
        "duration": round(perceived.duration, 3),
        "text": perceived.text,
        "emotion": _emotion(perceived.emotion) if perceived.emotion else None,
        "modalities": {m: _emotion(state) for m, state in perceived.modalities.items()},
        "utterances": [{**_moment(m), "text": m.text, "language": m.language} for m in perceived.utterances],
        "timeline": [_moment(m) for m in perceived.timeline],
        "missing": list(perceived.missing),
    }


def _moment(moment: Moment) -> dict[str, Any]:
    states = {m: _emotion(state) for m, state in moment.modalities.items()}
    times = {"start": round(moment.start, 3), "end": round(moment.end, 3)}
    return {**times, "emotion": _emotion(moment.emotion), "modalities": states}


def _emotion(state: EmotionState) -> dict[str, Any]:
    scores = {label: round(score, 4) for label, score in state.scores.items()}
    return {"label": state.label, "scores": scores, "valence": round(state.valence, 4)}


def _placed(state: EmotionState, start: float, end: float) -> EmotionState:
    return EmotionState(state.label, state.scores, state.source, start, end)


def _span(features: Features) -> tuple[float, float]:
    return float(features.times[:, 0].min()), float(features.times[:, 1].max())
