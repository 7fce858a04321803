"""What elmd read, as HTML: pure functions from parts of a Reply. Every foreign word is escaped."""

import html
from collections.abc import Mapping, Sequence

from elmd.labels import word_for
from elmd.types import Demonstration, EmotionState, Safety, Utterance
from elmd.ui.words import WORDS, both, pair

SHOWN_TURNS = 3
"""How many of the last turns of a demonstration's context are shown."""
URGENT = ("high", "imminent")
"""The safety levels that the page answers with a banner."""

_TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def safe(text: str) -> str:
    """Escape text for HTML, and the signs of gradio's HTML templates with it."""
    return html.escape(text).translate(_TEMPLATE_SIGNS)


def emotion_card(state: EmotionState) -> str:
    """Return the seven scores as bars, the most probable first, and the valence."""
    ranked = sorted(state.scores, key=lambda label: -state.scores[label])
    bars = "".join(_bar(label, state.scores[label], label == state.label) for label in ranked)
    return f'<ul class="bars">{bars}</ul>{_valence(state.valence)}'


def demonstration_cards(demonstrations: Sequence[Demonstration]) -> str:
    """Return the demonstrations, best first, with emotion, similarity and source."""
    if not demonstrations:
        return f'<p class="quiet">{both("no_demonstrations")}</p>'
    return f'<ol class="demos">{"".join(map(_demonstration, demonstrations))}</ol>'


def seconds_card(seconds: Mapping[str, float], backend: str) -> str:
    """Return the time of each stage, their sum, and who wrote the reply."""
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = "".join(_stage(stage, spent, spent / longest) for stage, spent in seconds.items())
    total = f'<li class="total"><span class="word">{both("total")}</span>{_number(sum(seconds.values()))}</li>'
    return f'<ul class="stages">{rows}{total}</ul><p class="quiet">{both("written_by")} {safe(backend)}</p>'


def safety_banner(safety: Safety) -> str:
    """Return a calm banner for a high or imminent level, else nothing."""
    if safety.level not in URGENT:
        return ""
    return (
        f'<div class="banner" role="alert" data-level="{safe(safety.level)}">'
        f"<strong>{both('careful')}</strong> {both('careful_why')}</div>"
    )


def notice(key: str, detail: str = "") -> str:
    """Return a quiet line about something that did not work."""
    return f'<div class="notice" role="status">{both(key)}{safe(detail)}</div>'


def headline() -> str:
    """Return the head of the page."""
    return (
        '<header class="headline"><svg class="mark" viewBox="0 0 40 40" aria-hidden="true">'
        '<circle cx="20" cy="20" r="19"/><path d="M11 17q3 3.2 6 0M23 17q3 3.2 6 0M12.5 25q7.5 6.6 15 0"/></svg>'
        f"<div><h1>elmd</h1><p>{both('tagline')}</p></div></header>"
    )


def promises() -> str:
    """Return what a visitor should know before the first word."""
    lines = "".join(f"<li>{both(key)}</li>" for key in ("is_ai", "is_guess", "is_private"))
    return f'<ul class="promises">{lines}</ul>'


def reading_head() -> str:
    """Return the heading of the panel and what it will show once there is a reply."""
    return f'<h2>{both("reading")}</h2><p class="quiet empty">{both("reading_empty")}</p>'


def explained(key: str, card: str) -> str:
    """Return a card under the sentence that explains it."""
    return f'<div class="card"><p class="why">{both(f"{key}_why")}</p>{card}</div>'


def _word(label: str) -> str:
    return pair(word_for(label, "zh"), word_for(label, "en"))


def _bar(label: str, score: float, top: bool) -> str:
    return (
        f'<li class="{"top" if top else "rest"}" data-label="{label}"><span class="word">{_word(label)}</span>'
        f'<span class="track" aria-hidden="true"><span style="width:{100 * score:.1f}%"></span></span>'
        f'<span class="number">{100 * score:.0f}%</span></li>'
    )


def _valence(value: float) -> str:
    return (
        f'<div class="valence"><span class="word">{both("valence")}</span>'
        f'<span class="scale" aria-hidden="true"><i style="left:{50 + 50 * value:.1f}%"></i></span>'
        f'<span class="number">{_signed(value)}</span>'
        f'<span class="ends" aria-hidden="true"><span>{both("unpleasant")}</span>'
        f"<span>{both('pleasant')}</span></span></div>"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _demonstration(item: Demonstration) -> str:
    lines = "".join(map(_line, item.context[-SHOWN_TURNS:]))
    return (
        f'<li lang="{safe(item.language)}">{lines}<p class="reply"><b>{both("speaker_reply")}</b> {safe(item.reply)}</p>'
        f'<p class="facts"><span class="tag">{_word(item.emotion)}</span>'
        f"<span>{both('similarity')} {item.similarity:.2f}</span>"
        f"<span>{both('source')} {safe(item.source)}</span></p></li>"
    )


def _line(turn: Utterance) -> str:
    who = both("speaker_user") if turn.speaker == "user" else safe(turn.speaker)
    return f'<p class="turn"><b>{who}</b> {safe(turn.text)}</p>'


def _stage(stage: str, spent: float, share: float) -> str:
    name = both(stage) if stage in WORDS else safe(stage)
    return (
        f'<li><span class="word">{name}</span><span class="track" aria-hidden="true">'
        f'<span style="width:{100 * share:.1f}%"></span></span>{_number(spent)}</li>'
    )


def _number(seconds: float) -> str:
    return f'<span class="number">{seconds:.2f} {both("second")}</span>'
