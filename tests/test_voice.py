"""The voice: prosody of synthetic voices with known pitch, loudness and tempo, and what the rules hear in them."""

import shutil
import subprocess
import time
import tracemalloc
import wave
from dataclasses import dataclass

import numpy as np
import pytest

from elmd import errors
from elmd.extractors import prosody
from elmd.labels import EKMAN
from elmd.perception.voice import Baseline, Config, Tone, VoiceReader
from elmd.zoo import EXTRACTORS

RATE = 16_000
NO_MATTER = {"energy"} | {f"mfcc_{i}_{s}" for i in range(13) for s in ("mean", "sd")}


def voice(f0=150.0, seconds=2.0, loud=0.1, rate=4.0, tilt=1.0, noise=0.0, bend=0.0):
    """Harmonics of `f0` (Hz, or points of a glide) whose loudness falls to a tenth `rate` times a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = np.interp(t, np.linspace(0, seconds, np.size(f0)), np.atleast_1d(f0))
    pitch = pitch * 2 ** (bend / 12 * np.sin(2 * np.pi * 1.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(np.sin(k * phase) * k**-tilt * (k * pitch < 7500) for k in range(1, 30))
    sound = sound * (1 - 0.9 * np.cos(np.pi * rate * t) ** 2)
    sound = sound / np.sqrt((sound**2).mean()) * loud
    return (sound + noise * np.random.default_rng(0).standard_normal(len(t))).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def measure(audio, **settings):
    return prosody.Extractor(prosody.Config(**settings)).measure(audio)


@dataclass
class Heard:
    """Stands for a clip, of which an extractor uses the sound only."""

    sound: np.ndarray

    def audio(self):
        return self.sound


@pytest.mark.parametrize("f0", [70, 90, 120, 180, 250, 350, 480, 580])
def test_the_pitch_is_right_within_three_percent(f0):
    found = measure(voice(f0))
    assert len(found) == 3
    assert found.column("pitch_hz") == pytest.approx(f0, rel=0.03)
    assert np.abs(found.column("pitch")).max() < 0.2
    assert found.column("pitch_sd").max() < 0.2
    assert found.column("voiced_ratio").min() > 0.9


@pytest.mark.parametrize(
    ("spoil", "within"), [("noise", 0.03), ("clipped", 0.03), ("no fundamental", 0.03), ("offset", 0.03)]
)
def test_the_pitch_survives(spoil, within):
    sound = voice(150)
    if spoil == "noise":
        sound = voice(150, noise=0.03)
    elif spoil == "clipped":
        sound = np.clip(sound * 20, -1, 1)
    elif spoil == "no fundamental":  # as over a telephone
        spectrum = np.fft.rfft(sound)
        spectrum[np.fft.rfftfreq(len(sound), 1 / RATE) < 300] = 0
        sound = np.fft.irfft(spectrum)
    else:
        sound = sound + 0.3
    assert measure(sound).column("pitch_hz") == pytest.approx(150, rel=within)


def test_a_glide_of_an_octave_in_two_seconds():
    found = measure(voice(np.geomspace(120, 240, 50)))
    assert found.column("pitch_slope") == pytest.approx(6, abs=0.5)
    assert found.column("pitch_range") == pytest.approx(5.4, abs=0.6)  # 90 % of half an octave
    assert found.column("pitch") == pytest.approx([-3, 0, 3], abs=0.5)


@pytest.mark.parametrize("rate", [2, 3, 4, 5, 6, 7])
def test_syllables_are_counted(rate):
    found = measure(voice(150, seconds=4, rate=rate))
    assert found.column("syllable_rate").mean() == pytest.approx(rate, abs=0.5)


def test_timbre_and_perturbation_point_the_right_way():
    dark, bright = (measure(voice(150, tilt=tilt)) for tilt in (2.0, 0.5))
    for name in ("centroid", "rolloff", "balance", "tilt", "zero_crossing"):
        assert bright.column(name).mean() > dark.column(name).mean(), name
    rough = voice(150 * 2 ** (np.random.default_rng(1).normal(0, 0.5, 200) / 12))
    assert measure(rough).column("jitter").mean() > 5 * measure(voice(150)).column("jitter").mean()
    assert (
        measure(voice(150, noise=0.02)).column("harmonicity").mean() < measure(voice(150)).column("harmonicity").mean()
    )


def test_pauses_give_no_rows_and_count_as_pause():
    found = measure(np.concatenate([silence(1), voice(), silence(2), voice(seconds=1)]))
    inside = [(max(s, 1), min(e, 3)) for s, e in found.times.tolist() if s < 3]
    assert all(e - s > 0.4 for s, e in inside)
    assert not len(found.between(3.5, 4.5))  # windows that reach into the pause end at 3.5 and begin at 4.5
    assert len(found.between(5.1, 5.9))
    half = found.column("pause_ratio")[found.times[:, 0] == 0.5]
    assert half == pytest.approx([0.5], abs=0.1)


def coloured(power, seed=0):
    noise = np.random.default_rng(seed).standard_normal(5 * RATE)
    spectrum = np.fft.rfft(noise) / (np.arange(len(noise) // 2 + 1) + 1) ** (power / 2)
    sound = np.fft.irfft(spectrum)
    return 0.1 * sound / sound.std()


NOTHING = {
    "empty": silence(0),
    "one sample": np.ones(1),
    "silence": silence(3),
    "a tenth of a second": voice(seconds=0.1),
    "white noise": coloured(0),
    "pink noise": coloured(1),
    "brown noise": coloured(2),
    "hum": 0.1 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE),
    "not numbers": np.full(RATE, np.nan),
    "whisper of the converter": 1e-5 * coloured(0),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_nobody_speaks_there_is_nothing(name):
    found = measure(NOTHING[name].astype(np.float32))
    assert found.values.shape == (0, len(prosody.COLUMNS))
    assert found.times.shape == (0, 2)
    assert VoiceReader().read(found, 0, 10) is None


def test_loudness_moves_energy_and_nothing_else():
    loud, soft = (measure(voice(np.array([120, 180, 140]), noise=1e-4) * gain) for gain in (1.0, 0.1))
    assert loud.column("energy") - soft.column("energy") == pytest.approx(20, abs=0.1)
    for name in set(prosody.COLUMNS) - NO_MATTER:
        assert loud.column(name) == pytest.approx(soft.column(name), rel=0.02, abs=0.02), name
    assert loud.column("mfcc_3_mean") == pytest.approx(soft.column("mfcc_3_mean"), abs=0.1)


def test_the_extractor_is_an_entry_of_the_zoo():
    module = EXTRACTORS.load("prosody")
    extractor = module.Extractor(module.Config())
    found = extractor.extract(Heard(voice(seconds=1.2)))
    assert found.columns == extractor.columns == module.COLUMNS
    assert (found.values.dtype, found.times.dtype) == (np.float32, np.float32)
    assert found.times[-1, 1] == pytest.approx(1.2)
    assert np.isfinite(found.values).all()
    assert extractor.revision != module.Extractor(module.Config(window=2.0)).revision


def test_rows_do_not_depend_on_where_chunks_end():
    sound = voice([120, 200, 110, 190], seconds=25)
    whole = measure(sound)
    shorter = measure(sound[: round(9.5 * RATE)])
    here = shorter.times[:, 1] < 9
    names = [name for name in prosody.COLUMNS if name != "pitch"]  # against the clip's own median
    for name in names:
        assert shorter.column(name)[here] == pytest.approx(whole.column(name)[: len(shorter)][here], rel=1e-3, abs=1e-3)


def test_ten_minutes_are_quick_and_memory_stays_flat():
    sound = np.tile(voice([120, 180, 100], seconds=10, rate=5, noise=0.002), 60)
    started = time.process_time()
    assert len(measure(sound)) == 1199
    assert time.process_time() - started < 0.05 * 600
    peaks = []
    for seconds in (20, 60):
        tracemalloc.start()
        measure(sound[: seconds * RATE])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 40 * 0.5e6


# The rules


def listen(usual, now, **also):
    """The tone of a voice `now` after ten seconds of the voice `usual`."""
    start = 10.0
    sound = np.concatenate([voice(seconds=10, **usual), silence(1), voice(seconds=3, **{**usual, **now}, **also)])
    return VoiceReader().listen(measure(sound), start + 1, start + 4)


USUAL = {"f0": 150, "loud": 0.05, "rate": 4, "tilt": 1.2, "bend": 1.5}
RISING = {
    "pitch": [{"f0": f0} for f0 in (110, 130, 150, 180, 220, 300)],
    "energy": [{"loud": loud} for loud in (0.012, 0.025, 0.05, 0.1, 0.2)],
    "rate": [{"rate": rate} for rate in (2, 3, 4, 5, 6)],
    "balance": [{"tilt": tilt} for tilt in (2.4, 1.8, 1.2, 0.9, 0.6)],
    "variation": [{"bend": bend} for bend in (0.2, 0.8, 1.5, 3.0, 4.5)],
}


@pytest.mark.parametrize("cue", RISING)
def test_arousal_rises_with_every_cue(cue):
    arousal = [listen(USUAL, step).arousal for step in RISING[cue]]
    assert arousal == sorted(arousal)
    assert arousal[-1] - arousal[0] > 0.1
    assert arousal[0] < 0.05 + arousal[len(arousal) // 2]
    assert max(map(abs, arousal)) < 0.9, "one cue alone must not saturate it"


def test_all_cues_together_are_excitement_and_its_absence_is_calm():
    excited = listen(USUAL, {"f0": 230, "loud": 0.2, "rate": 6, "tilt": 0.7, "bend": 3.5})
    dull = listen(USUAL, {"f0": 115, "loud": 0.012, "rate": 2.2, "tilt": 1.8, "bend": 0.2})
    assert excited.arousal > 0.7
    assert dull.arousal < -0.6
    assert dull.valence < excited.valence
    assert excited.state().label in ("surprise", "anger", "fear", "happiness")
    assert dull.state().label == "sadness"


def test_a_voice_as_usual_is_neutral_whoever_speaks_and_however_loud():
    states = []
    for usual in (USUAL, {**USUAL, "f0": 260}, {**USUAL, "f0": 95}, {**USUAL, "loud": 0.005}):
        tone = listen(usual, {})
        assert abs(tone.arousal) < 0.15
        states.append(tone.state())
    assert {state.label for state in states} == {"neutral"}
    assert all(state.scores["neutral"] < 0.6 for state in states), "a calm voice must not drown clear words"


def test_turning_the_microphone_up_changes_nothing():
    sound = np.concatenate([voice(seconds=8, **USUAL), voice(seconds=2, **{**USUAL, "f0": 220, "loud": 0.1})])
    full, half = (VoiceReader().listen(measure(sound * gain), 8, 10) for gain in (1.0, 0.25))
    assert full.arousal == pytest.approx(half.arousal, abs=0.02)


def test_a_voice_heard_before_is_the_baseline():
    calm = measure(voice(seconds=20, **USUAL))
    excited = measure(voice(seconds=3, **{**USUAL, "f0": 230, "loud": 0.2}))
    reader = VoiceReader()
    alone, against = reader.listen(excited, 0, 3), reader.listen(excited, 0, 3, Baseline.of(calm))
    assert abs(alone.arousal) < 0.2 < 0.5 < against.arousal
    assert Baseline.of(calm).seconds == pytest.approx(20, abs=1)
    with pytest.raises(ValueError, match="needs speech"):
        Baseline.of(measure(silence(1)))


def test_little_speech_is_neutral():
    calm = Baseline.of(measure(voice(seconds=20, **USUAL)))
    tones = []
    for seconds in (0.25, 0.5, 1.0, 3.0):
        shout = measure(np.concatenate([silence(1), voice(300, seconds, loud=0.3), silence(1)]))
        tones.append(VoiceReader().listen(shout, 0, 10, calm))
    confidence = [tone.confidence for tone in tones]
    assert confidence == sorted(confidence)
    assert confidence[0] < 0.35 < 0.9 < confidence[-1] < 1
    assert tones[0].state().label == "neutral"
    assert tones[-1].state().label != "neutral"


def test_overlapping_windows_count_once():
    for hop in (0.1, 0.5, 1.0):
        found = measure(voice(seconds=5), hop=hop)
        assert Baseline.of(found).seconds == pytest.approx(5, abs=0.3)


def test_a_state_says_when_and_from_what():
    found = measure(np.concatenate([voice(seconds=3), silence(5), voice(seconds=3)]))
    state = VoiceReader().read(found, 1.0, 2.0)
    assert (state.start, state.end, state.source) == (1.0, 2.0, "audio")
    assert VoiceReader().read(found, 4.5, 6.5) is None


def test_the_voice_alone_is_never_sure():
    grid = np.linspace(-1, 1, 41)
    worst = 0.0
    for arousal in grid:
        for valence in np.linspace(-0.2, 0.2, 9):
            scores = Tone(arousal, valence, 1.0).state().scores
            assert set(scores) == set(EKMAN)
            worst = max(worst, *(share for label, share in scores.items() if label != "neutral"))
    assert 0.4 < worst < 0.51


def test_the_rules_take_no_weights():
    VoiceReader(Config())
    with pytest.raises(errors.UsageError, match="the agent"):
        VoiceReader(Config(weights="runs/x"))


# A real synthesiser

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
# espeak-ng 1.51 says some Mandarin syllables with English sounds; its pitch, speed and loudness are what counts here.
WORDS = {
    "en": "I have been thinking about it all day long, and now I would like to tell you what happened at work.",
    "cmn": "jin1tian1 zao3shang5 wo3 qu4 gong1yuan2 san4bu4, tian1qi4 hen3 hao3, wo3 jue2de5 hen3 shu1fu5.",
}


def espeak(folder, language, pitch=50, speed=160, loud=60):
    path = folder / f"{language}-{pitch}-{speed}-{loud}.wav"
    options = ["-v", language, "-p", pitch, "-s", speed, "-a", loud, "-w", path, WORDS[language]]
    subprocess.run(["espeak-ng", *map(str, options)], check=True, capture_output=True)
    with wave.open(str(path)) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    sound = np.frombuffer(data, dtype="<i2") / 32768
    at = np.arange(round(len(sound) * RATE / rate)) * rate / RATE
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


@needs_espeak
@pytest.mark.parametrize("language", WORDS)
def test_a_synthesiser_sounds_as_it_was_set(tmp_path, language):
    usual = measure(espeak(tmp_path, language))

    def mean(column, **settings):
        return measure(espeak(tmp_path, language, **settings)).column(column).mean()

    pitches = [mean("pitch_hz", pitch=p) for p in (20, 50, 80)]
    rates = [mean("syllable_rate", speed=s) for s in (100, 160, 230)]
    assert pitches == sorted(pitches)
    assert rates == sorted(rates)
    assert rates[-1] > 1.2 * rates[0]
    baseline, reader = Baseline.of(usual), VoiceReader()
    arousal = []
    for settings in ({"pitch": 20, "speed": 110, "loud": 25}, {}, {"pitch": 85, "speed": 220, "loud": 150}):
        arousal.append(reader.listen(measure(espeak(tmp_path, language, **settings)), 0, 60, baseline).arousal)
    assert arousal == sorted(arousal)
    assert arousal[0] < -0.3 < 0.3 < arousal[2]
    assert abs(arousal[1]) < 0.2


# openSMILE


def test_opensmile_measures_where_somebody_speaks():
    pytest.importorskip("opensmile")
    module = EXTRACTORS.load("opensmile")
    extractor = module.Extractor(module.Config())
    found = extractor.extract(Heard(np.concatenate([voice(200, 3), silence(4)])))
    assert found.values.shape == (len(found), 88)
    assert len(found) in (3, 4)
    semitones = found.column("F0semitoneFrom27.5Hz_sma3nz_amean")
    assert 27.5 * 2 ** (semitones[0] / 12) == pytest.approx(200, rel=0.03)
    assert len(extractor.extract(Heard(silence(3)))) == 0
    assert extractor.extract(Heard(silence(0))).values.shape == (0, 88)
