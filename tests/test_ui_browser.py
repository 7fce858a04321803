"""The real page in a real Chromium: what a visitor does and sees, on a desk and on a phone."""

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from types import CodeType, FrameType, FunctionType, ModuleType, SimpleNamespace
from urllib.parse import urlsplit

import pytest

from elmd.types import Completion, Demonstration, EmotionState, Reply, Safety, Utterance

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE = 60_000
"""Milliseconds: the machine may be busy."""
WATCH = """() => {
  window.lengths = new Set();
  new MutationObserver(() => {
    const rows = document.querySelectorAll('#chat .bot-row');
    if (rows.length) window.lengths.add(rows[rows.length - 1].innerText.trim().length);
  }).observe(document.querySelector('#chat'), {childList: true, subtree: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def chromium():
    """The path of a Chromium."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium on the PATH")
    return path


@pytest.fixture(scope="module")
def address(tiny_agent, tmp_path_factory):
    """The page of `elmd demo`, served by a process of its own."""
    command = [sys.executable, "-m", "elmd", "demo", "--recipe", str(tiny_agent), "--port", "0"]
    environment = os.environ | {"ELMD_HOME": str(tmp_path_factory.mktemp("home"))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        said = ""
        try:
            for line in server.stdout:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    break
            else:
                pytest.fail(f"the page did not start:\n{said}")
        finally:
            server.terminate()


class SlowAgent:
    """Writes a character every 50 ms and remembers how its streams ended."""

    def __init__(self):
        self.ends = []
        self.running = self.most = 0
        self.lock = threading.Lock()

    def warm(self):
        pass

    def stream(self, dialogue, cancel=None):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        said = dialogue.last.text
        try:
            for length in range(0, 21 if "short" in said else 201):
                yield self._reply(said, "."[:length] and f"{said[:20]}{'.' * length}")
                time.sleep(0.05)
            self.ends.append("whole")
        except GeneratorExit:
            self.ends.append("closed")
            raise
        finally:
            with self.lock:
                self.running -= 1

    def _reply(self, said, text):
        nasty = "<img src=x onerror=\"document.title='hacked'\"> {{value}} ${document.title='hacked'}"
        item = Demonstration("d", (Utterance("user", nasty),), nasty, "sadness", "en", "test", "CC0-1.0", 0.5)
        level = "high" if "die" in said else "none"
        calm = EmotionState.of("neutral")
        return Reply(
            text, calm, calm, (item,), (), Safety(level), {"generation": 1.0}, "slow", Completion(text, "stop")
        )


@pytest.fixture
def slow():
    """A page over a SlowAgent, in this process."""
    from elmd.ui.page import launch

    agent = SlowAgent()
    page = launch(agent, "127.0.0.1", 0)
    yield SimpleNamespace(agent=agent, address=page.local_url)
    page.close(verbose=False)


@pytest.fixture
def visit(chromium, tmp_path):
    """Open the page as a new visitor with a profile of their own; fails if anything asks another host."""
    asked = []
    with playwright.sync_playwright() as driver:
        contexts = []

        def open_page(address, size=DESK, locale="zh-CN", scheme="light", **more):
            context = driver.chromium.launch_persistent_context(
                tmp_path / f"profile{len(contexts)}",
                executable_path=chromium,
                args=FLAGS,
                viewport=size,
                locale=locale,
                color_scheme=scheme,
                **more,
            )
            contexts.append(context)
            context.set_default_timeout(PATIENCE)
            context.on("request", lambda request: asked.append(request.url))
            page = context.pages[0]
            page.goto(address)
            page.wait_for_selector("#box textarea")
            page.wait_for_function("document.documentElement.dataset.elmd")
            sent = "Send" if locale.startswith("en") else "发送"
            page.wait_for_function(f"document.querySelector('#send')?.innerText.trim() === '{sent}'")
            return page

        yield open_page
        for context in contexts:
            context.close()
    outside = [url for url in asked if urlsplit(url).scheme not in ("data", "blob") and _host(url) != "127.0.0.1"]
    assert asked
    assert outside == []


def _host(url):
    return urlsplit(url).hostname


def say(page, text):
    page.fill("#box textarea", text)
    page.press("#box textarea", "Enter")


def wait_until_over(page):
    page.wait_for_selector("#chat .bot-row")
    page.wait_for_selector("#send")


def too_wide(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_one_turn_in_chinese(visit, address, tmp_path):
    page = visit(address)
    page.evaluate(WATCH)
    say(page, "考研又没过，不敢告诉爸妈，心里堵得慌。")
    wait_until_over(page)
    page.wait_for_selector("#heard .bars")
    assert "我听见你说：考研又没过" in page.inner_text("#chat .bot-row")
    assert len(page.evaluate("[...window.lengths]")) > 3, "the reply did not stream"
    for card in ("#heard", "#tone"):
        assert page.locator(f"{card} .bars li").count() == 7
        assert "%" in page.inner_text(f"{card} .bars .top")
        assert "情绪效价" in page.inner_text(card)
    demos = page.locator("#demonstrations .demos > li")
    assert demos.count() >= 1
    assert "相近度" in demos.first.inner_text()
    assert "来源 elmd" in demos.first.inner_text()
    page.click("#fold-seconds button")
    assert "写回复" in page.inner_text("#seconds")
    page.screenshot(path=tmp_path / "turn.png", full_page=True)
    assert too_wide(page) <= 0


def test_language_follows_the_browser_and_the_switch_is_remembered(visit, address):
    page = visit(address, locale="en-GB")
    assert "is an AI" in page.inner_text("#promises")
    assert "人工智能" not in page.inner_text("#promises")
    say(page, "I failed the exam again.")
    wait_until_over(page)
    assert page.inner_text("#heard .bars .top .word").isascii()
    page.click("#language label:has(input[value=zh])")
    page.wait_for_function("document.querySelector('#send').innerText.trim() === '发送'")
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert "听到的心情" in page.inner_text("#fold-heard")
    assert "情绪效价" in page.inner_text("#heard")
    assert "I hear you say" in page.inner_text("#chat .bot-row"), "the conversation stays"
    page.reload()
    page.wait_for_function("document.querySelector('#send')?.innerText.trim() === '发送'")
    assert "人工智能" in page.inner_text("#promises")


def test_empty_message_gets_a_hint_and_nothing_is_sent(visit, address):
    page = visit(address)
    say(page, "   ")
    page.wait_for_selector("text=先写一句话")
    assert page.locator("#chat .message-row").count() == 0
    assert page.is_visible("#send")


def test_starter_goes_into_the_box(visit, address):
    page = visit(address)
    page.click("#chat .example >> nth=0")
    page.wait_for_function("document.querySelector('#box textarea').value.includes('考研')")
    assert page.locator("#chat .message-row").count() == 0


def test_clear_empties_conversation_and_panel(visit, address):
    page = visit(address)
    say(page, "今天终于放假了！")
    wait_until_over(page)
    page.wait_for_selector("#heard .bars")
    page.click("#clear")
    page.wait_for_function("!document.querySelector('#chat .message-row') && !document.querySelector('#reading .card')")
    assert page.locator("#chat .example").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_has_no_sideways_scroll(visit, address, scheme, tmp_path):
    page = visit(address, size=PHONE, scheme=scheme, has_touch=True)
    assert too_wide(page) <= 0
    box = page.locator("#send").bounding_box()
    assert box["y"] + box["height"] <= PHONE["height"], "one can write without scrolling"
    say(page, "最好的朋友突然不回我消息了，" * 4)
    wait_until_over(page)
    page.wait_for_selector("#heard .bars")
    assert too_wide(page) <= 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(24, 21, 18)"
    assert dark is (scheme == "dark")
    page.screenshot(path=tmp_path / f"phone-{scheme}.png", full_page=True)


def test_keyboard_alone_is_enough_and_focus_shows(visit, address):
    page = visit(address)
    page.evaluate("document.querySelector('#chat .example:last-of-type').focus()")
    page.keyboard.press("Tab")
    page.keyboard.type("你好呀")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "send"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    wait_until_over(page)
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")


def test_every_control_has_a_name(visit, address):
    page = visit(address)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, textarea, input')].filter((e) =>
      !(e.innerText || e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.labels?.[0]?.textContent)?.trim())
      .map((e) => e.outerHTML)""")
    assert nameless == []


def test_stop_ends_the_writing_and_keeps_what_was_said(visit, slow):
    page = visit(slow.address, locale="en")
    say(page, "tell me a long story")
    page.wait_for_function("document.querySelector('#chat .bot-row')?.innerText.includes('...')")
    assert page.is_disabled("#box textarea")
    page.click("#stop")
    page.wait_for_selector("#send")
    wait_for(lambda: slow.agent.ends == ["closed"])
    kept = page.inner_text("#chat .bot-row")
    assert "..." in kept
    say(page, "short one")
    wait_for(lambda: slow.agent.ends == ["closed", "whole"])
    page.wait_for_selector("#send")
    assert page.locator("#chat .bot-row").count() == 2
    assert page.locator("#chat .bot-row").first.inner_text() == kept


def test_closing_the_tab_ends_the_writing(visit, slow):
    page = visit(slow.address, locale="en")
    say(page, "tell me a long story")
    page.wait_for_function("document.querySelector('#chat .bot-row')?.innerText.includes('...')")
    page.close()
    wait_for(lambda: slow.agent.ends == ["closed"])


def test_visitors_wait_for_each_other_and_do_not_mix(visit, slow):
    pages = [visit(slow.address, locale="en") for _ in range(2)]
    for name, page in zip(("short a", "short b"), pages, strict=True):
        say(page, name)
    for name, page in zip(("short a", "short b"), pages, strict=True):
        page.wait_for_function(f"document.querySelector('#chat .bot-row')?.innerText.includes('{name}{'.' * 20}')")
        page.wait_for_selector("#send")
        assert page.locator("#chat .message-row").count() == 2
    assert slow.agent.most == 1


def test_foreign_text_runs_nothing_and_danger_is_answered_calmly(visit, slow):
    page = visit(slow.address, locale="en")
    say(page, "<img src=x onerror=\"document.title='hacked'\"> short, I want to die")
    page.wait_for_selector("#notice .banner[role=alert]")
    wait_until_over(page)
    page.wait_for_timeout(500)
    assert page.title() != "hacked"
    assert "<img" in page.inner_text("#chat .user-row")
    assert "<img" in page.inner_text("#chat .bot-row")
    assert page.locator("#chat .message-row img, .demos img").count() == 0
    assert "${document" in page.inner_text("#demonstrations")
    assert "safety" in page.inner_text("#notice")


def test_server_keeps_nothing_of_a_turn(visit, slow):
    from gradio.blocks import Blocks

    page = visit(slow.address, locale="en")
    say(page, "short secret xyzzy")
    wait_for(lambda: slow.agent.ends == ["whole"])
    page.wait_for_selector("#send")
    served = next(blocks for blocks in Blocks.get_instances() if blocks.local_url == slow.address)
    queue = served._queue
    assert any("Conversation with elmd" in found for found in strings_below(served)), "the search finds strings"

    def kept():
        return [found for found in strings_below(served.app, served) if "xyzzy" in found]

    wait_for(lambda: not queue.event_ids_to_events and not kept())
    page.close()
    wait_for(lambda: not kept())


def strings_below(*roots):
    """Yield every string that the objects hold, directly or through others."""
    seen, waiting = set(), list(roots)
    code = (type, ModuleType, FunctionType, FrameType, CodeType)
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif id(item) not in seen and not isinstance(item, code):
            seen.add(id(item))
            waiting.extend(gc.get_referents(item))
