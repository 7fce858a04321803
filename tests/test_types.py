"""The dataclasses of a turn: what they refuse, what they derive, and their round trip through JSON."""

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmd.errors import UnknownName
from elmd.files import dumps, read_dialogues, write_jsonl
from elmd.labels import EKMAN
from elmd.types import (
    CONTEXT_TURNS,
    Demonstration,
    Dialogue,
    EmotionState,
    FeatureRow,
    Media,
    Utterance,
    context_text,
)

LABEL = st.none() | st.sampled_from(EKMAN)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.none() | st.floats(0, 1e6)
UTTERANCE = st.builds(
    Utterance,
    speaker=WORDS,
    text=WORDS,
    emotion=LABEL,
    emotions=st.lists(st.sampled_from(EKMAN), max_size=3).map(tuple),
    start=SECONDS,
    end=SECONDS,
    media=st.none() | st.builds(Media, video=st.just("a.mp4"), audio=st.none() | st.just("b.wav")),
    features=st.none() | st.dictionaries(st.sampled_from(["vision", "audio"]), st.builds(FeatureRow, WORDS, st.integers(0, 9)), min_size=1),
)  # fmt: skip
DIALOGUE = st.builds(
    Dialogue,
    id=WORDS,
    turns=st.lists(UTTERANCE, min_size=1, max_size=4).map(tuple),
    language=st.sampled_from(["zh", "en"]),
    split=st.sampled_from([None, "train", "valid", "test"]),
    reference=st.none() | WORDS,
    reference_emotion=LABEL,
    topic=st.none() | WORDS,
)


@given(DIALOGUE)
def test_a_dialogue_survives_json(tmp_path_factory, dialogue):
    path = tmp_path_factory.mktemp("round") / "d.jsonl"
    assert write_jsonl(path, [dialogue]) == 1
    assert list(read_dialogues(path)) == [dialogue]
    assert len(path.read_bytes().splitlines()) == 1


def test_json_leaves_out_what_is_not_there():
    line = dumps(Dialogue("a", (Utterance("x", "你好", "fear", media=Media(video="v.mp4")),), "zh"))
    turn = {"speaker": "x", "text": "你好", "emotion": "fear", "media": {"video": "v.mp4"}}
    assert json.loads(line) == {"id": "a", "turns": [turn], "language": "zh"}
    assert "你好" in line


def test_everything_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Utterance("x", "hi").text = "ho"


@pytest.mark.parametrize("label", EKMAN)
def test_a_certain_emotion(label):
    state = EmotionState.of(label)
    assert (state.label, state.source, state.scores[label], sum(state.scores.values())) == (label, "given", 1, 1)


def test_weights_become_a_distribution():
    state = EmotionState.from_scores({"anger": 3, "fear": 1})
    assert state.label == "anger"
    assert state.scores == {**dict.fromkeys(EKMAN, 0.0), "anger": 0.75, "fear": 0.25}
    assert state.valence == pytest.approx(0.75 * -0.51 + 0.25 * -0.64)


EVEN = dict.fromkeys(EKMAN, 1 / 7)


@pytest.mark.parametrize(("label", "scores", "reason"), [
    ("joy", EVEN, "unknown emotion 'joy'"),
    ("anger", {"anger": 1.0}, "must name exactly"),
    ("anger", {**EVEN, "joy": 0.0}, "must name exactly"),
    ("anger", dict.fromkeys(EKMAN, 0.2), "sum to 1"),
    ("anger", {**dict.fromkeys(EKMAN, 0.0), "fear": 1.0}, "not the most probable"),
])  # fmt: skip
def test_an_impossible_emotion_is_refused(label, scores, reason):
    with pytest.raises((ValueError, UnknownName), match=reason):
        EmotionState(label, scores)


@pytest.mark.parametrize("made", [
    lambda: Utterance("x", "hi", "joy"),
    lambda: Utterance("x", "hi", emotions=("fear", "joy")),
    lambda: Dialogue("d", (Utterance("x", "hi"),), reference_emotion="joy"),
])  # fmt: skip
def test_unknown_annotations_are_refused(made):
    with pytest.raises(ValueError, match="'joy' is not one of"):
        made()


def test_a_dialogue_has_turns_and_finds_its_language():
    with pytest.raises(ValueError, match="at least one turn"):
        Dialogue("d", ())
    assert Dialogue("d", (Utterance("x", "今天很好"), Utterance("y", "ok"))).language == "zh"
    assert Dialogue("d", (Utterance("x", "so good"),)).language == "en"
    assert Dialogue("d", (Utterance("x", "今天"),), "en").language == "en"


@pytest.mark.parametrize("name", ["set:12", "set:12~0", "set:12#3", "set:12~0#3"])
def test_the_origin_is_the_dialogue_something_was_cut_from(name):
    dialogue = Dialogue(name, (Utterance("x", "hi"),))
    assert dialogue.origin == "set:12"
    assert Demonstration(name, dialogue.turns, "ho", "neutral", "en", "s", "l").origin == "set:12"


def talk(*pairs):
    return Dialogue("d", tuple(Utterance(*pair) for pair in pairs), "en")


def test_replies_are_the_changes_of_speaker():
    cut = talk(("a", "1"), ("a", "2"), ("b", "3", "fear"), ("b", "4"), ("c", "5")).replies()
    assert [(r.id, len(r.turns), r.reference, r.reference_emotion) for r in cut] == [
        ("d#2", 2, "3", "fear"),
        ("d#4", 4, "5", None),
    ]
    assert all(r.language == "en" for r in cut)
    assert talk(("a", "1")).replies() == ()


def test_a_dialogue_that_waits_for_its_reference_is_its_own_reply():
    dialogue = Dialogue("d", (Utterance("a", "1"), Utterance("b", "2")), reference="3")
    assert dialogue.replies() == (dialogue,)


def test_saying_something_adds_a_turn_and_drops_the_reference():
    dialogue = Dialogue("d", (Utterance("a", "1"),), reference="2", reference_emotion="fear")
    grown = dialogue.said(Utterance("b", "3"))
    assert [turn.text for turn in grown.turns] == ["1", "3"]
    assert grown.last.text == "3"
    assert (grown.reference, grown.reference_emotion) == (None, None)
    assert len(dialogue.turns) == 1


@pytest.mark.parametrize(
    ("speakers", "text"), [("abab", "4"), ("abbb", "2\n3\n4"), ("bbbb", "2\n3\n4"), ("baab", "4"), ("a", "1"), ("", "")]
)
def test_a_context_reads_as_what_its_last_speaker_just_said(speakers, text):
    assert CONTEXT_TURNS == 3
    assert context_text([Utterance(speaker, str(n)) for n, speaker in enumerate(speakers, 1)]) == text
