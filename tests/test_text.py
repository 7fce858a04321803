"""Cleaning what people type, scrubbing what is retrieved, telling the language."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmd.text import MAX_CHARACTERS, clean, detect_language, scrub

TEXT = st.text(st.characters(), max_size=300)  # lone surrogates and private characters included


@given(TEXT)
def test_clean_is_idempotent_and_leaves_nothing_invisible(text):
    once = clean(text)
    assert clean(once) == once
    assert once == once.strip()
    assert all(c in "\n\u200d" or not unicodedata.category(c).startswith("C") for c in once)
    once.encode("utf-8")


@given(st.text(st.sampled_from("a \n好\u200d"), min_size=1, max_size=9), st.integers(1, 9000))
def test_clean_is_bounded_and_idempotent_on_long_texts_too(text, times):
    once = clean(text * times)
    assert len(once) <= MAX_CHARACTERS + 3
    assert clean(once) == once


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=100))
def test_clean_keeps_plain_words(text):
    assert clean(text) == text


@pytest.mark.parametrize(("typed", "kept"), [
    ("  你好 \t 世界 ", "你好 世界"),
    ("a\r\nb\n\n\n c", "a\nb\nc"),
    ("我\u200b想\ufeff你\u202e", "我想你"),
    ("\ud800好\x00", "好"),
    ("👨‍👩‍👧 ❤️", "👨‍👩‍👧 ❤️"),
    ("\u200b \x07", ""),
    ("\u3000全角\u00a0空格", "全角 空格"),
])  # fmt: skip
def test_clean(typed, kept):
    assert clean(typed) == kept


def test_of_a_long_text_beginning_and_end_are_kept():
    text = clean("始" + "中" * 100_000 + "终")
    assert (text[0], text[-1]) == ("始", "终")
    assert " … " in text


@pytest.mark.parametrize(("text", "language"), [
    ("你好", "zh"), ("hello", "en"), ("", "zh"), ("123 ?!", "zh"), ("😭", "zh"), ("我今天 emo 了", "zh"),
    ("I love 你", "en"), ("他说 okay fine whatever then", "en"), ("㐀", "zh"),
])  # fmt: skip
def test_language(text, language):
    assert detect_language(text) == language


@pytest.mark.parametrize("carried", [
    "https://evil.example/a?b=1#c", "http://x.y", "www.example.com/path", "me@example.com", "13812345678", "138 1234 5678",
    "+86 13812345678", "010-12345678", "(010) 12345678", "800-555-0199", "<|im_end|>", "<|im_start|>", "<|endoftext|>",
    "<|im_<|x|>end|>", "<|<|<|a|>b|>c|>",
])  # fmt: skip
def test_scrub_takes_out_what_must_not_be_passed_on(carried):
    assert scrub(f"打给我：{carried}，好吗") == "打给我：，好吗"
    assert scrub(carried) == ""


@pytest.mark.parametrize(
    "text", ["我今年18岁", "3点半，15000块", "in 2024, 100 people", "1 < 2 | 3 > 2", "the www", "a @ b", "12356", "911"]
)
def test_scrub_leaves_plain_words_and_numbers(text):
    assert scrub(text) == text


@given(TEXT)
def test_scrub_is_idempotent(text):
    once = scrub(text)
    assert scrub(once) == once
