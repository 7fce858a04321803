"""The crisis gate: reviewed rules over the person's last turns, and the fixed answer that a high level gets.

The rules are the deterministic floor: they see plain statements, not every way of saying it. The level is the
highest of the last LOOK_BACK turns of the person, so a denial right after does not lower it.
"""

import re
import unicodedata
from collections.abc import Mapping

from elmd.types import ASSISTANT, Dialogue, Safety, SafetyLevel, Utterance

LOOK_BACK = 3
LEVELS: tuple[SafetyLevel, ...] = ("none", "concern", "high", "imminent")

_RULES: Mapping[str, tuple[SafetyLevel, str]] = {
    "zh-kill-self": ("high", r"自[杀s]|轻生|寻短见|了结(?:自己|生命|这条命)|结束(?:自己的?)?生命"),
    "zh-want-death": ("high", r"(?:想|要)(?:去)?死(?!你|了你|我了|他|她|人|党|磕)|不(?:想|愿意?)(?:再)?活(?!动|跃|儿)|活(?:着)?(?:不下去|没意思|没意义|够了)"),
    "zh-method": ("high", r"(?:跳楼|跳河(?!里)|上吊|烧炭|割腕|吞药|从.{1,4}跳下去)"),
    "zh-end-it": ("high", r"不如死了|死了算了|死了就解脱|活腻了|结束这一切|一了百了"),
    "zh-self-harm": ("high", r"自残|伤害自己|割自己|划自己的?(?:手|胳膊|手臂)"),
    "zh-imminent": ("imminent", r"遗书(?:已经)?写好|写好了?遗书|(?:吞|吃)了一整?瓶.{0,4}药|(?:今晚|现在|马上|这就)(?:就)?(?:去死|跳下去|结束这一切|了结)|药(?:我)?(?:已经)?(?:都)?吞(?:下去)?了"),
    "zh-hopeless": ("concern", r"(?:消失|离开)(?:就|也)好了|没有我.{0,6}更好|撑不下去|熬不下去|生无可恋"),
    "en-kill-self": ("high", r"\b(?:kill(?:ing)? my ?self|kms|suicid(?:e|al)|end(?:ing)? my (?:own )?life|take my own life)\b"),
    "en-want-death": ("high", r"\b(?:(?:want to|wanna) (?:die|end it all)|wish i (?:was|were) dead|(?:don'?t|do not) want to (?:live|be alive|be here any ?more)|better off dead)\b"),
    "en-self-harm": ("high", r"\b(?:cut(?:ting)? my ?self|hurt(?:ing)? my ?self|self[- ]harm(?:ing)?)\b"),
    "en-imminent": ("imminent", r"\b(?:(?:wrote|written) (?:my|a) suicide note|took (?:all (?:the|my) pills|a whole bottle of)|kill my ?self tonight|(?:tonight|right now) i(?:'m| am)? (?:going to |gonna )?(?:die|jump|end it))\b"),
    "en-hopeless": ("concern", r"\b(?:can'?t (?:go on|do this any ?more|take (?:it|this) any ?more)|no (?:reason to live|reason to go on|point in living)|(?:better|happier) without me)\b"),
}  # fmt: skip
"""Rule id → level and pattern, matched on normalised text (see `_normal`)."""

_HARMLESS = re.compile(
    r"(?:笑|累|困|饿|热|冷|气|吓|烦|尴尬|可爱|开心|高兴|无聊|羡慕|恶心)[得到]?(?:我)?(?:都)?(?:要|快)?死"
    r"|(?:笑|饿|热|冷|尴尬|恶心)得想死|(?<!觉)得要死|爱死|想死你|要死要活|bored to death|to die for"
)
"""Figures of speech that hold a word of the rules; removed before the rules look."""

_SIMPLIFIED = str.maketrans(
    "殺輕尋見傷殘樓燒藥遺書寫這現馬結願著沒離開撐無戀條劃黨",
    "杀轻寻见伤残楼烧药遗书写这现马结愿着没离开撑无恋条划党",
)
"""Traditional characters that the rules hold, as the rules write them."""


def check(dialogue: Dialogue) -> Safety:
    """Return the level of the person's last turns and the ids of the rules that fired; "high" if anything breaks."""
    try:
        said = [turn for turn in dialogue.turns if turn.speaker == dialogue.last.speaker and turn.speaker != ASSISTANT]
        return _highest(said[-LOOK_BACK:])
    except Exception:  # whatever breaks the gate must not open it
        return Safety("high", ("gate-failed",))


def _highest(turns: list[Utterance]) -> Safety:
    texts = [_normal(turn.text) for turn in turns]
    fired = [rule for rule, (_, pattern) in _RULES.items() if any(re.search(pattern, text) for text in texts)]
    level = max((_RULES[rule][0] for rule in fired), key=LEVELS.index, default=LEVELS[0])
    return Safety(level, tuple(fired))


def _normal(text: str) -> str:
    """Fold width, case and traditional characters; drop the invisible, blanks in Chinese, harmless figures of speech."""
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", visible).casefold().replace("’", "'").translate(_SIMPLIFIED)
    joined = re.sub(r"(?<=[\u4e00-\u9fff])[\s.。·*_-]+(?=[\u4e00-\u9fffs])", "", folded)
    return _HARMLESS.sub("", joined)


def needs_fixed_answer(safety: Safety) -> bool:
    """Whether the turn gets the reviewed answer instead of a generated one."""
    return LEVELS.index(safety.level) >= LEVELS.index("high")
