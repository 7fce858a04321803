"""The data we ship: whole, unique, balanced, short, free of what must not be said, and apart where it must be."""

import re
import unicodedata
from collections import Counter

import pytest

from elmd import data
from elmd.errors import UsageError
from elmd.files import read_dialogues, read_jsonl
from elmd.labels import EKMAN
from elmd.text import detect_language, scrub
from elmd.types import ASSISTANT

LANGUAGES = ("zh", "en")
BANNED = re.compile(
    r"作为(?:一个|一名)?(?:AI|人工智能|语言模型|机器人)|\bas an? (?:AI|artificial|language model|assistant)\b|语言模型|language model"
    r"|一定会好|肯定会好|会好起来的|everything (?:will|is going to) be (?:fine|ok|okay|all right|alright)|I promise"
    r"|你应该去死|坚强一点|别想太多|calm down|cheer up|get over it",
    re.IGNORECASE,
)
FOLDER = data.shipped("data")
DEMONSTRATIONS = data.shipped_demonstrations()


def plain(text: str) -> str:
    """A text without punctuation, blanks and case, to find it again."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum())


def in_language(language):
    return [d for d in DEMONSTRATIONS if d.language == language]


def sentences(text: str) -> int:
    return len(re.findall(r"[。！？!?…]+|\.+(?=\s|$)", text)) or 1


def test_every_line_reads_and_ids_are_unique_over_all_files():
    names = [dialogue.id for dialogue in DEMONSTRATIONS]
    for path in sorted(FOLDER.glob("*.jsonl")):
        names += [row["id"] for _, row in read_jsonl(path)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    lines = sum(path.read_bytes().count(b"\n") for path in data.demonstration_files())
    assert lines == len(DEMONSTRATIONS)


@pytest.mark.parametrize(("language", "least"), [("zh", 400), ("en", 200)])
def test_there_are_enough_demonstrations(language, least):
    assert len(in_language(language)) >= least


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_emotion_is_felt_and_answered_with(language):
    felt = Counter(dialogue.last.emotion for dialogue in in_language(language))
    given = Counter(dialogue.reference_emotion for dialogue in in_language(language))
    assert set(felt) == set(given) == set(EKMAN)
    assert min(felt.values()) >= 20
    assert min(given.values()) >= 10


@pytest.mark.parametrize("dialogue", DEMONSTRATIONS[::97], ids=lambda d: d.id)
def test_some_demonstrations_have_all_their_fields(dialogue):
    assert dialogue.license == "CC0-1.0"
    assert dialogue.source == "elmd"
    assert dialogue.split == "train"
    assert dialogue.topic


def wrong(check):
    return [dialogue.id for dialogue in DEMONSTRATIONS if not check(dialogue)]


def test_every_demonstration_is_free_and_waits_for_elmds_reply():
    assert wrong(lambda d: d.license == "CC0-1.0" and d.split == "train" and d.topic) == []
    assert wrong(lambda d: d.last.speaker != ASSISTANT and d.last.emotion and d.reference) == []
    assert wrong(lambda d: all(a.speaker != b.speaker for a, b in zip(d.turns, d.turns[1:], strict=False))) == []


def test_demonstrations_are_in_the_language_they_say():
    assert wrong(lambda d: detect_language(d.reference) == detect_language(d.last.text) == d.language) == []


def test_replies_are_short_and_spoken():
    assert wrong(lambda d: sentences(d.reference) <= 4) == []
    long_ones = [d.id for d in DEMONSTRATIONS if sentences(d.reference) > 3]
    assert len(long_ones) <= len(DEMONSTRATIONS) // 50
    assert wrong(lambda d: d.language == "en" or len(d.reference) <= 80) == []
    assert wrong(lambda d: d.language == "zh" or len(d.reference.split()) <= 45) == []
    assert wrong(lambda d: "\n" not in d.reference and not re.match(r"\s*(?:[-*•]|\d+[.、)])\s", d.reference)) == []


def test_nothing_is_said_that_must_not_be():
    assert wrong(lambda d: not BANNED.search(d.reference)) == []


def test_no_address_number_or_template_token_anywhere():
    texts = [turn.text for d in DEMONSTRATIONS for turn in d.turns] + [d.reference for d in DEMONSTRATIONS]
    texts += [row.text for row in (*data.feelings(), *data.statements())]
    assert [text for text in texts if scrub(text) != text] == []
    assert [text for text in texts if re.search(r"\{\{|\d{7,}|\.(?:com|cn|net|org)\b", text)] == []


def test_no_reply_is_given_twice():
    assert [r for r, n in Counter(plain(d.reference) for d in DEMONSTRATIONS).items() if n > 1] == []


def test_the_check_of_words_finds_them():
    for text in ("作为一个AI，我", "As an AI, I", "一定会好的", "Everything will be fine."):
        assert BANNED.search(text)
    assert sentences("好。真的吗？是！") == 3
    assert sentences("Mr. A is 3.5. Really?! Yes") >= 2
    assert plain("你好，Ａ b!") == plain("你好a B")


# ---- statements ----


@pytest.mark.parametrize("rows", [data.feelings, data.statements])
@pytest.mark.parametrize("language", LANGUAGES)
def test_statements_hold_every_emotion_as_often(rows, language):
    found = Counter(row.emotion for row in rows() if row.language == language)
    assert set(found) == set(EKMAN)
    assert max(found.values()) <= 2 * min(found.values())


def test_there_are_enough_statements():
    assert sum(1 for _ in data.statements()) >= 150
    assert sum(1 for _ in data.feelings()) >= 900


def test_a_statement_is_in_the_language_it_says_or_mixes_two():
    rows = [*data.feelings(), *data.statements()]
    strange = [row for row in rows if detect_language(row.text) != row.language]
    assert [
        row.id for row in strange if not (re.search("[a-z]", row.text) and re.search("[\u4e00-\u9fff]", row.text))
    ] == []
    assert len(strange) < 10


def test_no_test_statement_was_learned_from():
    learned = {plain(turn.text) for d in DEMONSTRATIONS for turn in d.turns} | {
        plain(d.reference) for d in DEMONSTRATIONS
    }
    learned |= {plain(row.text) for row in data.feelings()}
    assert [row.id for row in data.statements() if plain(row.text) in learned] == []


def test_no_text_is_there_twice():
    for rows in (data.feelings, data.statements):
        assert [t for t, n in Counter(plain(row.text) for row in rows()).items() if n > 1] == []


def test_the_sample_reads():
    dialogues = list(read_dialogues(FOLDER / "sample.jsonl"))
    assert {d.language for d in dialogues} == set(LANGUAGES)
    assert all(d.last.speaker != ASSISTANT for d in dialogues)


# ---- where it lies ----


def test_an_installation_without_data_says_so(tmp_path, monkeypatch):
    (tmp_path / "elmd").mkdir()
    monkeypatch.setattr(data, "_PACKAGE", tmp_path / "elmd")
    with pytest.raises(UsageError, match="no 'prompts' folder; install it again"):
        data.shipped("prompts")
    (tmp_path / "prompts").mkdir()
    assert data.shipped("prompts") == tmp_path / "prompts"
    (tmp_path / "elmd" / "_prompts").mkdir()
    assert data.shipped("prompts") == tmp_path / "elmd" / "_prompts"


def test_the_numbers_of_its_page_are_those_of_the_files():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, lines in re.findall(r"^\| `([\w/.-]+\.jsonl)` \| (\d+) \|", page, re.MULTILINE):
        assert (FOLDER / name).read_bytes().count(b"\n") == int(lines), name
