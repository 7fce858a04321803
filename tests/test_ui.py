"""The page without a browser: words, cards, one turn over a fake agent, and the verb `elmd demo`."""

import json
import re
import runpy
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from elmd.agent import reply_json
from elmd.errors import BackendError, MissingExtra, UnknownName
from elmd.labels import EKMAN
from elmd.types import ASSISTANT, Completion, Demonstration, Dialogue, EmotionState, Reply, Safety, Utterance
from elmd.ui import cards, turns, words

NASTY = '<img src=x onerror=alert(1)> "q" & {{value}} ${1+1} `x`'
SAD = EmotionState.from_scores({"sadness": 6, "fear": 2, "neutral": 2})
CALM = EmotionState.of("neutral", "fused")
DEMONSTRATION = Demonstration(
    "d1", (Utterance("user", NASTY, "sadness"),), NASTY, "happiness", "zh", NASTY, "CC0-1.0", 0.87
)
SECONDS = {"safety": 0.001, "perception": 0.04, "retrieval": 0.06, "prediction": 0.003, "generation": 1.5}


def reply_of(text, level="none"):
    return Reply(text, CALM, SAD, (DEMONSTRATION,), (), Safety(level), SECONDS, "fake", Completion(text, "stop"))


class FakeAgent:
    """Has the agent's methods; writes `texts` one after the other."""

    def __init__(self, texts=("", "你", "你好"), level="none", error=None):
        self.texts, self.level, self.error = texts, level, error
        self.dialogues: list[Dialogue] = []
        self.closed = self.warmed = False

    def warm(self):
        self.warmed = True

    def stream(self, dialogue, cancel=None):
        self.dialogues.append(dialogue)
        try:
            for text in self.texts:
                yield reply_of(text, self.level)
            if self.error:
                raise self.error
        finally:
            self.closed = True


class Tags(HTMLParser):
    """Collects the tags and the text of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def message(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize("key", words.WORDS)
def test_every_text_is_there_in_both_languages(key):
    assert all(words.say(key, language).strip() for language in words.LANGUAGES)
    assert Tags(words.both(key)).text == "".join(words.WORDS[key])


def test_words_in_another_language_are_refused():
    with pytest.raises(UnknownName, match="language of the page 'fr'"):
        words.say("send", "fr")


def test_chinese_texts_are_chinese():
    for zh, en in words.WORDS.values():
        assert re.search("[\u4e00-\u9fff]", zh)
        assert not re.search("[\u4e00-\u9fff]", en)


def test_emotion_card_has_the_seven_scores_and_the_valence():
    card = cards.emotion_card(SAD)
    assert re.findall(r'data-label="(\w+)"', card)[:3] == ["sadness", "fear", "neutral"]
    assert set(re.findall(r'data-label="(\w+)"', card)) == set(EKMAN)
    assert Tags(card).text.count("%") == len(EKMAN)
    assert f"−{abs(SAD.valence):.2f}" in card
    assert "悲伤" in card
    assert "sadness" in Tags(card).text


def test_foreign_text_cannot_become_markup_or_template():
    for card in (cards.demonstration_cards([DEMONSTRATION]), cards.seconds_card({NASTY: 1.0}, NASTY)):
        parsed = Tags(card)
        assert "img" not in parsed.tags
        assert NASTY in parsed.text
        assert not re.search(r"\{\{|\$\{|`", card)
    assert "<img" not in cards.notice("failed", NASTY)


def test_demonstrations_show_context_reply_emotion_similarity_and_source():
    shown = Tags(cards.demonstration_cards([DEMONSTRATION])).text
    assert all(part in shown for part in ("快乐", "happiness", "0.87", "来源"))
    assert "没有参考示例" in cards.demonstration_cards([])


def test_only_the_last_turns_of_a_context_are_shown():
    context = tuple(Utterance("user", f"turn {i}") for i in range(9))
    item = Demonstration("d", context, "r", "neutral", "en", "elmd", "CC0-1.0")
    assert re.findall(r"turn \d", cards.demonstration_cards([item])) == ["turn 6", "turn 7", "turn 8"]


def test_seconds_card_adds_up():
    shown = Tags(cards.seconds_card(SECONDS, "fake")).text
    assert f"{sum(SECONDS.values()):.2f}" in shown
    assert "读出情绪" in shown
    assert cards.seconds_card({}, "fake")


@pytest.mark.parametrize(("level", "shown"), [("none", False), ("concern", False), ("high", True), ("imminent", True)])
def test_urgent_levels_have_a_banner(level, shown):
    assert ('role="alert"' in cards.safety_banner(Safety(level))) is shown


def test_page_says_that_it_is_an_ai_and_guesses_and_keeps_nothing():
    shown = Tags(cards.promises()).text
    assert all(part in shown for part in ("人工智能", "猜测", "什么也不留", "is an AI", "a guess", "nothing is kept"))


def test_history_becomes_a_dialogue():
    history = [message("user", "你好"), {"role": "assistant", "content": "我在"}, message("user", " 我考砸了 \x00")]
    dialogue = turns.dialogue_of(history)
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == [
        ("user", "你好"),
        (ASSISTANT, "我在"),
        ("user", "我考砸了"),
    ]
    assert dialogue.language == "zh"


@pytest.mark.parametrize(
    "history",
    [
        [],
        [message("user", "   ")],
        [message("user", "hi"), message("assistant", "hello")],
        [message("system", "obey")],
        [{"role": "user", "content": {"path": "/etc/passwd"}}],
        [{"role": "user", "content": None}],
        [{"content": "no role"}],
    ],
)
def test_nothing_to_answer(history):
    assert turns.dialogue_of(history) is None
    agent = FakeAgent()
    assert list(turns.answer(agent, history)) == []
    assert agent.dialogues == []


def test_long_histories_are_cut():
    history = [message("user", f"say {i}") for i in range(200)]
    dialogue = turns.dialogue_of(history)
    assert len(dialogue.turns) == turns.KEPT_MESSAGES
    assert dialogue.last.text == "say 199"


def test_turn_shows_the_reasoning_first_then_the_growing_reply_then_the_times():
    history = turns.said("我考砸了", [])
    cleared, reasoning, *growing, whole = turns.answer(FakeAgent(("", "你", "你好")), history)
    assert cleared == turns.View(notice="")
    assert reasoning.history is None
    assert reasoning.seconds is None
    assert reasoning.heard
    assert reasoning.tone
    assert reasoning.demonstrations
    assert [view.history[-1]["content"] for view in growing] == ["你", "你好"]
    assert all(view.heard is None for view in growing)
    assert whole.history == [*history, {"role": "assistant", "content": "你好"}]
    assert "1.50" in whole.seconds


@pytest.mark.parametrize("text", [NASTY, "Tom & Jerry, AT&T", "&lt;b&gt; &amp;lt; &eacute;", "1 < 2 > 0", "<3", "你好"])
def test_words_go_through_the_chat_unchanged_but_as_no_markup(text):
    shown = turns.for_chat(text)
    assert Tags(shown).tags == []
    assert Tags(shown).text == text
    assert turns.from_chat(shown) == text
    assert turns.dialogue_of(turns.said(text, [])).last.text == text


def test_reply_with_markup_is_shown_as_text():
    *_, whole = turns.answer(FakeAgent(("", "<img src=x>")), turns.said("hi", []))
    assert whole.history[-1]["content"] == "&lt;img src=x>"


def test_fixed_answer_comes_whole_with_its_banner():
    *_, whole = turns.answer(FakeAgent(("请拨打 12356",), "high"), turns.said("我不想活了", []))
    assert whole.history[-1]["content"] == "请拨打 12356"
    assert 'data-level="high"' in whole.notice


def test_error_of_the_agent_becomes_a_notice():
    *_, last = turns.answer(FakeAgent(("", "你"), error=BackendError("no <b>answer</b>")), turns.said("hi", []))
    assert "&lt;b&gt;" in last.notice


def test_reply_without_words_leaves_the_history_alone():
    history = turns.said("hi", [])
    *_, last = turns.answer(FakeAgent(("", " ")), history)
    assert last.history == history
    assert "请再试一次" in last.notice


def test_closing_the_turn_closes_the_agent_stream():
    agent = FakeAgent()
    views = turns.answer(agent, turns.said("hi", []))
    next(views), next(views)
    assert not agent.closed
    views.close()
    assert agent.closed


def test_agent_without_any_reply_changes_nothing():
    assert list(turns.answer(FakeAgent(()), turns.said("hi", []))) == [turns.View(notice="")]


def test_page_allows_one_turn_at_a_time_and_opens_no_api():
    from elmd.ui import page

    built = page.build(FakeAgent())
    assert built.analytics_enabled is False
    assert built._queue.max_size == page.WAITING
    assert built._queue.default_concurrency_limit == 1
    assert all(fn.api_visibility == "private" for fn in built.fns.values())
    assert built.title == words.say("title", "zh")


def test_look_names_no_other_host():
    from elmd.ui import page

    look = page.look()
    assert "http" not in look["head"]
    assert not look["theme"]._stylesheets
    assert "@font-face" not in look["theme"]._get_theme_css()


@pytest.mark.parametrize(("text", "fine"), [("", False), (" \n\t", False), (None, False), ("嗯", True)])
def test_empty_message_gets_a_hint(text, fine):
    from elmd.ui import page

    first, *rest = page.check(text, [], "en")
    assert first["is_valid"] is fine
    assert first["message"] == words.say("nothing_said", "en")
    assert all(value["is_valid"] for value in rest)


def test_message_moves_into_the_chat_and_the_box_rests():
    from elmd.ui import page

    history, box, send, stop = page.take(" 你好 ", [], "zh")
    assert history == [{"role": "user", "content": "你好"}]
    assert (box["value"], box["interactive"], send["visible"], stop["visible"]) == ("", False, False, True)


def test_switching_the_language_words_every_part():
    from elmd.ui import page

    parts = page.build(FakeAgent())
    updates = page.wordings("en")
    load = next(fn for fn in parts.fns.values() if fn.name == "wordings")
    assert len(updates) == len(load.outputs)
    assert updates[0]["value"] == "en"
    assert updates[3]["value"] == "Send"


def test_parts_that_stay_are_skipped():
    from elmd.ui import page

    shown = page.shown(turns.View(notice=""))
    assert shown[1] == ""
    assert len(shown) == 6
    assert all(value["__type__"] == "update" for i, value in enumerate(shown) if i != 1)
    assert page.shown(turns.EMPTY) == ([], "", "", "", "", "")


def test_page_without_gradio_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "elmd.ui.page", raising=False)
    with pytest.raises(MissingExtra, match=r"the page needs an optional part: pip install 'elmd\[ui\]'"):
        import elmd.ui.page  # noqa: F401


def test_words_and_cards_load_no_gradio():
    code = "import sys, elmd.ui.turns, elmd.cli.demo; print(any(m in sys.modules for m in ('gradio', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_samples_wait_for_a_reply(language):
    from elmd.cli.demo import sample

    dialogue = sample(language)
    assert dialogue.language == language
    assert dialogue.last.speaker == "user"
    assert len(dialogue.turns) > 1


def test_demo_once_prints_a_whole_turn(cli, tiny_agent, home):
    ran = cli("demo", "--once", "--recipe", tiny_agent)
    assert ran.code == 0, ran.err
    for key in ("conversation", "heard", "tone", "demonstrations", "seconds", "generation", "total"):
        assert words.say(key, "zh") in ran.out
    assert "我听见你说" in ran.out


def test_demo_json_is_the_public_shape(cli, tiny_agent, home):
    ran = cli("demo", "--once", "--json", "--language", "en", "--recipe", tiny_agent)
    shape = json.loads(ran.out)
    assert shape.keys() == reply_json(reply_of("")).keys()
    assert shape["reply"].startswith("I hear you say")
    assert set(shape["seconds"]) == set(SECONDS)


def test_demo_in_an_unknown_language_is_a_wrong_use(cli):
    ran = cli("demo", "--once", "--language", "fr")
    assert ran.code == 2
    assert "known: zh, en" in ran.complaint


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_port_in_use_is_one_line_before_any_model_loads(cli, taken):
    ran = cli("demo", "--port", taken)
    assert ran.code == 2
    assert f"port {taken}" in ran.complaint


def test_app_serves_the_default_agent(monkeypatch):
    app = runpy.run_path(str(Path(__file__).parents[1] / "app.py"))
    served = []
    running = SimpleNamespace(block_thread=lambda: served.append("blocked"))
    monkeypatch.setitem(app["main"].__globals__, "launch", lambda agent: served.append(agent) or running)
    monkeypatch.setattr(app["Agent"], "from_recipe", classmethod(lambda cls: "the agent"))
    app["main"]()
    assert served == ["the agent", "blocked"]
