"""Prosody: pitch, loudness, tempo, timbre and 13 MFCCs of the voice, in windows that hold speech; numpy alone.

Frames of 25 ms (pitch: 40 ms and the longest period) every 10 ms, then statistics over windows. Sources: pitch and
aperiodicity by YIN (de Cheveigné and Kawahara 2002); syllable nuclei as voiced loudness peaks between dips (de Jong and
Wempe 2009); energy over against under 500 Hz as in Bone, Lee and Narayanan 2014; MFCCs over an HTK mel scale (Davis and
Mermelstein 1980). librosa would bring numba and llvmlite, 200 MB, and its pYIN alone takes longer than all of this.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from elmd.config import Strict
from elmd.extractors._windows import RATE, windows
from elmd.types import Features

if TYPE_CHECKING:
    from elmd.media import Clip

HOP = 160
FRAMES_A_SECOND = RATE // HOP
MFCCS = 13
COLUMNS: tuple[str, ...] = (
    "pitch_hz", "pitch", "pitch_sd", "pitch_slope", "pitch_range", "energy", "energy_sd", "voiced_ratio", "pause_ratio",
    "syllable_rate", "jitter", "shimmer", "harmonicity", "centroid", "rolloff", "balance", "tilt", "zero_crossing",
    *(f"mfcc_{i}_mean" for i in range(MFCCS)), *(f"mfcc_{i}_sd" for i in range(MFCCS)),
)  # fmt: skip
"""What a row holds.

pitch_hz: mean f0 in Hz. pitch: mean f0 in semitones over the speaker's median in the clip; pitch_sd and pitch_range (5th
to 95th percentile) in semitones, pitch_slope in semitones a second. energy, energy_sd: dB of full scale where there is
a pitch. voiced_ratio: share of the sound that has a pitch. pause_ratio: share of the window without speech.
syllable_rate: nuclei a second of speech. jitter: mean bend of f0 from frame to frame, a share of f0; shimmer: the same of
loudness, dB. harmonicity: dB of periodic over aperiodic energy. centroid, rolloff (85 %): Hz. balance: dB of energy over
against under 500 Hz. tilt: dB an octave. zero_crossing: crossings a second. Jitter and shimmer are of 10 ms frames, not
of single glottal periods.
"""

_WINDOW, _FFT = 400, 512
_PITCH_WINDOW = 640
_CHUNK = 1000
_MELS = 26
_SILENCE = -70.0
"""dB of full scale under which nothing counts as sound."""
_TINY = 1e-12


class Config(Strict):
    """Windows, what counts as speech, and the range of the pitch."""

    window: float = Field(default=1.0, ge=0.2, le=30)
    """Length of a window in seconds."""
    hop: float = Field(default=0.5, ge=0.1, le=30)
    """From one window's start to the next, in seconds."""
    speech: float = Field(default=0.2, ge=0.05)
    """Windows with less speech than this many seconds give no row."""
    lowest: float = Field(default=60.0, ge=40, le=200)
    highest: float = Field(default=600.0, ge=250, le=1000)
    """Range of f0 in Hz."""
    aperiodicity: float = Field(default=0.3, gt=0, lt=1)
    """YIN's normalised difference under which a frame has a pitch."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What was measured every 10 ms; arrays of one length.

    Attributes:
        f0: Hz, 0 where there is no pitch.
        aperiodicity: YIN's normalised difference at that period; 0 is perfectly periodic.
        energy: dB of full scale.
        shape: Columns centroid, rolloff, balance, tilt, zero_crossing and the MFCCs, (n, 18).
        sound: Whether speech sounds here: `speech` without its gaps.
        speech: Whether somebody speaks; gaps under 0.25 s belong to it.
        nuclei: Whether a syllable's loudness peak is here.
    """

    f0: np.ndarray
    aperiodicity: np.ndarray
    energy: np.ndarray
    shape: np.ndarray
    sound: np.ndarray
    speech: np.ndarray
    nuclei: np.ndarray


class Extractor:
    """Measures the voice of a clip."""

    name = "prosody"
    modality = "audio"
    columns = COLUMNS

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.revision = f"1/{self.config.model_dump_json()}"

    def extract(self, clip: "Clip") -> Features:
        """Return a row for every window of the clip that holds speech; none where there is no sound."""
        return self.measure(clip.audio())

    def measure(self, audio: np.ndarray) -> Features:
        """Return a row for every window of mono audio, 16 kHz in [-1, 1], that holds speech."""
        if len(audio) < HOP:
            return Features(np.zeros((0, 2), np.float32), np.zeros((0, len(COLUMNS)), np.float32), COLUMNS)
        found = track(audio, self.config)
        semitones = _semitones(found.f0)
        rows, times = [], []
        for first, last in windows(len(found.f0), *self._steps):
            row = _row(found, semitones, first, last, self.config)
            if row is not None:
                rows.append(row)
                times.append((first / FRAMES_A_SECOND, min(last / FRAMES_A_SECOND, len(audio) / RATE)))
        return Features(
            np.array(times, dtype=np.float32).reshape(-1, 2),
            np.array(rows, dtype=np.float32).reshape(-1, len(COLUMNS)),
            COLUMNS,
        )

    @property
    def _steps(self) -> tuple[int, int]:
        """Window and hop in frames."""
        return round(self.config.window * FRAMES_A_SECOND), round(self.config.hop * FRAMES_A_SECOND)


def track(audio: np.ndarray, config: Config) -> Track:
    """Measure mono audio, 16 kHz and at least 10 ms, every 10 ms; memory beyond the audio is 100 bytes a frame."""
    audio = np.nan_to_num(np.asarray(audio, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    frames = len(audio) // HOP
    longest = int(np.ceil(RATE / config.lowest)) + 1
    padded = np.pad(audio - audio.mean(), (_PITCH_WINDOW // 2, _PITCH_WINDOW + longest))
    f0, aperiodicity, energy = (np.zeros(frames, dtype=np.float32) for _ in range(3))
    shape = np.zeros((frames, 5 + MFCCS), dtype=np.float32)
    bank, cosines = _mel_bank(), _cosines()
    for at in range(0, frames, _CHUNK):
        part = slice(at, min(at + _CHUNK, frames))
        f0[part], aperiodicity[part] = _yin(_cut(padded, part, _PITCH_WINDOW + longest), config)
        energy[part], shape[part] = _spectral(
            _cut(padded[(_PITCH_WINDOW - _WINDOW) // 2 :], part, _WINDOW), bank, cosines
        )
    sound = energy > _floor(energy)
    f0 = _without_leaps(np.where(sound & (aperiodicity < config.aperiodicity), f0, 0))
    speech = _speech(sound, f0 > 0)
    f0 = np.where(speech, f0, 0)
    return Track(f0, aperiodicity, energy, shape, sound & speech, speech, _nuclei(energy, f0 > 0))


def _cut(audio: np.ndarray, part: slice, width: int) -> np.ndarray:
    """Return frames of `width` samples, (n, width), a view; frame i starts at sample i * HOP."""
    view = np.lib.stride_tricks.sliding_window_view(audio, width)
    cut: np.ndarray = view[part.start * HOP : (part.stop - 1) * HOP + 1 : HOP]
    return cut


def _yin(frames: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return f0 in Hz and the normalised difference there, for frames of window + longest period samples.

    Equations 6 and 8 of the paper, with the correlation by FFT; the first dip under 0.15 or else the deepest one;
    parabolic interpolation of the period.
    """
    longest = frames.shape[1] - _PITCH_WINDOW
    size = 1 << (frames.shape[1] - 1).bit_length()
    ahead = np.fft.rfft(frames, size)
    here = np.fft.rfft(frames[:, :_PITCH_WINDOW], size)
    common = np.fft.irfft(ahead * here.conj(), size)[:, :longest]
    power = np.cumsum(np.pad(frames.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
    moving = power[:, _PITCH_WINDOW : _PITCH_WINDOW + longest] - power[:, :longest]
    difference = np.maximum(moving[:, :1] + moving - 2 * common, 0)
    total = np.cumsum(difference[:, 1:], axis=1)
    normal = np.ones_like(difference)
    normal[:, 1:] = difference[:, 1:] * np.arange(1, longest) / np.maximum(total, _TINY)
    normal[moving[:, 0] < _TINY] = 1

    shortest = int(RATE / config.highest)
    inner = normal[:, shortest - 1 :]
    dip = (inner[:, 1:-1] <= inner[:, :-2]) & (inner[:, 1:-1] < inner[:, 2:])
    good = dip & (inner[:, 1:-1] < 0.15)
    deepest = np.where(dip, inner[:, 1:-1], 2).argmin(axis=1)
    lag = np.where(good.any(axis=1), good.argmax(axis=1), deepest) + shortest
    rows = np.arange(len(frames))
    left, middle, right = (normal[rows, lag + step] for step in (-1, 0, 1))
    bend = np.maximum(left + right - 2 * middle, _TINY)
    return RATE / (lag + np.clip((left - right) / (2 * bend), -0.5, 0.5)), middle


def _spectral(frames: np.ndarray, bank: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return energy in dB, (n,), and the columns of `Track.shape`, (n, 18)."""
    energy = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-10))
    crossings = (np.diff(np.signbit(frames), axis=1)).mean(axis=1) * RATE
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW).astype(np.float32), _FFT)) ** 2 + _TINY
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    running = power.cumsum(axis=1)
    centroid = power @ hertz / running[:, -1]
    rolloff = hertz[(running >= 0.85 * running[:, -1:]).argmax(axis=1)]
    low = (hertz >= 80) & (hertz <= 500)
    balance = 10 * np.log10(power[:, hertz > 500].sum(axis=1) / power[:, low].sum(axis=1))
    mels = np.log(power @ bank.T)
    shape = np.column_stack([centroid, rolloff, balance, _tilt(power, hertz), crossings, mels @ cosines.T])
    return energy, shape


def _tilt(power: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Return the least-squares slope of the spectrum from 200 to 5000 Hz, in dB an octave."""
    band = (hertz >= 200) & (hertz <= 5000)
    octaves = np.log2(hertz[band])
    octaves -= octaves.mean()
    slope: np.ndarray = 10 * np.log10(power[:, band]) @ octaves / (octaves @ octaves)
    return slope


def _mel_bank() -> np.ndarray:
    """Return triangular filters, (26, 257): mel = 2595 log10(1 + hertz / 700), up to 8 kHz."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _MELS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(rise, fall), 0)


def _cosines() -> np.ndarray:
    """Return the first rows of the orthonormal DCT-II, (13, 26)."""
    rows: np.ndarray = np.cos(np.pi / _MELS * (np.arange(_MELS) + 0.5) * np.arange(MFCCS)[:, None]) * np.sqrt(2 / _MELS)
    rows[0] /= np.sqrt(2)
    return rows


def _floor(energy: np.ndarray) -> float:
    """Return the loudness over which something sounds: over the background, and not far under the loudest parts."""
    background, loud = np.percentile(energy, [10, 95])
    # Without pauses the 10th percentile is speech itself: never ask for more than 10 dB under the loudest parts.
    return float(max(min(background + 8, loud - 10), loud - 40, _SILENCE))


def _speech(sound: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Return where somebody speaks: sound within 0.2 s of a pitch that lasts 50 ms, and gaps under 0.25 s between."""
    lasting = _spread(~_spread(~voiced, 2), 2)
    spoken = sound & _spread(lasting, FRAMES_A_SECOND // 5)
    closed = np.pad(spoken, FRAMES_A_SECOND)
    return ~_spread(~_spread(closed, 12), 12)[FRAMES_A_SECOND:-FRAMES_A_SECOND]


def _spread(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return where `mask` holds within `reach` frames."""
    total = np.pad(mask, (reach + 1, reach)).cumsum()
    near: np.ndarray = total[2 * reach + 1 :] > total[: -2 * reach - 1]
    return near


def _without_leaps(f0: np.ndarray, reach: int = 15, octaves: float = 0.7) -> np.ndarray:
    """Drop pitches more than `octaves` off the median of the 15 voiced frames on both sides: doubled and halved ones."""
    at = np.flatnonzero(f0)
    if not len(at):
        return f0
    logs = np.log2(f0[at])
    around = np.median(
        np.lib.stride_tricks.sliding_window_view(np.pad(logs, reach, mode="edge"), 2 * reach + 1), axis=1
    )
    kept = f0.copy()
    kept[at[np.abs(logs - around) > octaves]] = 0
    return kept


def _nuclei(energy: np.ndarray, voiced: np.ndarray, dip: float = 2.0) -> np.ndarray:
    """Return the voiced peaks of smoothed loudness that a dip of 2 dB parts from the next."""
    peaks = np.zeros(len(energy), dtype=bool)
    kernel = np.hanning(9)[1:-1]
    smooth = np.convolve(np.pad(energy, 3, mode="edge"), kernel / kernel.sum(), mode="valid")
    floor, rising, best, low = _floor(energy), True, 0, 0
    for i, level in enumerate(smooth.tolist()):
        if rising:
            best = i if level > smooth[best] else best
            if level < smooth[best] - dip:
                peaks[best] = smooth[best] > floor
                rising, low = False, i
        else:
            low = i if level < smooth[low] else low
            if level > smooth[low] + dip:
                rising, best = True, i
    peaks &= _spread(voiced, 1)
    return peaks


def _semitones(f0: np.ndarray) -> np.ndarray:
    """Return semitones over the median pitch of the clip, 0 where there is no pitch."""
    voiced = f0 > 0
    if not voiced.any():
        return np.zeros_like(f0)
    return np.where(voiced, 12 * np.log2(np.where(voiced, f0, 1) / np.median(f0[voiced])), 0)


def _row(found: Track, semitones: np.ndarray, first: int, last: int, config: Config) -> np.ndarray | None:
    """Return the columns of one window, or None where it holds too little speech."""
    here = np.arange(first, last)
    speech = here[found.speech[first:last]]
    sound = here[found.sound[first:last]]
    voiced = here[found.f0[first:last] > 0]
    if len(speech) < config.speech * FRAMES_A_SECOND or len(voiced) < 5:
        return None
    f0, pitch, energy = found.f0[voiced], semitones[voiced], found.energy[voiced]
    periodic = np.clip(1 - found.aperiodicity[voiced], 0.001, 0.999)
    low, high = np.percentile(pitch, [5, 95])
    seconds = (voiced - voiced.mean()) / FRAMES_A_SECOND
    numbers = (
        f0.mean(), pitch.mean(), pitch.std(), (pitch * seconds).sum() / (seconds**2).sum(), high - low,
        energy.mean(), energy.std(), len(voiced) / len(sound), 1 - len(speech) / len(here),
        found.nuclei[first:last].sum() * FRAMES_A_SECOND / len(speech),
        _bend(f0, voiced) / f0.mean(), _bend(energy, voiced),
        10 * np.log10(periodic / (1 - periodic)).mean(),
    )  # fmt: skip
    # Timbre of vowels: that of fricatives follows the words more than the feeling.
    timbre, mfcc = found.shape[voiced, :5], found.shape[sound, 5:]
    return np.concatenate([numbers, timbre.mean(axis=0), mfcc.mean(axis=0), mfcc.std(axis=0)])


def _bend(values: np.ndarray, at: np.ndarray) -> float:
    """Return the mean distance of a value from the middle of its neighbours, over three frames in a row."""
    together = (at[2:] - at[:-2]) == 2
    if not together.any():
        return 0.0
    return float(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2)[together].mean())
