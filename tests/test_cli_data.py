"""`elmd data`: what is listed, what `check` finds and how it exits, what `prepare` writes."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elmd.cli.data import app
from elmd.errors import BadData, UnknownName, UsageError
from elmd.files import read_dialogues

FIXTURES = Path(__file__).parent / "fixtures"


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def bad_cped(tmp_path):
    """A CPED copy whose test file has one unknown label, on line 3."""
    root = Path(shutil.copytree(FIXTURES / "cped", tmp_path / "cped"))
    path = root / "test_split.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("depress", "bored"), encoding="utf-8")
    return root


def test_list():
    result = run("list")
    assert result.exit_code == 0
    assert "m3ed" in result.stdout and "movie_list_train.txt" in result.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert {"name", "summary", "license", "files", "splits"} <= set(rows[0])
    assert "emotiontalk" in {row["name"] for row in rows}


def test_check_whole_set():
    result = run("check", "cped", "--root", FIXTURES / "cped")
    assert result.exit_code == 0
    assert "0 bad rows" in result.stdout and "dialogues" in result.stdout and "anger" not in result.stdout


def test_check_json_counts():
    result = run("check", "emotiontalk", "--root", FIXTURES / "emotiontalk", "--split", "train", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    (train,) = report["splits"]
    assert (train["dialogues"], train["stretches"], train["utterances"], train["replies"]) == (1, 3, 5, 2)
    assert train["emotions"]["surprise"] == 1 and train["emotions"]["none"] == 1
    assert (report["missing"], report["bad"]) == ([], {"count": 0, "first": []})


def test_check_bad_rows_exit_1(bad_cped):
    result = run("check", "cped", "--root", bad_cped)
    assert result.exit_code == 1
    assert "1 bad rows" in result.stdout
    report = json.loads(run("check", "cped", "--root", bad_cped, "--json").stdout)
    assert report["bad"]["count"] == 1
    assert report["bad"]["first"][0]["file"].endswith("test_split.csv") and report["bad"]["first"][0]["line"] == 3


def test_check_shows_twenty_bad_rows(bad_cped):
    with (bad_cped / "test_split.csv").open("a", encoding="utf-8") as file:
        file.write("short\n" * 30)
    result = run("check", "cped", "--root", bad_cped, "--split", "test")
    assert result.stdout.count("bad: ") == 20
    assert "… and 11 more" in result.stdout and "31 bad rows" in result.stdout


def test_check_file_without_a_column_is_bad(bad_cped):
    (bad_cped / "test_split.csv").write_text("a,b\n1,2\n")
    assert run("check", "cped", "--root", bad_cped, "--split", "test").exit_code == 1


def test_check_missing_files_exit_2(tmp_path):
    result = run("check", "m3ed", "--root", FIXTURES / "m3ed")
    assert result.exit_code == 2
    assert "movie_list_test.txt" in result.stdout and "train" in result.stdout
    assert run("check", "m3ed", "--root", FIXTURES / "m3ed", "--split", "train").exit_code == 0
    report = run("check", "meld", "--root", tmp_path / "nowhere", "--json")
    assert report.exit_code == 2
    assert [m["split"] for m in json.loads(report.stdout)["missing"]] == ["train", "valid", "test"]


def test_check_passes_over_splits_a_layout_does_not_have():
    assert run("check", "esconv", "--root", FIXTURES / "esconv_json").exit_code == 0
    assert run("check", "jsonl", "--root", FIXTURES / "jsonl").exit_code == 0


def test_check_unknown_name_and_split():
    assert isinstance(run("check", "m3edd", "--root", FIXTURES / "m3ed").exception, UnknownName)
    assert isinstance(run("check", "m3ed", "--root", FIXTURES / "m3ed", "--split", "dev").exception, UnknownName)


def test_prepare_writes_one_line_a_reply(tmp_path):
    out = tmp_path / "new" / "train.jsonl"
    result = run("prepare", "m3ed", "--root", FIXTURES / "m3ed", "--split", "train", "--out", out)
    assert result.exit_code == 0 and result.stdout == "" and "wrote 2 replies" in result.stderr
    first, second = read_dialogues(out)
    assert (first.id, first.reference, first.reference_emotion) == (
        "m3ed:chaguan_1#2",
        "那就再泡一壶，边喝边等。",
        "happiness",
    )
    assert (first.split, first.source, first.license) == ("train", "m3ed", "academic research only")
    assert first.turns[0].features["vision"].row == 1
    assert second.origin == "m3ed:chaguan_2"


def test_prepare_last_and_limit(tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = ("prepare", "esconv", "--root", FIXTURES / "esconv", "--split", "train", "--out", out)
    assert run(*arguments).exit_code == 0
    assert [d.id for d in read_dialogues(out)] == [f"esconv:train_0#{i}" for i in range(1, 6)] + [
        "esconv:train_1#1",
        "esconv:train_1#2",
    ]
    run(*arguments, "--last")
    assert [d.id for d in read_dialogues(out)] == ["esconv:train_0#5", "esconv:train_1#2"]
    run(*arguments, "--limit", 1)
    assert [d.id for d in read_dialogues(out)] == ["esconv:train_0#1"]
    assert run(*arguments, "--limit", 0).exit_code == 2


def test_prepare_stops_at_a_bad_row_and_writes_nothing(bad_cped, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    result = run("prepare", "cped", "--root", bad_cped, "--split", "test", "--out", out)
    assert isinstance(result.exception, BadData) and result.exception.exit_code == 2
    assert out.read_text() == "old\n"


def test_prepare_skip_bad_reports_and_goes_on(bad_cped, tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("prepare", "cped", "--root", bad_cped, "--split", "test", "--out", out, "--skip-bad")
    assert result.exit_code == 0
    assert "test_split.csv:3" in result.stderr and "wrote 0 replies" in result.stderr


def test_prepare_missing_files(tmp_path):
    out = tmp_path / "out.jsonl"
    result = run("prepare", "smile", "--root", tmp_path, "--split", "train", "--out", out)
    assert isinstance(result.exception, UsageError) and not out.exists()


def test_list_says_what_a_set_holds():
    holds = {row["name"]: row["holds"] for row in json.loads(run("list", "--json").stdout)}
    assert (holds["m3ed"], holds["mosi"]) == (["dialogues"], ["samples"])
    assert holds["jsonl"] == ["dialogues", "samples"]


def test_synthesize_and_check_samples(tmp_path):
    result = run("synthesize", "sims", "--out", tmp_path, "--train", 8, "--test", 3, "--seed", 1)
    assert result.exit_code == 0 and "unaligned_39.pkl" in result.stderr
    report = run("check", "sims", "--root", tmp_path)
    assert report.exit_code == 2 and "missing: valid" in report.stdout and "709 wide" in report.stdout
    train, test = json.loads(run("check", "sims", "--root", tmp_path, "--json").stdout)["splits"]
    assert (train["samples"], train["origins"], train["labelled"], test["samples"]) == (8, 1, 8, 3)
    assert train["modalities"]["audio"]["share"] == 1 and train["modalities"]["audio"]["widths"] == [33]
    assert 1 < train["modalities"]["text"]["frames"] < 39
    low, mean, high = train["sentiment"]
    assert -1 <= low < mean < high <= 1


def test_synthesize_aligned_and_in_proportion(tmp_path):
    assert run("synthesize", "mosi", "--out", tmp_path, "--samples", 22, "--aligned", "--full-length").exit_code == 0
    (train,) = json.loads(run("check", "mosi", "--root", tmp_path, "--split", "train", "--json").stdout)["splits"]
    assert train["samples"] == 14 and train["modalities"]["vision"]["frames"] == 50
    both = run("synthesize", "mosi", "--out", tmp_path, "--samples", 22, "--train", 3)
    assert isinstance(both.exception, UsageError)


def test_samples_of_a_dialogue_set(tmp_path):
    out = tmp_path / "train.jsonl"
    arguments = ("m3ed", "--root", FIXTURES / "m3ed", "--split", "train", "--samples")
    (train,) = json.loads(run("check", *arguments, "--json").stdout)["splits"]
    assert (train["samples"], train["origins"], train["labelled"], train["sentiment"]) == (5, 2, 0, None)
    assert train["emotions"]["anger"] == 1 and train["modalities"]["vision"]["share"] == 0.8
    assert "anger" in run("check", *arguments).stdout
    assert "wrote 3 samples" in run("prepare", *arguments, "--out", out, "--limit", 3).stderr
    assert out.with_suffix(".safetensors").is_file()
    assert isinstance(run("prepare", *arguments, "--out", out, "--last").exception, UsageError)
