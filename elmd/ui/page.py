"""The page's parts, what each button does, and the server that shows it."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd.errors import MissingExtra, UsageError
from elmd.text import clean
from elmd.ui import cards, turns
from elmd.ui.turns import EMPTY, LONGEST, History, View
from elmd.ui.words import LANGUAGES, STARTERS, say

try:
    import gradio as gr
    from gradio.state_holder import StateHolder
except ModuleNotFoundError as error:
    raise MissingExtra("the page", "ui") from error

if TYPE_CHECKING:
    from elmd.agent import Agent

HOST, PORT = "127.0.0.1", 7860
WAITING = 32
"""How many turns may wait for the model; a further visitor is told that the queue is full."""
SECTIONS = ("heard", "tone", "demonstrations", "seconds")
"""The parts of the panel, each of which folds."""

_HERE = Path(__file__).parent
_QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_FOCUS = "() => { if (matchMedia('(hover: hover)').matches) document.querySelector('#box textarea')?.focus(); }"
"""Give the box the focus again, but not on a touch screen, where that would raise the keyboard."""
_FONT = ("system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
_FONT_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


@dataclass(frozen=True, slots=True)
class Parts:
    """The components that events touch."""

    language: Any
    chat: Any
    notice: Any
    box: Any
    send: Any
    stop: Any
    clear: Any
    folds: dict[str, Any]
    cards: dict[str, Any]

    @property
    def views(self) -> list[Any]:
        """The components of a View, in its order."""
        return [self.chat, self.notice, *(self.cards[name] for name in SECTIONS)]

    @property
    def controls(self) -> list[Any]:
        """What changes while elmd answers."""
        return [self.box, self.send, self.stop]

    @property
    def worded(self) -> list[Any]:
        """What changes with the language."""
        return [self.language, self.chat, self.box, self.send, self.stop, self.clear, *self.folds.values()]


def build(agent: "Agent") -> Any:
    """Return the page over `agent` as gr.Blocks; `look()` holds what gradio wants at launch."""
    with gr.Blocks(title=say("title", "zh"), analytics_enabled=False, fill_width=True) as page:
        parts = _lay_out()
        _wire(page, parts, agent)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def look() -> dict[str, Any]:
    """Return theme, styles and head for gradio's launch; nothing comes from another host."""
    script, style = ((_HERE / name).read_text(encoding="utf-8") for name in ("language.js", "style.css"))
    return {
        "theme": gr.themes.Base(font=_FONT, font_mono=_FONT_MONO),
        # In the head, not as `css`: there gradio puts its own scope before every selector, `html` too.
        "head": f'<meta name="color-scheme" content="light dark"><script>{script}</script><style>{style}</style>',
        "favicon_path": str(_HERE / "favicon.svg"),
        "footer_links": [],
    }


def launch(agent: "Agent", host: str | None = None, port: int | None = None) -> Any:
    """Load the models and serve the page in the background; port 0 takes a free one.

    Host and port default to GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else to HOST and PORT or the next free one.
    """
    place = None if port is None else usable_port(host or HOST, port)
    agent.warm()
    page = build(agent)
    page.launch(
        server_name=host,
        server_port=place,
        quiet=True,
        prevent_thread_lock=True,
        run_history=False,
        enable_monitoring=False,
        share=False,
        ssr_mode=False,
        pwa=False,
        **look(),
    )
    _keep_nothing(page)
    return page


class ForgetfulHolder(StateHolder):  # type: ignore[misc]
    """Sessions without values: gradio would keep the last value of every component, for links into a conversation."""

    def __getitem__(self, session_id: str) -> Any:
        """Return the session, told to keep no values."""
        session = super().__getitem__(session_id)
        session._update_value_in_config = _forget
        return session


def _keep_nothing(page: Any) -> None:
    """Make a launched page forget what is said as soon as the turn is over."""
    holder = ForgetfulHolder()
    holder.set_blocks(page)
    page.app.state_holder = holder


def _forget(_key: int, _value: Any) -> None:
    """Take the place of `SessionState._update_value_in_config`."""


def usable_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0; raises UsageError when somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(f"cannot serve the page on {host} port {port} ({error}); choose another --port") from error
        return int(probe.getsockname()[1])


def wordings(language: str) -> list[Any]:
    """Return the updates that put the page into `language`, in the order of Parts.worded."""
    starters = [{"text": text} for text in STARTERS[language]]
    return [
        gr.update(value=language, label=say("language", language)),
        gr.update(label=say("chat", language), placeholder=_placeholder(language), examples=starters),
        gr.update(label=say("box", language), placeholder=say("box_hint", language)),
        *(gr.update(value=say(key, language)) for key in ("send", "stop", "clear")),
        *(gr.update(label=say(key, language)) for key in SECTIONS),
    ]


def check(text: str, _history: History, language: str) -> list[Any]:
    """Refuse an empty message with a quiet hint at the box."""
    fine = gr.validate(True, "")
    return [gr.validate(bool(clean(text or "")), say("nothing_said", language)), fine, fine]


def take(text: str, history: History, _language: str) -> tuple[Any, ...]:
    """Move the message from the box into the chat, and offer to stop."""
    box, send, stop = _busy(True)
    return turns.said(text, history), {**box, "value": ""}, send, stop


def pick(event: gr.SelectData) -> str:
    """Put a starter into the box, for the person to change or send."""
    return str(event.value["text"])


def shown(view: View) -> tuple[Any, ...]:
    """Return a View as gradio updates, in the order of Parts.views."""
    values = (getattr(view, field.name) for field in fields(View))
    return tuple(gr.skip() if value is None else value for value in values)


def _placeholder(language: str) -> str:
    return f"## {say('greeting', language)}\n{say('invitation', language)}"


def _busy(busy: bool) -> tuple[Any, ...]:
    """Return the state of box, send and stop while elmd answers, and after."""
    return gr.update(interactive=not busy), gr.update(visible=not busy), gr.update(visible=busy)


def _lay_out() -> Parts:
    with gr.Row(elem_id="top", equal_height=True):
        _html(cards.headline(), "headline")
        language = gr.Radio(
            [("中文", "zh"), ("English", "en")],
            value=LANGUAGES[0],
            label=say("language", "zh"),
            elem_id="language",
            container=False,
            min_width=150,
            scale=0,
        )
    _html(cards.promises(), "promises")
    with gr.Row(elem_id="rooms"):
        with gr.Column(elem_id="talk", scale=6, min_width=300):
            chat, notice, box, send, stop, clear = _talk()
        with gr.Column(elem_id="reading", scale=5, min_width=300):
            _html(cards.reading_head(), "reading-head")
            folds, card_of = _panel()
    return Parts(language, chat, notice, box, send, stop, clear, folds, card_of)


def _html(value: str, name: str) -> Any:
    return gr.HTML(value, elem_id=name, apply_default_css=False)


def _talk() -> tuple[Any, ...]:
    chat = gr.Chatbot(
        elem_id="chat",
        label=say("chat", "zh"),
        show_label=False,
        placeholder=_placeholder("zh"),
        examples=[{"text": text} for text in STARTERS["zh"]],
        height="100%",
        render_markdown=False,
        allow_tags=False,
        latex_delimiters=[],
        feedback_options=None,
        buttons=[],
    )
    notice = _html("", "notice")
    with gr.Row(elem_id="say"):
        box = gr.Textbox(
            elem_id="box",
            label=say("box", "zh"),
            placeholder=say("box_hint", "zh"),
            lines=1,
            max_lines=6,
            max_length=LONGEST,
            show_label=False,
            scale=1,
            min_width=120,
        )
        send = gr.Button(say("send", "zh"), variant="primary", elem_id="send", scale=0, min_width=88)
        stop = gr.Button(say("stop", "zh"), variant="secondary", elem_id="stop", scale=0, min_width=88, visible=False)
    clear = gr.Button(say("clear", "zh"), variant="secondary", elem_id="clear", size="sm")
    return chat, notice, box, send, stop, clear


def _panel() -> tuple[dict[str, Any], dict[str, Any]]:
    folds, card_of = {}, {}
    for name in SECTIONS:
        with gr.Accordion(say(name, "zh"), open=name != "seconds", elem_id=f"fold-{name}") as folds[name]:
            card_of[name] = _html("", name)
    return folds, card_of


def _wire(page: Any, parts: Parts, agent: "Agent") -> None:
    def reply(history: History) -> Iterator[tuple[Any, ...]]:
        yield from map(shown, turns.answer(agent, history))

    asked = gr.on(
        [parts.box.submit, parts.send.click],
        take,
        [parts.box, parts.chat, parts.language],
        [parts.chat, *parts.controls],
        validator=check,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    turn = asked.success(
        reply, parts.chat, parts.views, show_progress="minimal", show_progress_on=parts.chat, api_visibility="private"
    )
    over = turn.then(lambda: _busy(False), None, parts.controls, **_QUICK)
    stopped = parts.stop.click(lambda: _busy(False), None, parts.controls, cancels=turn, **_QUICK)
    cleared = parts.clear.click(
        lambda: (*shown(EMPTY), *_busy(False)), None, [*parts.views, *parts.controls], cancels=turn, **_QUICK
    )
    for event in (over, stopped, cleared):
        # Queued, unlike the rest: gradio's queue holds on to its last event until the next one, and this one is empty.
        event.then(lambda: None, js=_FOCUS, **_QUICK | {"queue": True, "concurrency_limit": None})
    parts.chat.example_select(pick, None, parts.box, **_QUICK)
    parts.language.input(wordings, parts.language, parts.worded, js="(l) => elmdLanguage.choose(l)", **_QUICK)
    page.load(wordings, parts.language, parts.worded, js="() => elmdLanguage.first()", **_QUICK)
