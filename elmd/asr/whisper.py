"""Whisper after Silero's voice detection, in faster-whisper: Chinese in simplified characters, and English."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from math import exp
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from elmd import assets
from elmd.config import Strict
from elmd.errors import AssetError
from elmd.types import Language, Segment

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

REQUIRES = {"faster_whisper": "perception", "opencc": "perception"}
RATE = 16_000
"""Samples a second of all audio."""
PROMPTS: dict[Language, str | None] = {"zh": "以下是普通话的句子。", "en": None}
"""What Whisper is told to have heard before; the Chinese one makes it write mostly simplified characters, with marks."""
LONGEST = 28.0
"""Seconds of one stretch of speech at most; Whisper's window is 30."""
SHORTEST = 0.1
"""Seconds below which a recording or a stretch of speech is taken for a knock."""
LISTENS = 3
"""How many stretches are listened to for the language at most."""
SURE = 0.8
"""Share of the likelier language that ends the listening."""
REPETITIVE = 2.4
"""Compression ratio of text that goes in circles, Whisper's own bound."""
DOUBTFUL = 0.6
"""From this probability of no speech on, words must be likely (`LIKELY`) to be kept."""
LIKELY = 0.5
FAINTEST = 0.15
"""Words less confident than this are dropped: over noise they are invented."""
QUIET = 0.003
"""Root mean square of a stretch (-50 dB of full scale) below which a stock phrase is not believed."""
CREDITS = re.compile(
    r"^\W*(中文)?字幕(由|by|提供|志愿者|组|制作|[:：\s])|请不吝点赞|明镜与点点|打赏支持|优优独播|"
    r"amara\.org|^\W*(subtitles?|captions?|transcri(bed|ption))( \w+)? by\b",
    re.IGNORECASE,
)
"""Subtitlers' signatures, which Whisper learnt and nobody says to elmd."""
STOCK = re.compile(
    r"(thank you|thanks)( so much| very much)?( for (watching|listening|viewing))?|"
    r"(please )?(like and )?subscribe( to (my|the) channel)?|(bye ?)+|you|"
    r"(谢谢|感谢)(大家|您|你|各位)?的?(观看|收看|收听|聆听)?|请?(订阅|点赞|转发)(我的频道)?|下[期次]再见|我们下期再见",
    re.IGNORECASE,
)
"""What Whisper hears in silence; people do say these things, so they are dropped only where there is next to no sound."""


class Config(Strict):
    """Which model, and how it runs."""

    model: str = "whisper-base"
    """An asset that was fetched, or a folder of a Whisper model in CTranslate2's format."""
    compute: Literal["int8", "float32"] = "int8"
    threads: int = 0
    """CPU threads; 0 means as many as the process may use, at most 4."""
    beam: int = 5
    """Hypotheses that are followed; 1 is hardly faster and writes many more wrong Chinese characters."""
    vad: bool = True
    """Whether only speech is transcribed; without it, Whisper invents words over noise."""
    pause: float = 1.0
    """Seconds of silence that end an utterance."""


class Stretch(NamedTuple):
    """A stretch of the recording, in samples."""

    start: int
    end: int


class Recogniser:
    """Whisper behind the contract of recognisers. Loads on first use; threads may share one."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.model
        self._lock = Lock()
        self._model: WhisperModel | None = None

    @property
    def model(self) -> "WhisperModel":
        """The loaded model; raises AssetError with the command that brings it when it is not here."""
        with self._lock:
            if self._model is None:
                self._model = _load(assets.here(self.config.model), self.config)
            return self._model

    def transcribe(self, audio: np.ndarray, language: Language | None = None) -> tuple[Segment, ...]:
        """Return what is said, in order of time.

        Args:
            audio: Mono, (samples,) float at 16 kHz, nominally in [-1, 1]; what is not finite counts as silence.
            language: Of the speech; recognised as the likelier of the two when None.

        Raises AssetError when the model is not here, ValueError for samples that are no mono float. Speech that is not
        there costs nothing: the model is loaded only for a recording in which a voice is found.
        """
        samples = _clean(audio)
        stretches = _speech(samples, self.config)
        if not stretches:
            return ()
        spoken = language or self._language(samples, stretches)
        return tuple(segment for stretch in stretches for segment in self._write(samples, stretch, spoken))

    def _language(self, samples: np.ndarray, stretches: Sequence[Stretch]) -> Language:
        """Listen to the longest stretches until one of the two languages is likely enough."""
        weights: dict[Language, float] = {"zh": 0.0, "en": 0.0}
        for start, end in sorted(stretches, key=lambda s: s.start - s.end)[:LISTENS]:
            _, _, found = self.model.detect_language(samples[start:end])
            odds = dict(found)
            for name in weights:
                weights[name] += odds.get(name, 0.0)
            if max(weights.values()) > SURE * sum(weights.values()):
                break
        return max(weights, key=lambda name: weights[name])

    def _write(self, samples: np.ndarray, stretch: Stretch, language: Language) -> Iterator[Segment]:
        sound = samples[stretch.start : stretch.end]
        for heard in self._hear(sound, language):
            text = _tidy(heard.text, language)
            confidence = min(1.0, exp(heard.avg_logprob)) * (1.0 - heard.no_speech_prob)
            start, end = (min(max(t, 0.0), len(sound) / RATE) for t in (heard.start, heard.end))
            if end > start and not _invented(text, confidence, heard, sound[int(start * RATE) : int(end * RATE)]):
                offset = stretch.start / RATE
                yield Segment(round(offset + start, 2), round(offset + end, 2), text, language, round(confidence, 4))

    def _hear(self, sound: np.ndarray, language: Language) -> Sequence[Any]:
        """Transcribe one stretch; what goes in circles is heard again under a rule against repetition.

        Nothing is drawn at random (temperature 0), so that one recording always gives the same words.
        """
        heard = self._run(sound, language, 0)
        if any(segment.compression_ratio > REPETITIVE for segment in heard):
            heard = self._run(sound, language, 4)
        return heard

    def _run(self, sound: np.ndarray, language: Language, no_repeat: int) -> Sequence[Any]:
        segments, _ = self.model.transcribe(
            sound,
            language=language,
            beam_size=self.config.beam,
            temperature=0.0,
            initial_prompt=PROMPTS[language],
            condition_on_previous_text=False,
            no_repeat_ngram_size=no_repeat,
            vad_filter=False,
        )
        return list(segments)


def _load(folder: Path, config: Config) -> "WhisperModel":
    from faster_whisper import WhisperModel

    for needed in ("model.bin", "config.json", "tokenizer.json"):
        if not (folder / needed).is_file():  # without its tokenizer, the library would ask a hub for one
            raise AssetError(f"{folder} has no {needed}; it is no Whisper model in CTranslate2's format")
    try:
        return WhisperModel(
            str(folder),
            device="cpu",
            compute_type=config.compute,
            cpu_threads=config.threads or min(4, _processors()),
            local_files_only=True,
        )
    except RuntimeError as error:
        raise AssetError(f"{folder} cannot be loaded ({str(error).splitlines()[0]})") from error


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _clean(audio: np.ndarray) -> np.ndarray:
    """Return the samples as finite float32 within [-1, 1]; louder ones are turned down together."""
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise ValueError(f"audio must be mono float samples, (n,), not {audio.dtype} {audio.shape}")
    samples = np.nan_to_num(audio.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    peak = float(np.abs(samples).max(initial=0.0))
    return samples / peak if peak > 1.0 else samples


def _speech(samples: np.ndarray, config: Config) -> Sequence[Stretch]:
    """Return the stretches in which somebody speaks."""
    if len(samples) < SHORTEST * RATE:
        return ()
    if not config.vad:
        return (Stretch(0, len(samples)),)
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(
        min_speech_duration_ms=int(SHORTEST * 1000),
        max_speech_duration_s=LONGEST,
        min_silence_duration_ms=int(config.pause * 1000),
        speech_pad_ms=300,
    )
    return [Stretch(int(found["start"]), int(found["end"])) for found in get_speech_timestamps(samples, options)]


def _invented(text: str, confidence: float, heard: Any, sound: np.ndarray) -> bool:
    """Whether a segment is what Whisper writes where nobody speaks, rather than words."""
    if not re.search(r"\w", text) or CREDITS.search(text) or confidence < FAINTEST:
        return True
    if heard.compression_ratio > REPETITIVE:
        return True
    if heard.no_speech_prob > DOUBTFUL and exp(heard.avg_logprob) < LIKELY:
        return True
    loudness = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    faint = loudness < QUIET or heard.no_speech_prob > DOUBTFUL
    return faint and bool(STOCK.fullmatch(re.sub(r"[^\w ]", "", text).strip()))


_HANZI = r"[\u3400-\u9fff\uf900-\ufaff]"
_WIDE = str.maketrans(",?!;:", "，？！；：")
_ECHO = re.compile(r"以下是普通话(的句子)?[,，.。]?")
"""The prompt, which Whisper repeats where it hears nothing it knows."""


def _tidy(text: str, language: Language) -> str:
    """Return the words as they are written: simplified characters, full-width marks and no spaces between characters."""
    if language == "en":
        return " ".join(text.split())
    text = _ECHO.sub("", _to_simplified().convert(text))
    text = re.sub(rf"(?<={_HANZI})\s+(?={_HANZI})", "，", text.strip())
    text = re.sub(rf"(?<={_HANZI})[,?!;:]\s*", lambda mark: mark[0].strip().translate(_WIDE), text)
    return " ".join(re.sub(rf"(?<={_HANZI})\.$", "。", text).split())


@cache
def _to_simplified() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
