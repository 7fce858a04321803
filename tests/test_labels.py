"""Label sets: complete, mapped by name, forgiving about case and strict about unknown words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmd import labels
from elmd.errors import UnknownName, UsageError
from elmd.labels import EKMAN, LABEL_SETS, VAD, VAD_OF
from elmd.zoo import DATASETS

SHARES = st.lists(st.floats(0.01, 1), min_size=7, max_size=7).map(
    lambda found: {label: share / sum(found) for label, share in zip(EKMAN, found, strict=True)}
)


def test_ekman_is_the_seven_in_order():
    assert EKMAN == ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@pytest.mark.parametrize("label_set", LABEL_SETS.values(), ids=lambda s: s.name)
def test_every_label_of_a_set_goes_to_one_of_ekman_or_to_none(label_set):
    for label in label_set.labels:
        assert label == label.casefold()
        assert label_set.to_ekman(f" {label.upper()} ") == label_set.ekman[label]
        assert label_set.ekman[label] in (*EKMAN, None)
        assert label_set.to_polarity(label) in labels.POLARITY
    for own in EKMAN:
        if own not in label_set.ekman:
            assert label_set.to_ekman(own) == own


@pytest.mark.parametrize(("name", "label", "ekman"), [
    ("m3ed", "Happy", "happiness"), ("emotiontalk", "fearful", "fear"), ("meld", "joy", "happiness"),
    ("cped", "worried", "fear"), ("cped", "depress", "sadness"), ("cped", "grateful", "happiness"),
    ("cped", "astonished", "surprise"), ("cped", "negative-other", None), ("cped", "sadness", "sadness"),
    ("esconv", "guilt", "sadness"), ("esconv", "jealousy", "anger"), ("ravdess", "calm", "neutral"),
])  # fmt: skip
def test_known_labels(name, label, ekman):
    assert LABEL_SETS[name].to_ekman(label) == ekman


@pytest.mark.parametrize(
    "size", [("m3ed", 7), ("emotiontalk", 7), ("meld", 7), ("cped", 13), ("esconv", 11), ("ravdess", 8)]
)
def test_sets_have_as_many_labels_as_their_authors_say(size):
    assert len(LABEL_SETS[size[0]].labels) == size[1]


def test_a_set_with_seven_basic_labels_reaches_all_of_ekman():
    for name in ("ekman", "m3ed", "emotiontalk", "meld", "ravdess"):
        assert set(LABEL_SETS[name].ekman.values()) == set(EKMAN)


def test_an_unknown_label_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="unknown meld emotion label 'suprise'; did you mean 'surprise'"):
        LABEL_SETS["meld"].to_ekman("suprise")


def test_a_label_without_counterpart_keeps_its_polarity():
    assert LABEL_SETS["cped"].to_polarity("negative-other") == "negative"


def test_the_label_set_of_every_data_set_exists():
    for name in DATASETS.names():
        assert DATASETS.load(name).CARD.label_set in (*LABEL_SETS, None), name


@pytest.mark.parametrize(
    ("label", "polarity"),
    [("anger", "negative"), ("happiness", "positive"), ("surprise", "neutral"), ("neutral", "neutral")],
)
def test_polarity(label, polarity):
    assert labels.polarity(label) == polarity


def test_unknown_ekman_labels_are_refused_everywhere():
    for refuse in (
        labels.check_label,
        labels.polarity,
        lambda x: labels.word_for(x, "zh"),
        lambda x: labels.mean_vad({x: 1}),
    ):
        with pytest.raises(UnknownName, match="unknown emotion 'joy'"):
            refuse("joy")


@pytest.mark.parametrize(
    ("value", "polarity"), [(-0.1, "negative"), (0, "neutral"), (-0.0, "neutral"), (3, "positive")]
)
def test_polarity_of_sentiment(value, polarity):
    assert labels.polarity_of_sentiment(value) == polarity


def test_vad_points_are_in_range_and_say_what_the_words_say():
    assert set(VAD_OF) == set(EKMAN)
    assert all(-1 <= axis <= 1 for point in VAD_OF.values() for axis in point)
    for label in EKMAN:
        sign = {"negative": -1, "positive": 1}.get(labels.polarity(label), 0)
        assert sign * VAD_OF[label].valence >= 0
        assert labels.nearest_label(VAD_OF[label]) == label
    assert VAD_OF["sadness"].arousal < 0 < VAD_OF["anger"].arousal
    assert VAD_OF["fear"].dominance < 0 < VAD_OF["anger"].dominance


@given(SHARES)
def test_mean_vad_lies_between_the_points(shares):
    mean = labels.mean_vad(shares)
    for axis in range(3):
        found = [point[axis] for point in VAD_OF.values()]
        assert min(found) - 1e-9 <= mean[axis] <= max(found) + 1e-9


@pytest.mark.parametrize("label", EKMAN)
def test_mean_vad_of_certainty_is_the_point(label):
    assert labels.mean_vad({name: float(name == label) for name in EKMAN}) == pytest.approx(VAD(*VAD_OF[label]))


def test_words_differ_and_unknown_languages_are_refused():
    for language in ("zh", "en"):
        assert len({labels.word_for(label, language) for label in EKMAN}) == 7
    assert labels.word_for("sadness", "zh") == "悲伤"
    with pytest.raises(UsageError, match="language 'fr'; known: en, zh"):
        labels.word_for("sadness", "fr")
