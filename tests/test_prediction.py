"""REP: what the transformer sees, what it never sees, that it learns, and that it works in the agent."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elmd.agent import Agent
from elmd.config import load
from elmd.embedders.hashing import Config as HashingConfig
from elmd.embedders.hashing import Embedder
from elmd.errors import AssetError, UsageError
from elmd.labels import EKMAN
from elmd.prediction.predictor import Config as PredictionConfig
from elmd.prediction.predictor import open_predictor
from elmd.prediction.scenes import ANSWERER, ASKER, NOBODY, OTHER, arrange, gather, look
from elmd.prediction.train import Config, show_of, train
from elmd.types import Dialogue, EmotionState, FeatureRow, Utterance

WIDTH = 5
ENCODER = Embedder(HashingConfig(dimension=16))
SMALL = [
    "model=transformer",
    "embedder=hashing",
    "encoder.dimension=64",
    "network.turns=4",
    "network.width=16",
    "network.heads=2",
    "network.text_components=8",
    "network.dropout=0.0",
    "fit.folds=2",
    "fit.epochs=8",
    "fit.batch_size=16",
    "fit.learning_rate=0.01",
]


def read(texts):
    """A reader to whom a text that ends in a label shows it, and any other nothing."""
    return [
        EmotionState.of(text.split()[-1], "text") if text.split()[-1] in EKMAN else EmotionState.of("neutral", "text")
        for text in texts
    ]


def vectors(folder: Path, rows: np.ndarray) -> str:
    np.save(folder / "vision.npy", rows.astype(np.float32))
    return str(folder / "vision.npy")


def turn(i: int, file: str | None = None, **changes) -> Utterance:
    seen = {"vision": FeatureRow(file, i)} if file else None
    return replace(Utterance("ABC"[i % 3], f"words {i}", EKMAN[i % 7], features=seen), **changes)


def dialogue(*turns: Utterance) -> Dialogue:
    return Dialogue("m3ed:show_1", turns, "zh")


# ---- what it sees ----


def arrays(scenes, given):
    return [*(getattr(scenes, name) for name in scenes.__slots__), given]


def test_nothing_of_the_reply_or_after_is_seen(tmp_path):
    """Changing words, label, speaker, recording, times and looks of the reply and of all after leaves each input as it is."""
    file = vectors(tmp_path, np.random.default_rng(0).normal(size=(20, WIDTH)))
    before = [turn(i, file) for i in range(4)]
    after = [turn(i, file, start=float(i)) for i in range(4, 8)]
    other = [turn(i, file, speaker="Z", text=f"other {i}", emotion="fear", start=99.0) for i in range(12, 19)]
    for changed in (other, other[:1], after[:1]):
        items = [next(r for r in dialogue(*before, *rest).replies() if len(r.turns) == 4) for rest in (after, changed)]
        first, second = (arrays(*gather([item], 6, ENCODER.encode, read, tmp_path)) for item in items)
        assert all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in zip(first, second, strict=True))
    assert items[0].reference != replace(items[1], reference=other[0].text).reference


def test_the_last_turn_before_the_reply_is_seen(tmp_path):
    """The check above can fail: one word, one look or one label of the context changes an input."""
    file = vectors(tmp_path, np.random.default_rng(0).normal(size=(20, WIDTH)))
    before = [turn(i, file) for i in range(4)]
    whole = arrays(*gather([dialogue(*before)], 6, ENCODER.encode, read, tmp_path))
    changes = {"text": "fear", "emotion": "fear", "features": {"vision": FeatureRow(file, 9)}, "speaker": "A"}
    for name, value in changes.items():
        item = dialogue(
            *before[:3], replace(before[3], **{name: value, "text": value if name == "text" else "words 3"})
        )
        found = arrays(*gather([item], 6, ENCODER.encode, read, tmp_path))
        same = all(np.array_equal(a, b) for a, b in zip(whole, found, strict=True))
        assert same == (name == "speaker"), name  # the fourth turn is A's already


def test_roles_are_relative_to_who_is_answered():
    turns = [Utterance(who, str(i)) for i, who in enumerate("CBAB")]
    utterances, places, roles = arrange([dialogue(*turns), dialogue(*turns[:2])], 5)
    assert roles.tolist() == [[ASKER, ANSWERER, ASKER, OTHER, NOBODY], [ASKER, ANSWERER, *[NOBODY] * 3]]
    assert [utterances[i].text for i in places[0, :4]] == ["3", "2", "1", "0"]
    assert [utterances[i].text for i in places[1, :2]] == ["1", "0"]
    assert len(utterances) == 4  # shared, not copied


def test_no_more_turns_are_seen_than_asked_for():
    _, places, roles = arrange([dialogue(*(turn(i) for i in range(9)))], 3)
    assert places.shape == roles.shape == (1, 3)
    assert NOBODY not in roles


def test_looks_are_means_over_frames_and_may_be_missing(tmp_path):
    rows = np.arange(4 * WIDTH).reshape(4, WIDTH)
    file = vectors(tmp_path, rows)
    seen = Utterance("A", "x", features={"vision": FeatureRow(file, 1, 2)})
    vision, there = look([seen, Utterance("A", "y")], tmp_path)
    assert there.tolist() == [True, False]
    assert vision.tolist() == [rows[1:3].mean(0).tolist(), [0] * WIDTH]
    relative = Utterance("A", "x", features={"vision": FeatureRow("vision.npy", 1, 2)})
    assert look([relative], tmp_path)[0].tolist() == vision[:1].tolist()
    assert look([seen], tmp_path, 0)[0].shape == (1, 0)
    with pytest.raises(AssetError, match="5 numbers where 7"):
        look([seen], tmp_path, 7)


def test_shows_are_held_out_whole():
    assert show_of(replace(dialogue(turn(0)), id="m3ed:anjia_12~1#3")) == "m3ed:anjia"
    assert show_of(replace(dialogue(turn(0)), id="meld:train_12#3")) == "meld:train_12"
    assert show_of(replace(dialogue(turn(0)), id="jsonl_life_and_love")) == "jsonl_life_and_love"


def test_folds_keep_groups_whole_and_are_alike_in_size():
    from elmd.prediction.fit import fold_of

    groups = [f"show {i % 11}" for i in range(200)]
    folds = fold_of(groups, 4, seed=1)
    assert len({(group, fold) for group, fold in zip(groups, folds, strict=True)}) == 11
    assert set(folds) == {0, 1, 2, 3}
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 19
    assert folds.tolist() != fold_of(groups, 4, seed=2).tolist()
    assert folds.tolist() == fold_of(groups, 4, seed=1).tolist()


# ---- that it learns ----


def write(root: Path, split: str, count: int, shown: str, seed: int) -> None:
    """Write dialogues in which the reply takes up an emotion that shows in the words or looks of the last turn only."""
    random = np.random.default_rng(seed)
    labels = ("anger", "happiness", "sadness")
    rows, looks = [], []
    for n in range(count):
        turns = []
        label = labels[random.integers(3)]
        for speaker in "AB":
            place = {"vision": {"file": str(root / f"{split}.npy"), "row": len(looks)}}
            looks.append(np.eye(WIDTH)[labels.index(label)] + random.normal(size=WIDTH) * 0.1)
            word = label if shown == "text" else "x"
            turns.append({"speaker": speaker, "text": f"so {word}", "emotion": label, "features": place})
        rows.append({"id": f"show{n % 6}_{n}", "turns": turns})
    np.save(root / f"{split}.npy", np.array(looks, np.float32))
    (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def trained(root: Path, out: Path, *more: str) -> dict:
    keys = [*SMALL, "data.name=jsonl", f"data.root={json.dumps(str(root))}", "data.own=false", *more]
    return train(Config.model_validate(load(Config, "predictor-cped", keys).model_dump()), out, lambda line: None, read)


@pytest.fixture(scope="module", params=["text", "vision"])
def run(request, tmp_path_factory):
    """A run on a data set in which the emotion shows in words or in looks."""
    root = tmp_path_factory.mktemp(request.param)
    for seed, split in enumerate(("train", "valid")):
        write(root, split, 90 if split == "train" else 60, request.param, seed)
    return request.param, root, trained(root, root / "out")


def test_it_learns_from_what_shows_the_emotion(run):
    shown, root, metrics = run
    valid = metrics["valid"]
    assert valid["majority"]["macro_f1"] < 0.3
    assert valid["emotions_read"]["accuracy"] > 0.9
    assert metrics["unseen_folds"]["n"] == 90
    without = trained(root, root / "blind", 'fit.modalities=["text", "emotions"]')["valid"]
    assert (without["emotions_read"]["accuracy"] > 0.9) == (shown == "text")
    assert without["emotions_given"]["accuracy"] > 0.9


def test_a_run_leaves_everything_and_repeats(run):
    _, root, metrics = run
    left = {path.name for path in (root / "out").iterdir()}
    assert left == {"transformer.safetensors", "predictor.json", "run.toml", "metrics.json", "README.md", "curves.png"}
    config = load(Config, str(root / "out" / "run.toml"))
    again = train(config, root / "again", lambda line: None, read)
    assert again == metrics
    name = "transformer.safetensors"
    assert (root / "again" / name).read_bytes() == (root / "out" / name).read_bytes()


def test_a_prediction_needs_no_company_and_no_looks(run):
    from elmd.datasets import read_dialogues

    _, root, _ = run
    predictor = open_predictor(PredictionConfig(weights=str(root / "out")))
    encoder = Embedder(HashingConfig())
    items = [item for one in read_dialogues("jsonl", root, "valid") for item in one.replies()]
    scenes, _ = gather(items, predictor.turns, encoder.encode, read, root)
    ensemble = predictor._ensemble
    together = ensemble.probabilities(ensemble.inputs(scenes))
    for item, row in zip(items[:5], together, strict=False):
        state = predictor.predict(item, read([turn.text for turn in item.turns]), np.zeros(1), encoder)
        assert [state.scores[label] for label in EKMAN] == pytest.approx(row.tolist(), abs=1e-5)
        blind = replace(item, turns=tuple(replace(turn, features=None) for turn in item.turns))
        assert predictor.predict(blind, read([turn.text for turn in item.turns]), np.zeros(1), encoder).label in EKMAN


def test_what_is_not_there_has_no_say(run):
    """Vectors behind a missing flag, and the place of turns that are not there, change nothing."""
    from elmd.datasets import read_dialogues

    _, root, _ = run
    predictor = open_predictor(PredictionConfig(weights=str(root / "out")))
    items = [item for one in read_dialogues("jsonl", root, "valid") for item in one.replies()]
    scenes, _ = gather(items, predictor.turns, Embedder(HashingConfig()).encode, read, root)
    ensemble = predictor._ensemble
    hidden = replace(scenes, seen=np.zeros_like(scenes.seen))
    shares = ensemble.probabilities(ensemble.inputs(hidden))
    elsewhere = replace(hidden, vision=scenes.vision + 100, turns=np.where(scenes.roles == NOBODY, 3, scenes.turns))
    assert ensemble.probabilities(ensemble.inputs(elsewhere)).tobytes() == shares.tobytes()
    assert ensemble.probabilities(ensemble.inputs(scenes, ["text", "emotions"])).tobytes() == shares.tobytes()


def test_what_was_not_learned_is_not_looked_at(run):
    _, root, _ = run
    trained(root, root / "words", 'fit.modalities=["text"]')
    predictor, encoder = open_predictor(PredictionConfig(weights=str(root / "words"))), Embedder(HashingConfig())
    item = dialogue(Utterance("A", "so happiness"))
    found = [predictor.predict(item, [EmotionState.of(label)], np.zeros(1), encoder) for label in ("fear", "anger")]
    assert found[0] == found[1]


def test_the_same_utterance_twice_keeps_its_own_emotion(run):
    _, root, _ = run
    predictor = open_predictor(PredictionConfig(weights=str(root / "out")))
    echo = Utterance("A", "so x")
    item = dialogue(echo, Utterance("B", "so y"), echo)
    states = [EmotionState.of("anger"), EmotionState.of("fear"), EmotionState.of("sadness")]
    scene = predictor.scene(item, states, Embedder(HashingConfig()))
    felt = [EKMAN[scene.emotions[place].argmax()] for place in scene.turns[0, :3]]
    assert felt == ["sadness", "fear", "anger"]


def test_nothing_to_learn_from_is_said(tmp_path):
    with pytest.raises(UsageError, match="nothing to learn from"):
        config = load(Config, "predictor-m3ed", [*SMALL, "data.name=jsonl"]).model_dump()
        config["data"]["name"] = None
        train(Config.model_validate(config), tmp_path, lambda line: None, read)


# ---- in the agent ----


def test_the_agent_answers_with_it_and_never_reads_the_reply(run, tiny_agent):
    shown, root, _ = run
    agent = Agent.from_recipe(str(tiny_agent), [f"prediction.weights={json.dumps(str(root / 'out'))}"])
    item = dialogue(*(Utterance("AB"[i % 2], f"so {i}") for i in range(6)))
    reply = agent.reply(item)
    assert reply.emotion.label in EKMAN
    assert sum(reply.emotion.scores.values()) == pytest.approx(1.0, abs=1e-5)
    known = replace(item, reference="so anger", reference_emotion="anger")
    assert agent.foresee(known) == agent.foresee(replace(known, reference="so fear", reference_emotion="fear"))


def test_it_is_tested_from_the_command_line(run, tiny_agent, cli):
    shown, root, _ = run
    words = ["--data", "jsonl", "--root", root, "--checkpoint", root / "out", "--recipe", tiny_agent, "--json"]
    ran = cli("test", "predictor", *words, "--set", "perception.annotated=true")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["n"] == 60
    accuracy = next(score for score in report["scores"] if score["name"].endswith("reply_emotion_accuracy"))
    assert accuracy["value"] > 90


def test_damaged_weights_are_named(run, tmp_path):
    _, root, _ = run
    for name in ("transformer.safetensors", "predictor.json"):
        (tmp_path / name).write_bytes((root / "out" / name).read_bytes())
    facts = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps({**facts, "members": 1}))
    item = dialogue(Utterance("A", "so x"))
    with pytest.raises(AssetError, match="does not fit predictor.json; train it again"):
        open_predictor(PredictionConfig(weights=str(tmp_path))).predict(
            item, [EmotionState.of("fear")], np.zeros(1), Embedder(HashingConfig())
        )
