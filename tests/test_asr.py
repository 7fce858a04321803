"""Speech recognition: what is written down, what is left out as invented, and the recogniser's manners."""

import math
import re
import shutil
import socket
import subprocess
import threading
import unicodedata
import wave
from dataclasses import dataclass, field

import numpy as np
import pytest
from conftest import python

from elmd import assets
from elmd.asr import whisper
from elmd.asr.whisper import RATE, Config, Recogniser, Stretch
from elmd.errors import AssetError, UnknownName
from elmd.zoo import ASR

RANDOM = np.random.default_rng(0)


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 220 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float, level: float) -> np.ndarray:
    return (level * RANDOM.standard_normal(int(seconds * RATE))).astype(np.float32)


# ---- without a model ----


@dataclass
class Heard:
    """As much of faster-whisper's segment as the recogniser reads."""

    text: str
    start: float = 0.0
    end: float = 1.0
    avg_logprob: float = -0.2
    no_speech_prob: float = 0.05
    compression_ratio: float = 1.0


@dataclass
class Model:
    """Stands for the loaded Whisper: says `answers` in turn and remembers what it was asked."""

    answers: list[list[Heard]]
    odds: list[list[tuple[str, float]]] = field(default_factory=list)
    asked: list[dict] = field(default_factory=list)
    listened: list[float] = field(default_factory=list)

    def transcribe(self, sound, **options):
        self.asked.append(options | {"seconds": len(sound) / RATE})
        return iter(self.answers.pop(0)), None

    def feature_extractor(self, sound):
        return np.zeros((80, 1 + len(sound) * 100 // RATE))

    def detect_language(self, features):
        self.listened.append(features.shape[1] / 100)
        odds = self.odds.pop(0)
        return *odds[0], odds


def recogniser(*answers: list[Heard], odds=(), **config) -> tuple[Recogniser, Model]:
    made = Recogniser(Config(vad=False, **config))
    made._model = Model([*answers], [*odds])
    return made, made._model


def test_the_zoo_knows_it():
    assert "whisper" in ASR.names()
    assert ASR.load("whisper").Recogniser(Config()).name == "whisper-base"
    loaded = python("import elmd.asr.whisper, sys; print(*{m.split('.')[0] for m in sys.modules})").split()
    assert {"faster_whisper", "ctranslate2", "onnxruntime", "opencc", "av"} & {*loaded} == set()


@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 511, 1599])
def test_what_is_too_short_is_nothing_and_loads_nothing(home, samples, vad):
    assert Recogniser(Config(vad=vad)).transcribe(np.full(samples, 0.5, np.float32)) == ()


SILENT = {
    "zeros": np.zeros(3 * RATE, np.float32),
    "not a number": np.full(RATE, np.nan, np.float32),
    "infinite": np.full(RATE, np.inf, np.float32),
    "whisper of noise": noise(3, 0.001),
    "loud noise": noise(3, 0.3),
    "too loud noise": noise(3, 5.0),
    "hum": tone(3),
    "double precision": np.zeros(RATE, np.float64),
}


@pytest.mark.parametrize("sound", SILENT.values(), ids=SILENT)
def test_where_nobody_speaks_there_is_no_segment_and_no_model_is_needed(home, sound):
    assert Recogniser(Config()).transcribe(sound) == ()


@pytest.mark.parametrize("wrong", [np.zeros((2, RATE), np.float32), np.zeros(RATE, np.int16)], ids=["stereo", "int16"])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="audio must be mono float samples"):
        Recogniser(Config()).transcribe(wrong)


def test_too_loud_sound_is_turned_down_and_holes_are_silence():
    loud = np.array([0.0, 2.0, -4.0, np.nan, np.inf], np.float32)
    np.testing.assert_allclose(whisper._clean(loud), [0, 0.5, -1, 0, 0.25])
    fine = np.array([0.5, -0.25], np.float32)
    np.testing.assert_array_equal(whisper._clean(fine), fine)
    assert np.isnan(loud[3])  # the caller's own array stays as it was


def test_a_model_that_is_not_here_is_told_with_the_command_and_not_fetched(home, monkeypatch):
    monkeypatch.setattr(assets, "_fetch", lambda *_: pytest.fail("fetched unasked"))
    with pytest.raises(AssetError, match=r"^whisper-base \(133 MB\) is not here; run: elmd assets get whisper-base$"):
        Recogniser(Config(vad=False)).transcribe(tone(1), "zh")
    with pytest.raises(UnknownName, match="did you mean 'whisper-base'"):
        Recogniser(Config(vad=False, model="whisper-bas")).transcribe(tone(1), "zh")


@pytest.mark.parametrize("gone", ["model.bin", "tokenizer.json", "config.json"])
def test_a_folder_that_is_no_model_is_named(tmp_path, gone):
    for name in {"model.bin", "tokenizer.json", "config.json"} - {gone}:
        (tmp_path / name).write_text("{}")
    with pytest.raises(AssetError, match=rf"has no {re.escape(gone)}; it is no Whisper model"):
        Recogniser(Config(vad=False, model=str(tmp_path))).transcribe(tone(1), "zh")


def test_a_damaged_model_is_one_line(tmp_path):
    for name in ("model.bin", "tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(AssetError, match="cannot be loaded") as error:
        Recogniser(Config(vad=False, model=str(tmp_path))).transcribe(tone(1), "zh")
    assert "\n" not in str(error.value)


def test_the_model_is_loaded_once_however_many_ask(home, monkeypatch, tmp_path):
    loads = []
    monkeypatch.setattr(whisper, "_load", lambda *_: loads.append(1) or threading.Event().wait(0.1) or Model([]))
    shared = Recogniser(Config(model=str(tmp_path)))
    assert loads == []
    threads = [threading.Thread(target=lambda: shared.model) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(loads) == 1


TIDY = [
    ("zh", " 老闆表揚了我,我真的很高興。", "老板表扬了我，我真的很高兴。"),
    ("zh", "乾燥的頭髮和後面的皇后", "干燥的头发和后面的皇后"),
    ("zh", "我用 iPhone 發了一個 email 給她", "我用 iPhone 发了一个 email 给她"),
    ("zh", "妈妈 谢谢你", "妈妈，谢谢你"),
    ("zh", "好不好?", "好不好？"),
    ("zh", "我很好.", "我很好。"),
    ("zh", "版本3.5,很好", "版本3.5,很好"),
    ("zh", "谢谢你 以下是普通话。", "谢谢你"),
    ("zh", "以下是普通话的句子。", ""),
    ("en", "  I  am   fine, thanks. ", "I am fine, thanks."),
    ("en", " Her name is 陳 Li.", "Her name is 陳 Li."),
]


@pytest.mark.parametrize(("language", "raw", "written"), TIDY)
def test_words_are_written_simplified_with_the_marks_of_their_language(language, raw, written):
    assert whisper._tidy(raw, language) == written
    assert whisper._tidy(written, language) == written


INVENTED = [
    Heard("字幕由Amara.org社区提供"), Heard("请不吝点赞 订阅 转发 打赏支持明镜与点点栏目"), Heard("中文字幕志愿者 李宗盛"),
    Heard("優優獨播劇場——YoYo Television Series Exclusive"), Heard(" Subtitles by the Amara.org community"),
    Heard("。。。。。"), Heard("……"), Heard(""), Heard("以下是普通话的句子。"),
    Heard("踏" * 45, compression_ratio=9.0), Heard(" I'm sorry," * 40, avg_logprob=-0.1, compression_ratio=23.0),
    Heard("我们走吧", avg_logprob=-2.5),
    Heard("我们走吧", avg_logprob=-0.9, no_speech_prob=0.8),
]  # fmt: skip


@pytest.mark.parametrize("heard", INVENTED, ids=lambda heard: heard.text[:30] or "empty")
def test_what_whisper_invents_is_left_out(heard):
    made, _ = recogniser([heard])
    assert made.transcribe(tone(1), "zh") == ()


STOCK = [
    "Thank you for watching!",
    "Thanks for watching.",
    "you",
    " Thank you.",
    "Bye.",
    "谢谢大家!",
    "谢谢观看",
    "請訂閱",
]


@pytest.mark.parametrize("words", STOCK)
def test_stock_phrases_are_believed_only_where_there_is_sound(words):
    language = "en" if words.isascii() else "zh"
    loud, faint = tone(1), tone(1, 0.001)
    assert len(recogniser([Heard(words)])[0].transcribe(loud, language)) == 1
    assert recogniser([Heard(words)])[0].transcribe(faint, language) == ()
    assert recogniser([Heard(words, no_speech_prob=0.65)])[0].transcribe(loud, language) == ()
    assert len(recogniser([Heard(f"{words} I am sad 我很难过")])[0].transcribe(faint, language)) == 1


SAID = [
    "这部电影有中文字幕吗？",
    "我负责字幕制作。",
    "I read the subtitles by myself.",
    "谢谢你一直陪着我。",
    "哈哈哈哈",
]


@pytest.mark.parametrize("words", SAID)
def test_what_people_say_is_kept(words):
    language = "en" if words.isascii() else "zh"
    (segment,) = recogniser([Heard(words)])[0].transcribe(tone(1), language)
    assert (segment.text, segment.language) == (words, language)


def test_circles_are_cut_short_and_believed_less():
    (laugh,) = recogniser([Heard("哈" * 12 + "你说得对", compression_ratio=2.5)])[0].transcribe(tone(1), "zh")
    assert laugh.text == "哈哈哈你说得对"
    assert laugh.confidence == pytest.approx(math.exp(-0.2) * 0.95 * 7 / 16, abs=1e-4)
    said = [Heard(" I'm sorry.", i, i + 1, compression_ratio=5.0) for i in range(4)] + [Heard(" Bye now.", 4, 5)]
    assert [s.text for s in recogniser(said)[0].transcribe(tone(5), "en")] == ["I'm sorry.", "Bye now."]
    twice = [Heard(" I'm sorry.", i, i + 1) for i in range(2)]
    assert len(recogniser(twice)[0].transcribe(tone(2), "en")) == 2


def test_nothing_is_drawn_at_random():
    made, model = recogniser([Heard("一")])
    made.transcribe(tone(1), "zh")
    assert [asked["temperature"] for asked in model.asked] == [0.0]


def test_what_was_encoded_is_not_encoded_again():
    calls, rows = [], [np.full((2, 3), i, np.float32) for i in range(5)]
    encode = whisper._remembering(lambda features: calls.append(1) or float(features[0, 0]))
    assert [encode(row.copy()) for row in (rows[0], rows[1], rows[0], rows[1])] == [0, 1, 0, 1]
    assert len(calls) == 2
    assert [encode(row) for row in (*rows, rows[0])] == [0, 1, 2, 3, 4, 0]
    assert len(calls) == 6  # no more than a few are kept


def test_confidence_falls_with_unlikely_words_and_with_doubt_of_speech():
    answers = [
        Heard("一"),
        Heard("二", avg_logprob=-1.0),
        Heard("三", no_speech_prob=0.5),
        Heard("四", avg_logprob=0.1),
    ]
    sure, unlikely, doubtful, most = recogniser(answers)[0].transcribe(tone(1), "zh")
    assert sure.confidence == pytest.approx(math.exp(-0.2) * 0.95, abs=1e-4)
    assert max(unlikely.confidence, doubtful.confidence) < sure.confidence < most.confidence <= 1


def test_times_are_those_of_the_recording_within_the_speech(monkeypatch):
    half = RATE // 2
    stretches = [Stretch(RATE, 3 * RATE, half, half), Stretch(5 * RATE, 6 * RATE)]
    monkeypatch.setattr(whisper, "_speech", lambda *_: stretches)
    first = [Heard("一", 0.0, 1.4), Heard("二", 1.4, 29.0), Heard("三", 4.0, 5.0)]
    made, model = recogniser(first, [Heard("四", -0.5, 0.5)])
    found = made.transcribe(tone(7), "zh")
    assert [(s.start, s.end, s.text) for s in found] == [(1.0, 1.9, "一"), (1.9, 3.0, "二"), (5.0, 5.5, "四")]
    assert [asked["seconds"] for asked in model.asked] == [3, 1]


def test_a_stretch_is_heard_with_what_is_around_it_but_not_with_its_neighbour():
    most = int(whisper.AROUND * RATE)
    made = whisper._with_room([(100, 20000), (20400, 50000), (90000, 99990)], 100000)
    assert made == [
        Stretch(100, 20000, 100, 200), Stretch(20400, 50000, 200, most), Stretch(90000, 99990, most, 10)
    ]  # fmt: skip
    assert whisper._with_room([], 100) == []


ODDS = {
    "certain": ([[("zh", 0.9), ("en", 0.05)]], "zh", 1),
    "another language": ([[("ja", 0.8), ("zh", 0.1), ("ko", 0.05), ("en", 0.01)]], "zh", 1),
    "English by another": ([[("cy", 0.6), ("de", 0.2), ("en", 0.15), ("zh", 0.001)]], "en", 1),
    "torn, then clear": ([[("zh", 0.4), ("en", 0.35)], [("en", 0.9), ("zh", 0.01)], [("en", 0.9)]], "en", 3),
    "torn for long": ([[("zh", 0.4), ("en", 0.35)]] * 5, "zh", 3),
}


@pytest.mark.parametrize(("odds", "language", "listens"), ODDS.values(), ids=ODDS)
def test_a_language_that_was_not_named_is_the_likelier_of_the_two(monkeypatch, odds, language, listens):
    monkeypatch.setattr(whisper, "_speech", lambda *_: [Stretch(0, seconds * RATE) for seconds in (1, 4, 2, 5, 3)])
    made, model = recogniser(*[[Heard("ok 好")]] * 5, odds=odds)
    assert {segment.language for segment in made.transcribe(tone(5))} == {language}
    assert {asked["language"] for asked in model.asked} == {language}
    assert {asked["initial_prompt"] for asked in model.asked} == {whisper.PROMPTS[language]}
    assert model.listened == [5, 4, 3][:listens]


# ---- with the model, on the robotic voices of espeak-ng ----

ENGLISH = (
    "My boss praised me, I am really happy about it.",
    "I feel lonely and nobody understands me.",
    "Shall we go for a walk in the park this weekend?",
)
CHINESE = {
    "老板表扬了我，我真的很高兴。": "lao3 ban3 biao3 yang2 le5 wo3 , wo3 zhen1 de5 hen3 gao1 xing4 .",
    "我有点害怕一个人走夜路。": "wo3 you3 dian3 hai4 pa4 yi2 ge4 ren2 zou3 ye4 lu4 .",
    "周末我们一起去公园散步，好不好？": "zhou1 mo4 wo3 men5 yi4 qi3 qu4 gong1 yuan2 san4 bu4 , hao3 bu4 hao3 ?",
}
"""Sentences and how they sound: espeak-ng as Debian ships it reads pinyin well and characters not at all."""


def errors(said: str, heard: str, unit: str) -> float:
    """Edits from what was said to what was heard, per word or character, without marks and case."""
    a, b = (_units(text, unit) for text in (said, heard))
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1] / len(a)


def _units(text: str, unit: str) -> list[str]:
    plain = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text.lower())
    return plain.split() if unit == "word" else [*plain.replace(" ", "")]


def test_the_error_rate_counts():
    assert errors("I am fine.", "i am, fine", "word") == 0
    assert errors("I am fine", "I was fine too", "word") == pytest.approx(2 / 3)
    assert errors("我很好。", "你很 好", "character") == pytest.approx(1 / 3)
    assert errors("我很好", "", "character") == 1


@pytest.fixture(scope="module")
def say(tmp_path_factory):
    """Speak a text: mono float32 at 16 kHz."""
    from scipy.signal import resample_poly

    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: apt install espeak-ng")
    file = tmp_path_factory.mktemp("say") / "voice.wav"

    def speak(text: str, voice: str) -> np.ndarray:
        subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", str(file), text], check=True)
        with wave.open(str(file)) as sound:
            assert sound.getframerate() == 22050
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return resample_poly(samples / 32768, 320, 441).astype(np.float32)

    return speak


@pytest.fixture(scope="module")
def real() -> Recogniser:
    assets.get("whisper-base")
    return Recogniser(Config())


@pytest.mark.weights
def test_english_speech_is_written_down(real, say):
    rates = []
    for text in ENGLISH:
        segments = real.transcribe(say(text, "en-us"), "en")
        assert {segment.language for segment in segments} == {"en"}
        assert all(0.2 < segment.confidence <= 1 for segment in segments)
        rates.append(errors(text, " ".join(segment.text for segment in segments), "word"))
    assert sum(rates) / len(rates) < 0.2, rates


@pytest.mark.weights
def test_chinese_speech_is_written_down_in_simplified_characters(real, say):
    from opencc import OpenCC

    rates = []
    for text, sound in CHINESE.items():
        words = "".join(segment.text for segment in real.transcribe(say(sound, "cmn-latn-pinyin"), "zh"))
        assert OpenCC("t2s").convert(words) == words
        rates.append(errors(text, words, "character"))
    assert sum(rates) / len(rates) < 0.5, rates  # the voice is hard to understand; a human one fares far better


@pytest.mark.weights
def test_the_language_is_recognised_and_the_network_left_alone(real, say, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    fresh = Recogniser(Config())
    assert {s.language for s in fresh.transcribe(say(ENGLISH[0], "en-us"))} == {"en"}
    assert {s.language for s in fresh.transcribe(say([*CHINESE.values()][1], "cmn-latn-pinyin"))} == {"zh"}


@pytest.mark.weights
def test_utterances_lie_where_they_were_said_whatever_is_around_them(real, say):
    first, second = (say(text, "en-us") for text in ENGLISH[:2])
    quiet = noise(2.5, 0.001)
    sound = np.concatenate([quiet, first, quiet, quiet, second, quiet])
    segments = real.transcribe(sound, "en")
    assert [errors(t, s.text, "word") < 0.3 for t, s in zip(ENGLISH[:2], segments, strict=True)] == [True, True]
    starts = [2.5, 2.5 + len(first) / RATE + 5.0]
    ends = [2.5 + len(first) / RATE, starts[1] + len(second) / RATE]
    np.testing.assert_allclose([s.start for s in segments], starts, atol=0.5)
    np.testing.assert_allclose([s.end for s in segments], ends, atol=0.8)
    holes = sound.copy()
    holes[: 2 * RATE] = np.nan
    assert [s.text for s in real.transcribe(holes * 6, "en")] == [s.text for s in segments]


@pytest.mark.weights
def test_threads_that_share_one_hear_the_same(real, say):
    sounds = [say(text, "en-us") for text in ENGLISH[:2]] * 2
    alone = [real.transcribe(sound, "en") for sound in sounds[:2]] * 2
    together: list = [None] * 4
    threads = [
        threading.Thread(target=lambda i=i: together.__setitem__(i, real.transcribe(sounds[i], "en"))) for i in range(4)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert together == alone


@pytest.mark.weights
def test_without_the_voice_detection_noise_still_gives_no_words(real):
    assets.get("whisper-base")
    blunt = Recogniser(Config(vad=False))
    for name in ("zeros", "whisper of noise", "hum"):
        for language in ("zh", "en"):
            assert blunt.transcribe(SILENT[name], language) == (), (name, language)
