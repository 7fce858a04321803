"""Metrics: values that can be checked by hand, agreement with the libraries, and the traps of Chinese scoring."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmd.errors import UsageError
from elmd.evaluate import Bootstrap, default_metrics, evaluate
from elmd.labels import EKMAN
from elmd.metrics import Settings, bleu, emotion, rouge
from elmd.metrics._tokens import tokenizers
from elmd.types import Judged, Score
from elmd.zoo import METRICS

CHINESE = [
    ("我今天很累，想早点睡。", "我今天也很累，想早点休息。"),
    ("没关系，慢慢来。", "没事的，慢慢来，我陪你。"),
    ("你说得对，OK，3.5 分。", "你说得对，ok，3.5 分。"),
    ("嗯", "嗯嗯"),
    ("别难过😀", "别难过了😢"),
    ("", "怎么了？"),
]


def pairs(*texts: tuple[str, str], language: str = "zh", dialogues: int = 0) -> list[Judged]:
    return [
        Judged(f"d{i % dialogues if dialogues else i}#{i}", f"d{i % dialogues if dialogues else i}", language, h, r)
        for i, (h, r) in enumerate(texts)
    ]


def scored(rows: Sequence[Judged], *metrics: str, **options: object) -> dict[str, Score]:
    few = Bootstrap(resamples=20)
    return {s.name: s for s in evaluate(rows, metrics or None, bootstrap=few, **options)}


def value(rows: Sequence[Judged], metric: str, name: str) -> float:
    return scored(rows, metric)[name].value


class OneHot:
    """Every character is its own axis, so that cosines are 1 or 0."""

    name = "one-hot"

    def token_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.eye(4096, dtype=np.float32)[[ord(c) % 4096 for c in text]] for text in texts]


# --- the zoo's contract ---


@pytest.mark.parametrize("metric", METRICS.names())
def test_every_metric_keeps_to_its_names_and_summary(metric: str) -> None:
    module = METRICS.load(metric)
    rows = [Judged("a", "a", "zh", "好", "好", "fear", "fear", "anger", "anger")]
    names = [m.name for m in module.scorer(rows, Settings("zh", OneHot().token_vectors))]
    assert names
    assert set(names) <= set(module.NAMES)
    assert METRICS.summary(metric)


def test_no_name_belongs_to_two_metrics() -> None:
    names = [name for metric in METRICS.names() for name in METRICS.load(metric).NAMES]
    assert len(names) == len(set(names))


def test_embedding_is_scored_on_demand_only() -> None:
    assert "embedding" not in default_metrics()
    assert {"bleu", "rouge", "meteor", "distinct", "chrf", "length", "emotion"} == set(default_metrics())


# --- tokens ---


def test_chinese_characters_keep_latin_words_and_numbers_whole() -> None:
    char, word = tokenizers("zh")
    assert char.tokenize(" 我有iPhone 15，3.5折！😀 ") == ("我", "有", "iPhone", "15", "，", "3.5", "折", "！", "😀")
    assert word.tokenize("我今天 很开心。") == ("我", "今天", "很", "开心", "。")


def test_english_words_are_lower_cased_and_punctuation_stands_apart() -> None:
    (word,) = tokenizers("en")
    assert word.unit == "word"
    assert word.tokenize("I DON'T know, sorry.") == ("i", "don't", "know", ",", "sorry", ".")


@given(st.text(max_size=30))
def test_no_token_is_blank_or_holds_white_space(text: str) -> None:
    for language in ("zh", "en"):
        for tokenizer in tokenizers(language):
            assert all(token.split() == [token] for token in tokenizer.tokenize(text))


# --- BLEU ---


def test_bleu_by_hand() -> None:
    rows = pairs(("我很好", "我不好"))
    assert value(rows, "bleu", "bleu_1_char") == pytest.approx(100 * 2 / 3)
    # No bigram in common: "exp" smoothing takes half a hit of two.
    assert value(rows, "bleu", "bleu_2_char") == pytest.approx(100 * (2 / 3 * 1 / 4) ** 0.5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_corpus_bleu_is_sacrebleu_zh(order: int) -> None:
    from sacrebleu.metrics import BLEU

    hypotheses, references = zip(*CHINESE, strict=True)
    expected = BLEU(tokenize="zh", max_ngram_order=order).corpus_score([*hypotheses], [[*references]]).score
    found = scored(pairs(*CHINESE), "bleu")[f"bleu_{order}_char"]
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert f"order:{order}|" in found.signature


def test_corpus_bleu_of_english_is_sacrebleu_lower_cased() -> None:
    import sacrebleu

    texts = [("I'm so sorry to hear THAT.", "I am sorry to hear that!"), ("What happened then?", "What happened?")]
    expected = sacrebleu.corpus_bleu([h for h, _ in texts], [[r for _, r in texts]], lowercase=True).score
    assert value(pairs(*texts, language="en"), "bleu", "bleu_4_word") == pytest.approx(expected, abs=1e-9)


def test_sentence_bleu_is_the_mean_of_sacrebleu_sentences() -> None:
    import sacrebleu

    expected = np.mean([sacrebleu.sentence_bleu(h, [r], tokenize="zh").score for h, r in CHINESE])
    assert value(pairs(*CHINESE), "bleu", "sentence_bleu_4_char") == pytest.approx(expected, abs=1e-9)


def test_short_replies_to_long_references_get_no_higher_order() -> None:
    assert value(pairs(("嗯", "嗯，我知道你很难过")), "bleu", "bleu_4_char") == 0.0


# --- ROUGE, METEOR, chrF, Distinct, lengths ---


def test_rouge_by_hand() -> None:
    found = scored(pairs(("我很好", "我不好")), "rouge")
    assert found["rouge_1_char"].value == pytest.approx(100 * 2 / 3)
    assert found["rouge_2_char"].value == 0.0
    assert found["rouge_l_char"].value == pytest.approx(100 * 2 / 3)


def test_rouge_clips_repeats() -> None:
    assert value(pairs(("嗯", "嗯嗯")), "rouge", "rouge_1_char") == pytest.approx(100 * 2 / 3)


def test_rouge_l_heeds_order() -> None:
    found = scored(pairs(("别难过我在", "我在别难过")), "rouge")
    assert found["rouge_1_char"].value == pytest.approx(100.0)
    assert found["rouge_l_char"].value == pytest.approx(60.0)


@given(st.text("我你他好", min_size=1, max_size=12), st.text("我你他好", min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_rouge_against_a_plain_count(hypothesis: str, reference: str) -> None:
    shared = sum(min(hypothesis.count(c), reference.count(c)) for c in "我你他好")
    (measure,) = [m for m in rouge.scorer(pairs((hypothesis, reference)), Settings("zh")) if m.name == "rouge_1_char"]
    assert measure.of(np.ones((1, 1)))[0] == pytest.approx(200 * shared / (len(hypothesis) + len(reference)))


def test_meteor_by_hand() -> None:
    # Precision and recall 2/3, two hits in two pieces: half of it is the penalty.
    assert value(pairs(("我很好", "我不好")), "meteor", "meteor_char") == pytest.approx(100 / 3)


def test_meteor_matches_no_stems() -> None:
    assert value(pairs(("dogs", "dog"), language="en"), "meteor", "meteor_word") == 0.0


def test_chrf_is_sacrebleu() -> None:
    import sacrebleu

    hypotheses, references = zip(*CHINESE, strict=True)
    expected = sacrebleu.corpus_chrf([*hypotheses], [[*references]]).score
    assert value(pairs(*CHINESE), "chrf", "chrf") == pytest.approx(expected, abs=1e-9)


def test_distinct_counts_the_last_ngram() -> None:
    found = scored(pairs(("哈哈哈哈", "?")), "distinct")
    assert found["distinct_1_char"].value == pytest.approx(25.0)
    assert found["distinct_2_char"].value == pytest.approx(100 / 3)  # three bigrams; off by one there are two


def test_distinct_is_of_the_corpus_not_a_mean_of_replies() -> None:
    assert value(pairs(("我不知道", "a"), ("我不知道", "b")), "distinct", "distinct_1_char") == pytest.approx(50.0)


def test_lengths_and_shares() -> None:
    found = scored(pairs(("好 的", "好"), ("好 的", "好的吧"), (" ", "嗯"), ("不", "")), "length")
    assert found["length"].value == pytest.approx(5 / 4)
    assert found["reference_length"].value == pytest.approx(5 / 4)
    assert found["distinct_replies"].value == pytest.approx(75.0)
    assert found["empty_replies"].value == pytest.approx(25.0)
    assert value(pairs(("I am fine.", "x"), language="en"), "length", "length") == 3.0


# --- embedding ---


def test_embedding_by_hand() -> None:
    found = scored(pairs(("ab", "abc")), "embedding", encoder=OneHot())
    assert found["embedding_precision"].value == pytest.approx(100.0)
    assert found["embedding_recall"].value == pytest.approx(100 * 2 / 3, abs=1e-4)
    assert found["embedding_f1"].value == pytest.approx(80.0, abs=1e-4)
    assert "encoder:one-hot" in found["embedding_f1"].signature


def test_embedding_of_blanks_is_0() -> None:
    found = scored(pairs(("", "a"), ("a", " "), ("", "")), "embedding", encoder=OneHot())
    assert found["embedding_f1"].value == 0.0


def test_embedding_without_an_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="needs an encoder"):
        evaluate(pairs(("a", "b")), ["embedding"])


# --- emotions ---


def feelings(*labels: tuple[str | None, str | None]) -> list[Judged]:
    return [Judged(f"d{i}", f"d{i}", "zh", "好", "好", guess, truth) for i, (truth, guess) in enumerate(labels)]


def test_emotion_by_hand() -> None:
    found = scored(feelings(("anger", "anger"), ("anger", "fear"), ("fear", "fear"), ("neutral", "neutral")), "emotion")
    assert found["reply_emotion_accuracy"].value == pytest.approx(75.0)
    assert found["reply_emotion_macro_f1"].value == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    assert found["reply_emotion_weighted_f1"].value == pytest.approx(100 * (2 * 2 / 3 + 2 / 3 + 1) / 4)
    assert found["reply_emotion_majority_accuracy"].value == pytest.approx(50.0)
    assert found["reply_emotion_majority_macro_f1"].value == pytest.approx(100 * 2 / 3 / 3)
    assert not any(name.startswith("user_emotion") for name in found)


def test_a_missing_prediction_is_wrong_and_a_missing_annotation_is_left_out() -> None:
    found = scored(feelings(("anger", "anger"), ("anger", None), (None, "fear")), "emotion")
    assert found["reply_emotion_accuracy"].value == pytest.approx(50.0)
    assert "unpredicted:1|n:2" in found["reply_emotion_accuracy"].signature


def test_user_and_reply_emotions_are_told_apart() -> None:
    rows = [Judged("a", "a", "zh", "好", "好", "fear", "anger", "sadness", "sadness")]
    found = scored(rows, "emotion")
    assert found["reply_emotion_accuracy"].value == 0.0
    assert found["user_emotion_accuracy"].value == 100.0


labels = st.sampled_from(EKMAN)


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_emotion_is_scikit_learn(pairs_: list[tuple[str, str]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    truth, guess = zip(*pairs_, strict=True)
    found = {m.name: m.of(np.ones((1, len(pairs_))))[0] for m in emotion.scorer(feelings(*pairs_), Settings("zh"))}
    assert found["reply_emotion_accuracy"] == pytest.approx(100 * accuracy_score(truth, guess))
    for average in ("macro", "weighted"):
        expected = 100 * f1_score(truth, guess, average=average, zero_division=0)
        assert found[f"reply_emotion_{average}_f1"] == pytest.approx(expected)


# --- what holds for all ---


@pytest.mark.parametrize("text", ["嗯", "😀", "😀😀", "我", "ok", "。", "👨‍👩‍👧", "我今天很累，想早点睡。"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_reply_equal_to_its_reference_scores_100(text: str, language: str) -> None:
    found = scored(
        pairs((text, text), language=language), "bleu", "rouge", "meteor", "chrf", "embedding", encoder=OneHot()
    )
    for name, score in found.items():
        assert score.value == pytest.approx(100.0, abs=1e-4), name


@pytest.mark.parametrize(("hypothesis", "reference"), [("", "好"), ("  ", "好"), ("好", ""), ("", ""), ("好", " ")])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_blank_replies_and_references_score_0(hypothesis: str, reference: str, language: str) -> None:
    rows = pairs((hypothesis, reference), language=language)
    found = scored(rows, "bleu", "rouge", "meteor", "chrf", "embedding", encoder=OneHot())
    assert {name: score.value for name, score in found.items() if score.value} == {}


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_text_scores_between_0_and_100(texts: list[tuple[str, str]]) -> None:
    for name, score in scored(pairs(*texts), "bleu", "rouge", "meteor", "chrf", "distinct").items():
        assert -1e-9 <= score.value <= 100 + 1e-6, name
        assert score.low <= score.high


def test_the_order_of_rows_does_not_matter() -> None:
    rows = pairs(*CHINESE, dialogues=3)
    assert evaluate(random.Random(1).sample(rows, len(rows))) == evaluate(rows)


# --- intervals ---


def test_one_dialogue_has_no_interval() -> None:
    for score in evaluate(pairs(*CHINESE, dialogues=1)):
        assert score.low == pytest.approx(score.value, abs=1e-9), score.name
        assert score.high == pytest.approx(score.value, abs=1e-9), score.name


def test_dialogues_are_drawn_not_replies() -> None:
    texts = [("好", "好"), ("好", "坏")] * 10
    (together,) = [s for s in evaluate(pairs(*texts, dialogues=2), ["meteor"]) if s.name == "meteor_char"]
    (apart,) = [s for s in evaluate(pairs(*texts), ["meteor"]) if s.name == "meteor_char"]
    assert (together.value, together.low, together.high) == (50.0, 0.0, 100.0)
    assert 25.0 <= apart.low < 50.0 < apart.high <= 75.0
    assert "dialogues:2|bs:1000|seed:0|ci:95" in together.signature
    assert "dialogues:20|" in apart.signature


def test_intervals_are_repeatable_and_hang_on_the_seed() -> None:
    rows = pairs(*CHINESE)
    assert evaluate(rows, ["rouge"]) == evaluate(rows, ["rouge"])
    assert evaluate(rows, ["rouge"], bootstrap=Bootstrap(seed=1)) != evaluate(rows, ["rouge"])


def test_an_interval_holds_its_value_even_for_shares_of_different_things() -> None:
    texts = [(f"{a}{b}", "好") for a in "我你他她它" for b in "来去走跑跳"]
    for score in evaluate(pairs(*texts), ["distinct", "length"]):
        assert score.low <= score.value <= score.high, score.name
        assert score.low >= 0.0


def test_a_resample_counts_as_the_rows_it_holds() -> None:
    rows = pairs(*CHINESE)
    drawn = np.asarray([[2.0, 0.0, 1.0, 0.0, 3.0, 0.0]])
    held = [rows[i] for i in (0, 0, 2, 4, 4, 4)]
    for metric in default_metrics():
        module = METRICS.load(metric)
        for one, two in zip(module.scorer(rows, Settings("zh")), module.scorer(held, Settings("zh")), strict=True):
            assert one.of(drawn)[0] == pytest.approx(two.of(np.ones((1, 6)))[0]), one.name


# --- traps that docs/evaluation.md tells of ---


def test_documented_traps_of_other_definitions() -> None:
    import sacrebleu
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_score.rouge_scorer import RougeScorer

    hypothesis, reference = "我知道，别难过。", "我知道你很难过，我陪你。"
    found = scored(pairs((hypothesis, reference)), "bleu", "rouge")
    assert sacrebleu.corpus_bleu([hypothesis], [[reference]]).score == 0.0
    assert RougeScorer(["rouge1"]).score(reference, hypothesis)["rouge1"].fmeasure == 0.0
    assert round(found["bleu_4_char"].value, 1) == 17.1
    assert round(found["bleu_4_word"].value, 1) == 9.3
    assert round(found["rouge_1_char"].value, 1) == 70.0

    def by_method(method: str, reference: str, hypothesis: str) -> float:
        smoothing = getattr(SmoothingFunction(), method)
        return round(100 * sentence_bleu([[*reference]], [*hypothesis], smoothing_function=smoothing), 1)

    methods = {method: by_method(method, reference, hypothesis) for method in ("method1", "method3", "method7")}
    assert methods == {"method1": 11.4, "method3": 17.1, "method7": 21.1}
    assert by_method("method7", "我也是。", "我也是。") == 101.1


def test_bleu_signature_names_everything() -> None:
    (score,) = [s for s in evaluate(pairs(*CHINESE), ["bleu"]) if s.name == "bleu_4_char"]
    for part in ("tok:zh", "case:mixed", "level:corpus", "eff:no", "smooth:exp", "order:4", "sacrebleu:2.", "n:6"):
        assert part in score.signature
    assert bleu.NAMES[3] == "bleu_4_char"
