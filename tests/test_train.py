"""Training of the text reader and of the predictor, at toy size."""

import json

import pytest

from elmd.labels import EKMAN

ROWS = 56


@pytest.fixture
def toy(monkeypatch):
    """A few rows whose label shows in one character, instead of our own data."""
    from elmd.perception import train

    rows = [train.Row(f"{label[0]}{i}", label) for i in range(ROWS // 7) for label in EKMAN]
    monkeypatch.setattr(train, "gather", lambda config: train.Rows(rows, rows[:14], [], [], []))
    return train


def config(train, tiny_encoder, epochs):
    return train.Config(encoder=str(tiny_encoder), epochs=epochs, batch_size=8, learning_rate=5e-3)


def test_the_reader_learns_and_leaves_everything_a_run_must_leave(toy, tiny_encoder, tmp_path):
    from elmd.perception.text import Config, TextReader

    metrics = toy.train(config(toy, tiny_encoder, 3), tmp_path, lambda line: None)
    losses = [row["loss"] for row in metrics["epochs"]]
    assert losses[-1] < losses[0]
    left = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "head.safetensors", "reader.json", "run.toml", "metrics.json"} <= left
    assert {"README.md", "curves.png"} <= left and "resume.safetensors" not in left
    states = TextReader(Config(weights=str(tmp_path))).read_many(["a0", ""])
    assert [state.label in EKMAN for state in states] == [True, True]
    assert states[1].label == "neutral"


def test_a_stopped_run_goes_on_after_its_last_epoch(toy, tiny_encoder, tmp_path, monkeypatch):
    said = []

    def stop_after_one(line):
        said.append(line)
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(config(toy, tiny_encoder, 3), tmp_path, stop_after_one)
    assert (tmp_path / "resume.safetensors").is_file()
    before = json.loads(_history(tmp_path))
    assert len(before) == 1
    again = []
    metrics = toy.train(config(toy, tiny_encoder, 3), tmp_path, again.append)
    assert [line.split()[1] for line in again if line.startswith("epoch")] == ["2/3", "3/3"]
    assert metrics["epochs"][0] == before[0]


def _history(folder):
    from safetensors import safe_open

    with safe_open(folder / "resume.safetensors", "pt") as file:
        return file.metadata()["history"]


def test_the_same_text_is_always_in_the_same_part(tiny_encoder):
    from elmd.perception.train import Config, gather

    rows = gather(Config())
    learned, held = {row.text for row in rows.own}, {row.text for row in rows.own_valid}
    assert held and not learned & held
    assert 0.1 < len(held) / (len(held) + len(learned)) < 0.2


def test_test_statements_are_never_learned():
    from elmd.data import statements
    from elmd.perception.train import Config, gather

    rows = gather(Config())
    seen = {row.text for row in (*rows.own, *rows.own_valid)}
    assert not seen & {row.text for row in statements()}


def unread(texts):
    """A reader that must not be asked."""
    raise AssertionError("the logistic regression learns from annotated emotions")


def test_the_predictor_beats_the_majority_on_its_own_valid_part(tmp_path):
    from elmd.prediction.train import Config, train

    settings = Config(embedder="hashing", strengths=[1.0])
    metrics = train(settings, tmp_path, lambda line: None, unread)
    valid = metrics["valid"]
    assert valid["predictor"]["macro_f1"] > valid["majority"]["macro_f1"]
    assert (tmp_path / "README.md").read_text().startswith("# Reply-emotion predictor")


def test_a_dialogue_is_never_in_both_parts_of_the_predictor():
    from elmd.data import shipped_demonstrations
    from elmd.prediction.train import own_replies

    three = next(d for d in shipped_demonstrations() if len(d.turns) == 3)
    items = list(own_replies(three))
    assert len(items) == 2
    assert {item.origin for item in items} == {three.id}
    assert all(item.reference not in [turn.text for turn in item.turns] for item in items)
