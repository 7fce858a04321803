"""The trainer, trained systems on disk, resuming, and what judges with them."""

import json

import numpy as np
import pytest
import torch
from test_sentiment_models import SUBSETS, samples

from elmd.config import validate
from elmd.errors import BadData, UsageError
from elmd.sentiment import train as trainer
from elmd.sentiment.assess import assess, subsets
from elmd.sentiment.batch import Table
from elmd.sentiment.config import Config, TrainConfig
from elmd.sentiment.predict import best_folder, judge, read_vectors, sample_of
from elmd.sentiment.system import FACTS, WEIGHTS, Predictor
from elmd.sentiment.target import Target
from elmd.sentiment.train import criterion, hide, rate, train
from elmd.types import MODALITIES, Sample


@pytest.fixture
def data(monkeypatch, tmp_path):
    """A data set "toy" in memory, with both splits."""
    made = {"train": samples(40, seed=1), "valid": samples(20, seed=2)}
    monkeypatch.setattr(trainer, "read_samples", lambda name, root, split: made[split])
    monkeypatch.setattr(trainer, "_scale", lambda name: "mosi")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x.json").write_text("{}")
    return made


def config(root, model="lmf", **tables) -> Config:
    base = {
        "model": {"name": model},
        "data": {"name": "jsonl", "root": str(root / "set"), **tables.pop("data", {})},
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3, **tables.pop("train", {})},
        "seeds": [1, 2],
    }
    return validate(Config, base | tables)


def run(settings, out):
    lines, steps = [], []
    return train(settings, out, lines.append, steps.append), lines, steps


def test_a_run_leaves_what_judges_later(data, tmp_path):
    metrics, lines, steps = run(config(tmp_path), tmp_path / "out")
    out = tmp_path / "out"
    names = {p.name for p in out.iterdir()}
    assert names == {"run.toml", "metrics.json", "curves.png", "README.md", "seed-1", "seed-2"}
    assert {p.name for p in (out / "seed-1").iterdir()} == {WEIGHTS, FACTS, trainer.HISTORY}
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert {step.seed for step in steps} == {1, 2}
    assert max(step.epoch for step in steps) == 4
    found = assess(out, data["valid"])
    assert found.to_json() == metrics["valid"]
    assert set(found.seeds) == {"1", "2"}
    best = min(found.seeds, key=lambda seed: found.seeds[seed]["mae"])
    assert best_folder(out).name == f"seed-{best}" == f"seed-{metrics['best_seed']}"


def test_a_killed_run_ends_as_an_unbroken_one(data, tmp_path, monkeypatch):
    settings = config(tmp_path, "self_mm", seeds=[3])
    run(settings, tmp_path / "whole")
    calls = []
    real = trainer.Trainer._epoch

    def dies(self, epoch, show):
        calls.append(epoch)
        if calls.count(3) == 1 and epoch == 3:
            raise KeyboardInterrupt
        real(self, epoch, show)

    monkeypatch.setattr(trainer.Trainer, "_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "broken")
    torch.manual_seed(99)
    run(settings, tmp_path / "broken")
    assert calls == [1, 2, 3, 3, 4]
    histories = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads(path.read_text())]
        for path in (tmp_path / "whole/seed-3/history.json", tmp_path / "broken/seed-3/history.json")
    ]
    assert histories[0] == histories[1]
    assert (tmp_path / "whole/seed-3" / WEIGHTS).read_bytes() == (tmp_path / "broken/seed-3" / WEIGHTS).read_bytes()


def test_a_finished_run_is_not_run_again_and_seeds_can_be_added(data, tmp_path, monkeypatch):
    first, _, _ = run(config(tmp_path), tmp_path / "out")
    again, _, steps = run(config(tmp_path), tmp_path / "out")
    assert steps == []
    assert again == first
    more, _, steps = run(config(tmp_path, seeds=[1, 2, 7]), tmp_path / "out")
    assert {step.seed for step in steps} == {7}
    assert set(more["valid"]["seeds"]) == {"1", "2", "7"}


def test_a_folder_holds_one_configuration(data, tmp_path):
    run(config(tmp_path), tmp_path / "out")
    with pytest.raises(UsageError, match="other settings"):
        run(config(tmp_path, train={"learning_rate": 1e-4}), tmp_path / "out")


def test_a_damaged_resume_file_is_said_in_one_line(data, tmp_path):
    (tmp_path / "out/seed-1").mkdir(parents=True)
    (tmp_path / "out/seed-1/resume-0.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UsageError, match="delete it to start afresh"):
        run(config(tmp_path), tmp_path / "out")


def test_the_weights_of_the_best_epoch_are_kept(data, tmp_path):
    settings = config(tmp_path, seeds=[1], train={"epochs": 12, "learning_rate": 0.05, "patience": 3})
    metrics, _, _ = run(settings, tmp_path / "out")
    history = json.loads((tmp_path / "out/seed-1/history.json").read_text())
    best = min(row["valid"] for row in history)
    assert metrics["valid"]["seeds"]["1"]["mae"] == pytest.approx(best, abs=1e-4)
    after = len(history) - 1 - [row["valid"] for row in history].index(best)
    assert after == 3 or len(history) == 12


def test_seeds_repeat_a_run_and_differ(data, tmp_path):
    one, _, _ = run(config(tmp_path), tmp_path / "a")
    two, _, _ = run(config(tmp_path), tmp_path / "b")
    assert one == two
    assert one["valid"]["seeds"]["1"] != one["valid"]["seeds"]["2"]


@pytest.mark.parametrize("target", ["polarity", "emotion", "valence_arousal"])
def test_every_target_trains_and_is_scored(data, tmp_path, target):
    metrics, _, _ = run(config(tmp_path, data={"target": target}, seeds=[1]), tmp_path / "out")
    names = {score["name"] for score in metrics["valid"]["scores"]}
    assert {"ccc"} <= names if target == "valence_arousal" else {"accuracy", "macro_f1"} <= names
    (row,) = judge(tmp_path / "out", data["valid"][:1])
    assert target in row
    assert ("scores" in row) == (target != "valence_arousal")


def test_a_target_without_labels_is_refused(data, tmp_path):
    for split in data:
        data[split] = [Sample(s.id, s.origin, "", "en", s.features, sentiment=s.sentiment) for s in data[split]]
    with pytest.raises(UsageError, match="no train sample has a label"):
        run(config(tmp_path, data={"target": "emotion"}), tmp_path / "out")


def test_an_unknown_group_is_refused_with_the_known_ones(data, tmp_path):
    settings = config(tmp_path, train={"groups": {"nope": {"learning_rate": 1e-3}}})
    with pytest.raises(UsageError, match=r"train\.groups\.nope: no such group; there are main"):
        run(settings, tmp_path / "out")


def test_a_loss_that_blows_up_is_said(data, tmp_path):
    with pytest.raises(UsageError, match="lower train.learning_rate"):
        run(config(tmp_path, train={"learning_rate": 1e30, "clip": 0.0, "epochs": 20}), tmp_path / "out")


def test_bf16_and_accumulation_train(data, tmp_path):
    settings = config(tmp_path, seeds=[1], train={"precision": "bf16", "accumulate": 2, "missing": 0.3})
    metrics, _, _ = run(settings, tmp_path / "out")
    assert np.isfinite(metrics["valid"]["seeds"]["1"]["mae"])


def test_accumulating_two_batches_is_one_step_of_both(data, tmp_path):
    """The weights after one epoch of 5 batches, two to a step, come from 3 steps."""
    stepped = []
    real = torch.optim.AdamW.step
    torch.optim.AdamW.step = lambda self, *args: stepped.append(real(self, *args))
    try:
        run(config(tmp_path, seeds=[1], train={"accumulate": 2, "epochs": 1}), tmp_path / "out")
    finally:
        torch.optim.AdamW.step = real
    assert len(stepped) == 3


def test_predictions_need_no_order_and_no_company(data, tmp_path):
    run(config(tmp_path, seeds=[1]), tmp_path / "out")
    predictor = Predictor(tmp_path / "out/seed-1")
    whole = predictor.outputs(data["valid"])
    torch.testing.assert_close(predictor.outputs(data["valid"][::-1]).flip(0), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(predictor.outputs(data["valid"][:1]), whole[:1], atol=1e-5, rtol=1e-4)


def test_subsets_of_modalities_are_scored_as_missing(data, tmp_path):
    run(config(tmp_path, seeds=[1]), tmp_path / "out")
    assert sorted([*subsets(tmp_path / "out"), MODALITIES]) == sorted(SUBSETS)
    only = assess(tmp_path / "out", data["valid"], ("text",))
    stripped = [
        Sample(s.id, s.origin, features={m: v for m, v in s.features.items() if m == "text"}, sentiment=s.sentiment)
        for s in data["valid"]
    ]
    assert only.to_json() == assess(tmp_path / "out", stripped).to_json()


def test_a_sample_that_does_not_fit_is_refused(data, tmp_path):
    run(config(tmp_path, seeds=[1]), tmp_path / "out")
    with pytest.raises(UsageError, match=r"audio must be \(frames, 5\)"):
        judge(tmp_path / "out", [Sample("s", "s", features={"audio": np.zeros((3, 4), np.float32)})])
    with pytest.raises(UsageError, match="nothing to judge"):
        judge(tmp_path / "out", [sample_of("only words, where vectors are wanted")])


def test_a_folder_without_a_system_and_a_wrong_one_are_refused(data, tmp_path):
    with pytest.raises(UsageError, match="no trained sentiment model"):
        judge(tmp_path, [])
    run(config(tmp_path, seeds=[1]), tmp_path / "out")
    facts = tmp_path / "out/seed-1" / FACTS
    facts.write_text(facts.read_text().replace('"text": 12', '"text": 13'))
    with pytest.raises(BadData, match="does not fit"):
        judge(tmp_path / "out", data["valid"])
    facts.write_text("{}")
    with pytest.raises(BadData, match="not what elmd writes"):
        judge(tmp_path / "out", data["valid"])


@pytest.mark.parametrize(
    "content",
    [b"", b"no", b"\x93NUMPY", np.array([["a"]], dtype=object).dumps()],
    ids=["empty", "text", "cut", "pickle"],
)
def test_files_that_are_no_vectors_are_refused(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(BadData):
        read_vectors(tmp_path / "x.npy")


def test_vectors_are_read(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(4))
    assert read_vectors(tmp_path / "x.npy").shape == (1, 4)
    np.save(tmp_path / "x.npy", np.full((2, 3), np.nan))
    with pytest.raises(BadData, match="finite"):
        read_vectors(tmp_path / "x.npy")


def test_hiding_leaves_every_row_something():
    torch.manual_seed(0)
    rows = Table(samples(60), MODALITIES, Target())
    hidden = hide(rows.batch(range(60)), 0.9)
    before = torch.stack([rows.batch(range(60)).frames[m].present for m in MODALITIES], 1)
    after = torch.stack([hidden.frames[m].present for m in MODALITIES], 1)
    assert after.any(1).all()
    assert not (after & ~before).any()
    assert after.sum() < before.sum()


def test_rates_follow_their_schedule():
    def at(epochs: float, stalled: int = 0, **kwargs) -> float:
        return rate(TrainConfig(epochs=10, patience=4, **kwargs), epochs, stalled)

    assert at(5) == 1
    assert at(5, schedule="linear") == 0.5
    assert at(10, schedule="linear") == 0
    assert at(5, schedule="cosine") == pytest.approx(0.5)
    assert at(0.5, warmup=0.1) == pytest.approx(0.5)
    assert at(5, stalled=2, schedule="plateau") == 1
    assert at(5, stalled=3, schedule="plateau") == 0.5


def test_the_criterion_is_lower_for_better():
    rows = Table(samples(10), MODALITIES, Target())
    assert criterion(rows.labels, rows) == 0
    assert criterion(rows.labels + 1, rows) == pytest.approx(1)
    classes = Table(samples(10), MODALITIES, Target("polarity"))
    right = torch.nn.functional.one_hot(classes.labels[:, 0].long(), 3).float()
    assert criterion(right, classes) < criterion(1 - right, classes)
