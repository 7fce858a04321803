"""Sentiment from the command line, in processes of their own: a synthetic set, training, testing, predicting."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import elmd

QUICK = ["--set", "seeds=[1]", "--set", "train.epochs=3"]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A small set in MMSA's format."""
    root = tmp_path_factory.mktemp("mosi")
    done = elmd("data", "synthesize", "mosi", "--out", root, "--samples", 60, "--seed", 1)
    assert done.code == 0, done.err
    return root


@pytest.fixture(scope="module")
def trained(synthetic, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "lmf"
    done = elmd(
        "train", "sentiment", "-r", "sentiment-lmf-mosi", "--set", f"data.root={synthetic}", *QUICK, "--out", out
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["best_seed"] == 1
    return out


def test_a_trained_model_is_scored(synthetic, trained):
    done = elmd("test", "sentiment", "--data", "mosi", "--root", synthetic, "--split", "test", "-c", trained, "--json")
    report = json.loads(done.out)
    assert {score["name"] for score in report["scores"]} >= {"mae", "corr", "acc2_has0", "acc2_non0", "acc5", "acc7"}
    assert set(report["scores"][0]) == {"name", "value", "low", "high", "signature"}
    assert set(report["seeds"]) == {"1"}
    shown = elmd("test", "sentiment", "--data", "mosi", "--root", synthetic, "-c", trained, "--missing")
    assert shown.code == 0
    assert "text+audio" in shown.out


def test_one_utterance_is_judged(trained, tmp_path):
    np.save(tmp_path / "audio.npy", np.zeros((7, 5)))
    done = elmd("predict", "sentiment", "-c", trained, "--audio", tmp_path / "audio.npy", "--json")
    assert -3 <= json.loads(done.out)["sentiment"] <= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one utterance"),
        (["--audio", "nowhere.npy"], "nowhere.npy"),
        (["--text", "words"], "nothing to judge"),
    ],
)
def test_bad_input_is_one_line(trained, arguments, message):
    done = elmd("predict", "sentiment", "-c", trained, *arguments)
    assert done.code in (1, 2)
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_run_without_data_says_what_is_missing(tmp_path):
    done = elmd("train", "sentiment", "-r", "sentiment-lmf-mosi", "--out", tmp_path / "x")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "data.root" in done.err


def test_two_processes_train_one_model(synthetic, tmp_path):
    """`accelerate launch` with two CPU processes: both end, one writes, and the model has learned something."""
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    verb = ["-m", "elmd", "train", "sentiment", "-r", "sentiment-self_mm-mosi", "--set", f"data.root={synthetic}"]
    done = subprocess.run(
        [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", *verb, *QUICK, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    history = json.loads((tmp_path / "out/seed-1/history.json").read_text())
    assert len(history) == 3
    assert {p.name for p in (tmp_path / "out/seed-1").iterdir()} == {"history.json", "model.safetensors", "system.json"}
