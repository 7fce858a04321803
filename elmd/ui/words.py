"""The words of the page, Chinese and English side by side."""

from collections.abc import Mapping
from html import escape

from elmd.errors import UnknownName

LANGUAGES: tuple[str, ...] = ("zh", "en")
"""Chinese comes first."""

WORDS: Mapping[str, tuple[str, str]] = {
    "title": ("elmd · 会共情的数字人", "elmd · an empathetic digital human"),
    "tagline": ("听你说，试着懂你。", "Listens, and tries to hear how you feel."),
    "is_ai": ("elmd 是人工智能，不是人，也不是医生。", "elmd is an AI: not a person, and not a doctor."),
    "is_guess": ("它读出的情绪只是猜测，可能会错。", "What it reads of your emotions is a guess and can be wrong."),
    "is_private": (
        "按下发送，就是请它读这段对话；这一轮结束后，服务器上什么也不留。",
        "Sending asks it to read this conversation; once the turn is over, nothing is kept on the server.",
    ),
    "language": ("语言", "Language"),
    "conversation": ("对话", "Conversation"),
    "chat": ("和 elmd 的对话", "Conversation with elmd"),
    "greeting": ("今天，心里装着什么？", "What is on your mind today?"),
    "invitation": ("想到哪儿说到哪儿，一句话也可以。", "Start anywhere. One sentence is enough."),
    "box": ("想说的话", "Your message"),
    "box_hint": ("说说看……", "Tell me …"),
    "send": ("发送", "Send"),
    "stop": ("停下", "Stop"),
    "clear": ("清空对话", "Clear"),
    "nothing_said": ("先写一句话，再发送。", "Write a few words first, then send."),
    "no_words": ("elmd 这次没有说出话来，请再试一次。", "elmd found no words this time. Please try again."),
    "failed": ("elmd 没能回答：", "elmd could not answer: "),
    "reading": ("elmd 读到了什么", "What elmd read"),
    "reading_empty": (
        "你说一句，这里就摊开它的思路：听到的心情、想带的语气、参考的对话，还有每一步用的时间。",
        "After each message its reasoning unfolds here: the emotion it heard, the tone it chose, the conversations it "
        "looked at, and the time each step took.",
    ),
    "heard": ("听到的心情", "The emotion it heard"),
    "heard_why": (
        "从你这句话的字词里猜出来的，七种情绪的份额加起来是 100%。",
        "Guessed from the words of your message; the shares of the seven emotions add up to 100%.",
    ),
    "tone": ("回复要带的心情", "The emotion for its reply"),
    "tone_why": (
        "动笔之前，先预测这句回复适合带着什么心情。",
        "Before it writes, elmd predicts which emotion the reply should carry.",
    ),
    "demonstrations": ("参考的对话", "Conversations it looked at"),
    "demonstrations_why": (
        "处境和心情都相近的示例，回复会学着它们的样子来写。",
        "Examples that are near in situation and in mood; the reply is written after their manner.",
    ),
    "no_demonstrations": ("这一轮没有参考示例。", "No example was used in this turn."),
    "seconds": ("每一步用的时间", "Time of each step"),
    "seconds_why": (
        "从读到你的话到写完回复，每一步花了多少秒。",
        "How many seconds each step took, from reading your message to the last word of the reply.",
    ),
    "valence": ("情绪效价", "Valence"),
    "unpleasant": ("难受", "unpleasant"),
    "pleasant": ("愉快", "pleasant"),
    "safety": ("安全检查", "Safety check"),
    "perception": ("读出情绪", "Reading the emotion"),
    "retrieval": ("寻找示例", "Finding examples"),
    "prediction": ("预测语气", "Choosing the tone"),
    "generation": ("写回复", "Writing the reply"),
    "total": ("一共", "Total"),
    "similarity": ("相近度", "similarity"),
    "source": ("来源", "source"),
    "speaker_user": ("对方", "person"),
    "speaker_reply": ("回应", "reply"),
    "second": ("秒", "s"),
    "written_by": ("执笔", "written by"),
    "careful": ("你的安全最要紧。", "Your safety comes first."),
    "careful_why": (
        "elmd 是程序，代替不了身边的人。上面的回复里有可以马上拨打的电话；如果此刻就有危险，请先打急救电话。",
        "elmd is a program and cannot stand in for a person. Its reply above holds numbers you can call right now; "
        "if you are in danger at this moment, call the emergency number first.",
    ),
}  # fmt: skip
"""What the page says, by key: (Chinese, English)."""

STARTERS: Mapping[str, tuple[str, ...]] = {
    "zh": (
        "考研又没过，不敢告诉爸妈。",
        "最好的朋友突然不回我消息了。",
        "等了半年的录取通知，今天终于到了！",
    ),
    "en": (
        "I failed the exam again and can't tell my parents.",
        "My best friend suddenly stopped answering me.",
        "After half a year of waiting, the letter came: I got in!",
    ),
}
"""First sentences offered on an empty page."""


def say(key: str, language: str) -> str:
    """Return the words for `key` in `language`."""
    if language not in LANGUAGES:
        raise UnknownName("language of the page", language, LANGUAGES)
    return WORDS[key][LANGUAGES.index(language)]


def both(key: str) -> str:
    """Return HTML with the words in both languages; the style sheet shows the chosen one."""
    return pair(*WORDS[key])


def pair(zh: str, en: str) -> str:
    """Return HTML with two wordings, of which the style sheet shows the one in the chosen language."""
    return f'<span class="zh" lang="zh-CN">{escape(zh)}</span><span class="en" lang="en">{escape(en)}</span>'
