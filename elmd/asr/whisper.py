"""Whisper after Silero's voice detection, in faster-whisper: Chinese in simplified characters, and English."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from math import exp
from pathlib import Path
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

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
AROUND = 0.3
"""Seconds around a stretch that are heard with it at most: soft sounds begin and end words."""
SHORTEST = 0.1
"""Seconds below which a recording or a stretch of speech is taken for a knock."""
LISTENS = 3
"""How many stretches are listened to for the language at most."""
SURE = 0.8
"""Share of the likelier language that ends the listening."""
REPETITIVE = 2.4
"""Compression ratio of text that goes in circles, Whisper's own bound; what was repeated is then written `TIMES` times."""
TIMES = 3
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
    """A stretch of speech, and how much before and after it is heard with it; in samples."""

    start: int
    end: int
    before: int = 0
    after: int = 0


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
        for stretch in sorted(stretches, key=lambda s: s.start - s.end)[:LISTENS]:
            sound = samples[stretch.start - stretch.before : stretch.end + stretch.after]
            # Less the last frame, which `transcribe` leaves out too: only then are both given the same and encoded once.
            _, _, found = self.model.detect_language(features=self.model.feature_extractor(sound)[..., :-1])
            odds = dict(found)
            for name in weights:
                weights[name] += odds.get(name, 0.0)
            if max(weights.values()) > SURE * sum(weights.values()):
                break
        return max(weights, key=lambda name: weights[name])

    def _write(self, samples: np.ndarray, stretch: Stretch, language: Language) -> Iterator[Segment]:
        sound = samples[stretch.start - stretch.before : stretch.end + stretch.after]
        last = ""
        for heard in self._hear(sound, language):
            text, left = _tidy(heard.text, language), 1.0
            if heard.compression_ratio > REPETITIVE:
                text, left = _unrolled(text, last)
            last = text or last
            confidence = min(1.0, exp(heard.avg_logprob)) * (1.0 - heard.no_speech_prob) * left
            start, end = (min(max(_at(t, stretch), stretch.start), stretch.end) for t in (heard.start, heard.end))
            if end > start and not _invented(text, confidence, heard, samples[start:end]):
                yield Segment(round(start / RATE, 2), round(end / RATE, 2), text, language, round(confidence, 4))

    def _hear(self, sound: np.ndarray, language: Language) -> Iterable[Any]:
        """Transcribe one stretch; nothing is drawn at random, so that one recording always gives the same words."""
        segments, _ = self.model.transcribe(
            sound,
            language=language,
            beam_size=self.config.beam,
            temperature=0.0,
            initial_prompt=PROMPTS[language],
            condition_on_previous_text=False,
            vad_filter=False,
        )
        return cast("Iterable[Any]", segments)


def _load(folder: Path, config: Config) -> "WhisperModel":
    from faster_whisper import WhisperModel

    for needed in ("model.bin", "config.json", "tokenizer.json"):
        if not (folder / needed).is_file():  # without its tokenizer, the library would ask a hub for one
            raise AssetError(f"{folder} has no {needed}; it is no Whisper model in CTranslate2's format")
    try:
        model = WhisperModel(
            str(folder),
            device="cpu",
            compute_type=config.compute,
            cpu_threads=config.threads or min(4, _processors()),
            local_files_only=True,
        )
    except RuntimeError as error:
        raise AssetError(f"{folder} cannot be loaded ({str(error).splitlines()[0]})") from error
    model.encode = _remembering(model.encode)
    return model


def _remembering(encode: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """Return an `encode` that knows what it was given last, in each thread.

    What was heard for its language is heard again for its words, and encoding is nearly all the work.
    """
    memory = local()

    def remembered(features: np.ndarray) -> Any:
        known: list[tuple[np.ndarray, Any]] = memory.__dict__.setdefault("known", [])
        for given, encoded in known:
            if np.array_equal(given, features):
                return encoded
        known.append((features, encode(features)))
        del known[:-LISTENS]
        return known[-1][1]

    return remembered


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
        speech_pad_ms=0,
    )
    found = [(int(row["start"]), int(row["end"])) for row in get_speech_timestamps(samples, options)]
    return _with_room([(start, min(end, len(samples))) for start, end in found], len(samples))


def _with_room(spoken: Sequence[tuple[int, int]], length: int) -> Sequence[Stretch]:
    """Give each stretch what is around it, up to half of the way to its neighbour."""
    most = int(AROUND * RATE)
    starts, ends = [start for start, _ in spoken], [end for _, end in spoken]
    gaps = [(b - a) // 2 for a, b in zip(ends, starts[1:], strict=False)]
    before = [min(most, gap) for gap in (starts[0], *gaps)] if spoken else []
    after = [min(most, gap) for gap in (*gaps, length - ends[-1])] if spoken else []
    return [Stretch(*row) for row in zip(starts, ends, before, after, strict=True)]


def _at(seconds: float, stretch: Stretch) -> int:
    """Return the sample of the recording at a time of the sound of a stretch."""
    return stretch.start - stretch.before + int(seconds * RATE)


def _unrolled(text: str, last: str) -> tuple[str, float]:
    """Cut circles short: return the text, and how much of it is left, in [0, 1]."""
    if text == last:
        return "", 0.0
    short = re.sub(rf"(.{{1,40}}?)\1{{{TIMES},}}", r"\1" * TIMES, text)
    return short, len(short) / max(len(text), 1)


def _invented(text: str, confidence: float, heard: Any, sound: np.ndarray) -> bool:
    """Whether a segment is what Whisper writes where nobody speaks, rather than words."""
    if not re.search(r"\w", text) or CREDITS.search(text) or confidence < FAINTEST:
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
