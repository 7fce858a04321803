"""The voice reader: how aroused somebody sounds against their own baseline, by rules, and the emotions that fit.

No weights: no speech-emotion data with a licence that allows shipping was at hand. The cues are those that vocal emotion
research agrees on (Scherer 2003, "Vocal communication of emotion"; Juslin and Laukka 2003, "Communication of emotions in
vocal expression and music performance"): aroused voices are higher, louder, faster, more varied in pitch and carry more
energy over 500 Hz; happy ones vary much in pitch, sad ones little. That a few such cues against the speaker's own baseline are enough to rank arousal across data sets
is Bone, Lee and Narayanan 2014, "Robust unsupervised arousal rating". The formula and its numbers are elmd's own:

    z_c       = (cue − baseline) / SPREAD_c
    arousal   = tanh(Σ WEIGHT_c · 2 tanh(z_c / 2))              rises with every cue, and no cue alone saturates it
    valence   = 0.2 tanh(z_variation)                           a voice says little of it: lively or flat
    score(e)  ∝ exp(−d_e / 0.35),  d_e² = (arousal − a_e)² + (0.5 (valence − v_e))²    a_e, v_e: elmd.labels.VAD_OF

Arousal and valence are scaled by the confidence, 1 − exp(−seconds of speech), so that a short cry reads as neutral.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, hypot, tanh
from typing import Protocol

import numpy as np

from elmd.config import Strict
from elmd.errors import UsageError
from elmd.labels import EKMAN, VAD_OF
from elmd.types import EmotionState, Features

Cues = Mapping[str, float]

WEIGHT: Cues = {"pitch": 0.3, "energy": 0.3, "balance": 0.15, "rate": 0.15, "variation": 0.1}
"""Share of each cue in arousal; they sum to 1. Pitch and loudness are the cues that studies find most often."""
SPREAD: Cues = {"pitch": 3.0, "energy": 6.0, "balance": 5.0, "rate": 1.5, "variation": 1.5}
"""How far a clearly emotional voice is from the speaker's usual one: semitones, dB, dB, syllables a second, semitones."""
NORM: Cues = {"rate": 4.5, "variation": 2.0}
"""What to expect of a speaker not heard yet; pitch, loudness and timbre depend on the body and the microphone."""
NORM_SECONDS = 10.0
"""The norm weighs as much as so many seconds of the speaker's own voice."""
VALENCE_REACH, VALENCE_WEIGHT, TEMPERATURE = 0.2, 0.5, 0.35


class FeatureReader(Protocol):
    """Reads an emotion from what an extractor measured: these rules, or a trained model that the agent puts here."""

    def read(self, features: Features, start: float, end: float) -> EmotionState | None:
        """Return the emotion from `start` to `end` seconds, or None where nothing was measured."""


class Config(Strict):
    """Which reader hears the emotion of a voice."""

    weights: str | None = None
    """A checkpoint of `elmd train sentiment`, which then reads in place of the rules; the rules when None."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How a speaker usually sounds: the median of each cue, and the seconds of speech it rests on."""

    cues: Cues
    seconds: float

    @classmethod
    def of(cls, features: Features) -> "Baseline":
        """Take the whole of a recording as the speaker's usual voice, mixed with the norm where it is short.

        Raises ValueError where the recording holds no speech.
        """
        if not len(features):
            raise ValueError("a baseline needs speech")
        seconds = _speech_seconds(features, 0, float("inf"))
        own = {name: float(np.median(values)) for name, values in _cues(features).items()}
        share = seconds / (seconds + NORM_SECONDS)
        return cls({n: share * v + (1 - share) * NORM[n] if n in NORM else v for n, v in own.items()}, seconds)


@dataclass(frozen=True, slots=True)
class Tone:
    """What a voice says without its words: arousal and valence in [-1, 1] before, confidence in [0, 1)."""

    arousal: float
    valence: float
    confidence: float

    def state(self) -> EmotionState:
        """Return the emotions that fit, softly: the rules put no more than half on any but neutral."""
        arousal, valence = self.arousal * self.confidence, self.valence * self.confidence
        far = {e: hypot(arousal - VAD_OF[e].arousal, VALENCE_WEIGHT * (valence - VAD_OF[e].valence)) for e in EKMAN}
        return EmotionState.from_scores({e: exp(-far[e] / TEMPERATURE) for e in EKMAN}, "audio")


class VoiceReader:
    """Reads the emotion of a voice from prosody, by rules."""

    def __init__(self, config: Config | None = None) -> None:
        if config and config.weights:
            raise UsageError("the rules of the voice reader have no weights; a checkpoint is read by the agent")

    def read(
        self, features: Features, start: float, end: float, baseline: Baseline | None = None
    ) -> EmotionState | None:
        """Return the emotion from `start` to `end` seconds, or None where nobody speaks.

        `features` is the prosody of the whole clip, of one speaker; `baseline` how that speaker usually sounds, if they
        were heard before, else the clip stands for it.
        """
        tone = self.listen(features, start, end, baseline)
        return replace(tone.state(), start=start, end=end) if tone else None

    def listen(self, features: Features, start: float, end: float, baseline: Baseline | None = None) -> Tone | None:
        """Return arousal, valence and confidence from `start` to `end` seconds, or None where nobody speaks."""
        here = features.between(start, end)
        weights = _speech(here, start, end)
        if not weights.sum():
            return None
        usual = (baseline or Baseline.of(features)).cues
        cues = {name: float(np.average(values, weights=weights)) for name, values in _cues(here).items()}
        z = {name: (cues[name] - usual[name]) / SPREAD[name] for name in SPREAD}
        return Tone(
            tanh(sum(WEIGHT[name] * 2 * tanh(z[name] / 2) for name in WEIGHT)),
            VALENCE_REACH * tanh(z["variation"]),
            1 - exp(-_speech_seconds(here, start, end)),
        )


def _cues(features: Features) -> dict[str, np.ndarray]:
    """Return each cue of every row; pitch in semitones over 1 Hz, so that recordings can be compared."""
    return {
        "pitch": 12 * np.log2(features.column("pitch_hz")),
        "energy": features.column("energy"),
        "balance": features.column("balance"),
        "rate": features.column("syllable_rate"),
        "variation": features.column("pitch_sd"),
    }


def _speech(features: Features, start: float, end: float) -> np.ndarray:
    """Return how many seconds of speech each row has between `start` and `end`, (n,)."""
    inside = np.minimum(features.times[:, 1], end) - np.maximum(features.times[:, 0], start)
    spoken: np.ndarray = inside * (1 - features.column("pause_ratio"))
    return spoken


def _speech_seconds(features: Features, start: float, end: float) -> float:
    """Return the seconds of speech between `start` and `end`; windows overlap, and are counted once."""
    starts, ends = np.clip(features.times.T, start, end)
    heard = np.maximum.accumulate(ends)
    before = np.concatenate([starts[:1], heard[:-1]])
    new = np.maximum(ends - np.maximum(starts, before), 0)
    return float((new * (1 - features.column("pause_ratio"))).sum())
