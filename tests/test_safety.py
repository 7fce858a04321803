"""The crisis gate: what it must see, what it must let pass, and that nothing opens it."""

import pytest

from elmd.safety import gate
from elmd.types import ASSISTANT, Dialogue, Safety, Utterance


def level(*texts, speakers=None):
    speakers = speakers or ["user"] * len(texts)
    turns = tuple(Utterance(s, t) for s, t in zip(speakers, texts, strict=True))
    return gate.check(Dialogue("d", turns)).level


HIGH = [
    "我想自杀", "我真的不想活了", "活着没意思", "我想死", "有时候真想去死", "我在想怎么结束自己的生命", "我昨天割腕了",
    "我又开始自残了", "我活不下去了", "站在楼顶想跳楼", "不如死了算了，我想轻生",
    "I want to kill myself", "I'm thinking about suicide", "I feel suicidal", "I don't want to live anymore",
    "i wish i was dead", "everyone would be better off if I end my life", "I've been cutting myself again",
    "I want to die", "I WANT TO DIE",
]  # fmt: skip
DISGUISED = [
    "我想自 杀", "我 想 自 杀", "自.杀", "自-杀", "我想自\u200b杀", "我想自\u200d杀", "我想自\n杀", "自s",
    "輕生的念頭又來了", "我想自殺", "我想自残", "自殘", "我想尋短見", "ｋｉｌｌ ｍｙｓｅｌｆ", "kill my\u00adself", "I don’t want to live",
    "KILL MYSELF", "不想活了。。。",
    "活著沒意思", "我想跳樓", "不想活下去了", "我好累想死", "烦得想死", 
]  # fmt: skip
IMMINENT = [
    "遗书写好了",
    "遺書寫好了",
    "药我都吞了",
    "我现在就去死",
    "我今晚就跳下去",
    "I took all my pills",
    "I wrote my suicide note",
]
CONCERN = ["我撑不下去了", "没有我他们会更好", "I can't go on", "they'd be happier without me"]
HARMLESS = [
    "笑死我了", "累死了", "想死你了", "热死了", "尴尬死了", "饿得要死", "吓死我了", "我爱死这首歌了", "气死我了", "可爱到死",
    "开心得要死", "我今天很难过", "他去世了，我很想他", "我想打死那只蚊子", "手机没电自动关机了", "这部戏里女主角死了",
    "死党来看我了", "作业多得要死", "热得想死", "想死你们了", "我不想活动", "我困死了", "死线是周五", "这道题好难，难死了", "我想死他了",
    "I'm dying of laughter", "this cake is to die for", "I was bored to death", "my phone died", "killing time at work",
    "I want to live in Paris", "the deadline kills me", "I can't wait", "",
]  # fmt: skip


@pytest.mark.parametrize("text", HIGH)
def test_plain_statements_are_high(text):
    assert level(text) == "high"


@pytest.mark.parametrize("text", DISGUISED)
def test_spelling_does_not_hide_a_statement(text):
    assert level(text) == "high"


@pytest.mark.parametrize("text", IMMINENT)
def test_a_deed_under_way_is_imminent(text):
    assert level(text) == "imminent"


@pytest.mark.parametrize("text", CONCERN)
def test_hopelessness_is_a_concern_and_still_answered(text):
    assert level(text) == "concern"
    assert not gate.needs_fixed_answer(Safety("concern"))


@pytest.mark.parametrize("text", HARMLESS)
def test_figures_of_speech_pass(text):
    assert level(text) == "none"


def test_a_figure_of_speech_does_not_hide_a_statement_beside_it():
    assert level("笑死，可是我真的想自杀") == "high"


def test_only_high_and_imminent_get_the_fixed_answer():
    assert [gate.needs_fixed_answer(Safety(found)) for found in gate.LEVELS] == [False, False, True, True]


def test_the_level_is_the_highest_of_the_last_turns_of_the_person():
    assert level("我想死", "没事了", "开玩笑的") == "high"
    assert level("撑不下去了", "我想死", "好了") == "high"
    assert gate.LOOK_BACK == 3
    assert level("我想死", "没事了", "开玩笑的", "吃饭去") == "none"


def test_only_the_persons_own_words_count():
    assert level("你是不是想自杀？", "不是", speakers=[ASSISTANT, "user"]) == "none"
    assert level("他说想自杀", "别这样", speakers=["a", "b"]) == "none"
    talk = ["我想死", "怎么了", "没什么", "真的吗", "嗯"]
    assert level(*talk, speakers=["user", ASSISTANT] * 2 + ["user"]) == "high"


def test_the_rules_that_fired_are_told():
    safety = gate.check(Dialogue("d", (Utterance("user", "我想自杀, I want to die"),)))
    assert set(safety.rules) == {"zh-kill-self", "en-want-death"}


def test_whatever_breaks_the_gate_leaves_it_shut(monkeypatch):
    monkeypatch.setattr(gate, "_normal", lambda text: 1 / 0)
    assert gate.check(Dialogue("d", (Utterance("user", "你好"),))) == Safety("high", ("gate-failed",))


def test_a_long_text_is_read_in_no_time():
    import time

    started = time.perf_counter()
    assert level("要不死" * 30_000 + "我想自杀") == "high"
    assert level("没有我" * 30_000) == "none"
    assert time.perf_counter() - started < 3
