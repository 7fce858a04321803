"""What is perceived of a clip: fusion, the timeline, what is missing, and what a turn makes of it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from elmd.agent import Agent, heard, reply_json
from elmd.errors import AssetError, UsageError
from elmd.labels import EKMAN
from elmd.media import Info
from elmd.perception import timeline
from elmd.perception.clip import ClipReader, Config, to_json
from elmd.perception.face import FaceReader
from elmd.perception.fuse import fuse
from elmd.perception.text import TextReader
from elmd.types import Dialogue, EmotionState, Features, Media, Perceived, Segment, Utterance


def state(source="text", **scores) -> EmotionState:
    rest = (1 - sum(scores.values())) / (len(EKMAN) - len(scores))
    return EmotionState.from_scores({label: scores.get(label, rest) for label in EKMAN}, source)


def test_one_modality_speaks_for_itself():
    alone = state(sadness=0.7)
    assert fuse({"text": alone}) is alone
    with pytest.raises(ValueError, match="nothing to fuse"):
        fuse({})


@pytest.mark.parametrize("label", [name for name in EKMAN if name != "neutral"])
def test_a_neutral_face_and_voice_do_not_drown_clear_words(label):
    fused = fuse(
        {
            "text": state(**{label: 0.75}),
            "audio": state("audio", neutral=0.8),
            "vision": state("vision", neutral=0.9),
        }
    )
    assert fused.label == label
    assert fused.scores[label] > 0.5
    assert fused.source == "fused"


def test_modalities_that_agree_are_surer_together():
    words, face = state(happiness=0.6), state("vision", happiness=0.6)
    assert fuse({"text": words, "vision": face}).scores["happiness"] > 0.6


def test_a_clear_face_colours_words_that_say_nothing():
    fused = fuse({"text": state(neutral=0.6), "vision": state("vision", sadness=0.85)})
    assert fused.label == "sadness"


def test_no_modality_can_rule_an_emotion_out():
    fused = fuse({"text": EmotionState.of("sadness"), "vision": EmotionState.of("happiness", "vision")})
    assert min(fused.scores.values()) > 0
    assert fused.scores["sadness"] > fused.scores["happiness"]


def faces(label="happiness", seconds=3, fps=4) -> Features:
    columns = (*EKMAN, "score")
    times = np.arange(seconds * fps, dtype=np.float32) / fps
    row = [0.9 if name == label else 0.1 / 6 for name in EKMAN]
    values = np.array([[*row, 0.8]] * len(times), np.float32)
    return Features(np.stack([times, times + 1 / fps], 1), values, columns)


def nothing(columns=(*EKMAN, "score")) -> Features:
    return Features(np.zeros((0, 2), np.float32), np.zeros((0, len(columns)), np.float32), columns)


def test_faces_are_weighed_by_the_detector():
    both = faces("happiness", 1), faces("sadness", 1)
    values = np.concatenate([f.values for f in both])
    values[4:, -1] = 0.01
    mixed = Features(np.concatenate([f.times for f in both]), values, both[0].columns)
    assert FaceReader().read(mixed, 0, 1).label == "happiness"
    assert FaceReader().read(mixed, 5, 6) is None


@pytest.fixture
def reader(monkeypatch, tiny_reader):
    """A clip reader whose recogniser and extractors say what the test wants."""
    from elmd.perception.text import Config as TextConfig

    made = ClipReader(Config(), TextReader(TextConfig(weights=str(tiny_reader))))
    said = {"segments": (Segment(0.2, 1.4, "我很难过", "zh"),), "face": faces(), "prosody": nothing(("energy",))}
    made.__dict__["_recogniser"] = SimpleNamespace(transcribe=lambda audio, language: said["segments"])
    made.__dict__["_face"] = SimpleNamespace(extract=lambda clip: said["face"])
    made.__dict__["_prosody"] = SimpleNamespace(extract=lambda clip: said["prosody"])
    return made, said


def clip(duration=2.5, audio=True, video=True, kind="video"):
    info = Info(kind, duration, audio, video, 640, 480, 25.0)
    return SimpleNamespace(info=info, audio=lambda: np.zeros(int(16_000 * duration), np.float32))


def test_a_clip_has_a_state_every_second_and_for_every_utterance(reader):
    perceived = reader[0].perceive(clip())
    assert [(m.start, m.end) for m in perceived.timeline] == [(0, 1), (1, 2), (2, 2.5)]
    assert [set(m.modalities) for m in perceived.timeline] == [{"text", "vision"}, {"text", "vision"}, {"vision"}]
    (utterance,) = perceived.utterances
    assert (utterance.text, utterance.language, utterance.start) == ("我很难过", "zh", 0.2)
    assert perceived.text == "我很难过"
    assert perceived.missing == ("voice: none found",)
    assert set(perceived.modalities) == {"text", "vision"}
    shape = json.loads(json.dumps(to_json(perceived)))
    assert {"duration", "utterances", "timeline", "missing"} <= set(shape)
    assert set(shape["timeline"][0]) == {"start", "end", "emotion", "modalities"}


def test_what_is_not_there_is_said_and_the_rest_is_read(reader):
    made, said = reader
    said["segments"] = ()
    silent = made.perceive(clip(audio=False))
    assert silent.missing == ("words: no sound", "voice: no sound")
    assert silent.emotion.label == "happiness"
    said["face"] = nothing()
    empty = made.perceive(clip())
    assert set(empty.missing) == {"words: no speech", "voice: none found", "face: none found"}
    assert empty.emotion is None
    assert empty.timeline == ()


def test_a_missing_recogniser_leaves_the_face(reader):
    made, _ = reader

    def lacking(audio, language):
        raise AssetError("whisper-base is not here: elmd assets get whisper-base")

    made.__dict__["_recogniser"] = SimpleNamespace(transcribe=lacking)
    perceived = made.perceive(clip())
    assert "elmd assets get whisper-base" in perceived.missing[0]
    assert perceived.emotion.label == "happiness"


def test_a_picture_has_one_moment(reader):
    made, _ = reader
    perceived = made.perceive(clip(0.0, audio=False, kind="image"))
    assert len(perceived.timeline) == 1
    assert perceived.duration == 0


def test_the_timeline_is_drawn(reader, tmp_path):
    perceived = reader[0].perceive(clip())
    timeline.plot(perceived, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
    with pytest.raises(UsageError, match="ends in"):
        timeline.plot(perceived, tmp_path / "x.doc")


def perceived_as(label: str, text: str = "") -> Perceived:
    shown = EmotionState.of(label, "vision")
    return Perceived(2.0, (), (), ("words: no speech",), shown, {"vision": shown})


class Clips:
    """Stands in for the clip reader: the face says `label`."""

    def __init__(self, label: str) -> None:
        self.label = label

    def perceive(self, clip):
        return perceived_as(self.label)


def turn(text="今天的事我说完了") -> Dialogue:
    return Dialogue("d", (Utterance("user", text, media=Media(video="x.mp4")),))


def test_the_emotion_that_is_seen_changes_demonstrations_and_prompt(tiny_agent):
    replies = {}
    for label in ("happiness", "sadness"):
        agent = Agent.from_recipe(str(tiny_agent))
        agent.__dict__["clips"] = Clips(label)
        agent.__dict__["reader"] = SimpleNamespace(read_many=lambda texts: [state(neutral=0.4)] * len(texts))
        replies[label] = agent.reply(turn())
    glad, sad = replies["happiness"], replies["sadness"]
    assert glad.user_emotion.scores["happiness"] > sad.user_emotion.scores["happiness"]
    assert glad.user_emotion.label != sad.user_emotion.label
    assert [d.id for d in glad.demonstrations] != [d.id for d in sad.demonstrations]
    assert glad.chat != sad.chat
    assert glad.perceived.modalities["vision"].label == "happiness"
    assert "perceived" in reply_json(glad)


def test_words_that_are_heard_are_answered_and_typed_ones_go_first():
    spoken = Perceived(
        1.0,
        (SimpleNamespace(text="I am sad.", language="en"), SimpleNamespace(text="Very.", language="en")),
        (),
        (),
        None,
        {},
    )
    assert heard(turn(""), spoken).last.text == "I am sad. Very."
    assert heard(turn(""), spoken).language == "en"
    assert heard(turn("typed"), spoken).last.text == "typed"
    with pytest.raises(UsageError, match="no words to answer in the clip"):
        heard(turn(""), perceived_as("sadness"))
