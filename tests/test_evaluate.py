"""Evaluation: reading replies, joining references, baselines, the report's shape, the command and the plot."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from elmd.cli.evaluate import command
from elmd.errors import BadData, UnknownName, UsageError
from elmd.evaluate import Bootstrap, Replies, constant_rows, evaluate, plot, read_replies, report, retrieval_rows
from elmd.files import sha256
from elmd.types import Judged

LINES: list[dict[str, Any]] = [
    {
        "id": "a#1", "reply": "别难过，我在。", "reference": "别难过，我陪你。", "reference_emotion": "sadness",
        "emotion": {"label": "sadness", "scores": {}}, "user_emotion": "sadness", "given_user_emotion": "fear",
        "demonstrations": [{"reply": "我陪你。"}, {"reply": "好。"}], "seconds": {"generation": 1.0}, "backend": "echo",
    },
    {"id": "a#3", "reply": "慢慢来。", "reference": "没事的，慢慢来。", "reference_emotion": "neutral", "emotion": "neutral"},
    {"id": "b#1", "reply": "真的吗？", "reference": "我不知道。", "reference_emotion": "sadness", "emotion": "surprise"},
]  # fmt: skip

app = typer.Typer()
app.command()(command)


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines), encoding="utf-8")
    return path


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    return write(tmp_path / "replies.jsonl", *LINES)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


# --- reading ---


def test_lines_become_judged_rows(replies: Path) -> None:
    found = read_replies(replies)
    assert found.rows[0] == Judged(
        "a#1", "a", "zh", "别难过，我在。", "别难过，我陪你。", "sadness", "sadness", "sadness", "fear"
    )
    assert [row.origin for row in found.rows] == ["a", "a", "b"]
    assert found.retrieved == {"a#1": "我陪你。"}


def test_references_come_from_dialogues_by_id(tmp_path: Path) -> None:
    turns = [
        {"speaker": "A", "text": "我没考上。", "emotion": "sadness"},
        {"speaker": "B", "text": "别难过。", "emotion": "neutral"},
    ]
    cut = {"id": "y~0#1", "turns": [{"speaker": "A", "text": "I failed."}], "reference": "Oh no."}
    dialogues = write(tmp_path / "dialogues.jsonl", {"id": "x", "turns": turns}, cut)
    lines = write(
        tmp_path / "r.jsonl",
        {"id": "x#1", "reply": "没事。", "reference": "旧的", "emotion": "neutral", "user_emotion": "sadness"},
        {"id": "y~0#1", "reply": "Sorry."},
    )
    one, two = read_replies(lines, dialogues).rows
    assert one == Judged("x#1", "x", "zh", "没事。", "别难过。", "neutral", "neutral", "sadness", "sadness")
    assert (two.language, two.reference, two.origin) == ("en", "Oh no.", "y")


def test_an_empty_reference_is_a_reference(tmp_path: Path) -> None:
    lines = write(tmp_path / "r.jsonl", {"id": "a", "reply": "", "reference": ""})
    assert {s.value for s in evaluate(read_replies(lines).rows, ["bleu"])} == {0.0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ('"text"', "not a JSON object"),
        ({"reply": "好", "reference": "好"}, 'needs "id"'),
        ({"id": "a", "reference": "好"}, 'needs "reply"'),
        ({"id": "a", "reply": None, "reference": "好"}, 'needs "reply"'),
        ({"id": "a", "reply": 3, "reference": "好"}, '"reply" must be text, not int'),
        ({"id": "a", "reply": "好"}, "id 'a' has no \"reference\" and there is no --references FILE"),
        ({"id": "a", "reply": "好", "reference": "好", "emotion": "angr"}, "did you mean 'anger'"),
        ({"id": "a", "reply": "好", "reference": "好", "emotion": {"label": 1}}, '"label" must be text'),
        ({"id": "a", "reply": "好", "reference": "好", "language": "fr"}, "must be zh or en, not 'fr'"),
        ({"id": "a", "reply": "好", "reference": "好", "demonstrations": ["x"]}, "must be a list of objects"),
        ({"id": "a", "reply": "好", "reference": "好", "demonstrations": 1}, "must be a list of objects"),
        ({"id": "z", "reply": "好", "reference": "好"}, "id 'z' is there twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, reason: str) -> None:
    path = write(tmp_path / "r.jsonl", {"id": "z", "reply": "好", "reference": "好"}, line)
    with pytest.raises(BadData) as caught:
        read_replies(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert reason in str(caught.value)
    skipped: list[BadData] = []
    assert len(read_replies(path, on_bad=skipped.append).rows) == 1
    assert len(skipped) == 1


def test_a_reply_missing_from_the_references_is_named(tmp_path: Path) -> None:
    turn = {"speaker": "A", "text": "好"}
    dialogues = write(tmp_path / "d.jsonl", {"id": "x", "turns": [turn], "reference": "好"})
    lines = write(tmp_path / "r.jsonl", {"id": "w", "reply": "好"})
    with pytest.raises(BadData, match=r"id 'w' has no \"reference\" and is not in .*d\.jsonl"):
        read_replies(lines, dialogues)


def test_files_that_hold_nothing_or_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="holds no reply"):
        read_replies(write(tmp_path / "r.jsonl", ""))
    with pytest.raises(UsageError, match="no such file"):
        read_replies(tmp_path / "none.jsonl")


# --- scoring ---


def test_languages_are_scored_apart_with_a_prefix() -> None:
    rows = [Judged("a", "a", "zh", "好", "好"), Judged("b", "b", "en", "fine", "bad")]
    found = {s.name: s for s in evaluate(rows, ["rouge"])}
    assert {n for n in found if n.endswith("rouge_l_word")} == {"zh_rouge_l_word", "en_rouge_l_word"}
    assert (found["zh_rouge_l_char"].value, found["en_rouge_l_word"].value) == (100.0, 0.0)
    assert "n:1|" in found["zh_rouge_l_char"].signature
    assert "en_rouge_l_char" not in found
    assert {s.name for s in evaluate(rows[:1], ["rouge"])} >= {"rouge_l_char", "rouge_l_word"}


def test_wrong_use_is_refused() -> None:
    row = Judged("a", "a", "zh", "好", "好")
    with pytest.raises(UsageError, match="no replies"):
        evaluate([])
    with pytest.raises(UnknownName, match="did you mean 'bleu'"):
        evaluate([row], ["blue"])
    with pytest.raises(UsageError, match="nothing|anything"):
        evaluate([row], ["emotion"])
    with pytest.raises(UsageError, match="at least 1"):
        Bootstrap(resamples=0)


def test_baselines_answer_the_same_rows() -> None:
    zh = Judged("a", "a", "zh", "好", "我不知道。", "fear", "fear")
    en = Judged("b", "b", "en", "fine", "bad")
    assert [row.hypothesis for row in constant_rows([zh, en])] == ["我不知道。", "I don't know."]
    assert [row.hypothesis for row in retrieval_rows([zh, en], {"b": "ok"})] == ["我不知道。", "ok"]
    found = report(Replies((zh,), {}), ["rouge", "emotion"])
    assert set(found.baselines) == {"constant"}
    assert {s.name: s.value for s in found.baselines["constant"]}["rouge_l_char"] == 100.0
    assert not any("emotion" in s.name for s in found.baselines["constant"])


def test_a_baseline_without_scores_is_no_error() -> None:
    found = report(Replies((Judged("a", "a", "zh", "好", "好", "fear", "fear"),), {}), ["emotion"])
    assert found.baselines == {"constant": ()}


# --- the plot ---


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_writes_a_picture(replies: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"scores{suffix}"
    plot(report(read_replies(replies)), path)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    assert path.read_bytes().startswith(start[suffix])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_plot_refuses_other_endings_and_unknown_scores(replies: Path, tmp_path: Path) -> None:
    found = report(read_replies(replies), ["length"])
    with pytest.raises(UsageError, match="ends in"):
        plot(found, tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="none of the chosen"):
        plot(found, tmp_path / "x.png", ["bleu_4_char"])
    assert list(tmp_path.glob("*.png")) == []


# --- the command ---


def test_json_has_its_public_shape(replies: Path) -> None:
    result = run(replies, "--json", "--resamples", 20)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert set(found) == {"n", "scores", "baselines"}
    assert found["n"] == 3
    assert set(found["baselines"]) == {"constant", "retrieval"}
    for scores in (found["scores"], *found["baselines"].values()):
        assert all(set(score) == {"name", "value", "low", "high", "signature"} for score in scores)
    names = [score["name"] for score in found["scores"]]
    assert {"bleu_4_char", "rouge_l_word", "meteor_char", "chrf", "distinct_2_char", "length"} <= set(names)
    assert {"reply_emotion_weighted_f1", "user_emotion_accuracy"} <= set(names)
    assert not any(name.startswith("embedding") for name in names)


def test_the_table_shows_scores_baselines_and_signatures(replies: Path) -> None:
    result = run(replies, "--metrics", "bleu,length", "--metrics", "chrf", "--resamples", 20)
    assert result.exit_code == 0
    for word in ("elmd [low, high]", "constant", "retrieval", "bleu_4_char", "empty_replies"):
        assert word in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("chrf: ")]
    assert "chrf2|case:mixed" in line
    assert "bs:20|" in line


def test_out_keeps_scores_settings_and_hashes(replies: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(replies, "--metrics", "rouge", "--json", "--out", out, "--plot", out / "p.png", "--resamples", 20)
    assert result.exit_code == 0
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == json.loads(result.stdout)
    settings = tomllib.loads((out / "run.toml").read_text(encoding="utf-8"))
    assert settings["sha256"] == {"replies": sha256(replies)}
    assert settings["metrics"] == ["rouge"]
    assert (settings["resamples"], settings["seed"]) == (20, 0)
    assert {"elmd", "sacrebleu", "rouge-score", "nltk", "jieba"} <= set(settings["versions"])
    assert sorted(p.name for p in out.iterdir()) == ["p.png", "run.toml", "scores.json"]


def test_bad_lines_end_the_command_or_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", "{", *LINES)
    result = run(path, "--json")
    assert isinstance(result.exception, BadData)
    assert result.exception.exit_code == 2
    result = run(path, "--json", "--skip-bad", "--metrics", "length", "--resamples", 20)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["n"] == 3
    assert f"skipped {path}:1: not JSON" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--metrics", "rogue"], "did you mean 'rouge'"), (["--plot", "x.bmp"], "ends in .png"), (["--references", "no"], "no such file")],
)  # fmt: skip
def test_wrong_arguments_are_one_line_that_helps(replies: Path, arguments: list[str], message: str) -> None:
    result = run(replies, *arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_embedding_is_scored_with_the_house_encoder(replies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elmd import evaluate as house
    from elmd.embedders import hashing

    monkeypatch.setattr(house, "default_encoder", lambda: hashing.Embedder(hashing.Config()))
    result = run(replies, "--metrics", "embedding", "--json", "--resamples", 20)
    assert result.exit_code == 0
    assert {s["name"] for s in json.loads(result.stdout)["scores"]} == {
        "embedding_precision", "embedding_recall", "embedding_f1",
    }  # fmt: skip


def test_evaluation_loads_no_model_library(replies: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom elmd.evaluate import read_replies, report, Bootstrap\nfrom pathlib import Path\n"
        f"report(read_replies(Path({str(replies)!r})), bootstrap=Bootstrap(2))\n"
        "print([m for m in ('torch', 'transformers', 'faiss', 'gradio', 'matplotlib') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
