"""The command line: results on stdout, one line of error on stderr, the right exit code, the public JSON shapes."""

import builtins
import io
import json
import subprocess
import sys

import pytest
from conftest import elmd

import elmd as package
from elmd.labels import EKMAN
from elmd.zoo import ZOOS

DEMONSTRATION = {"context", "reply", "emotion", "similarity", "source"}


def assert_emotion(value):
    assert set(value) == {"label", "scores", "valence"}
    assert set(value["scores"]) == set(EKMAN)
    assert sum(value["scores"].values()) == pytest.approx(1, abs=1e-3)
    assert value["label"] == max(value["scores"], key=value["scores"].get)
    assert -1 <= value["valence"] <= 1


def test_version_and_help():
    assert elmd("--version").out == f"{package.__version__}\n"
    shown = elmd("--help")
    assert shown.code == 0
    for verb in ("chat", "generate", "evaluate", "index", "list", "data", "assets"):
        assert verb in shown.out


@pytest.mark.parametrize("verb", ["chat", "generate", "evaluate", "index", "list", "data", "assets"])
def test_every_verb_explains_itself(cli, verb):
    ran = cli(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: " in ran.out


# ---- one turn ----


def test_one_turn_in_a_process_of_its_own_has_the_public_shape(tiny_agent):
    ran = elmd("chat", "--text", "我今天很难过", "--recipe", tiny_agent, "--json")
    assert ran.code == 0, ran.err
    reply = json.loads(ran.out)
    assert list(reply) == ["reply", "emotion", "user_emotion", "demonstrations", "safety", "seconds", "backend"]
    assert reply["reply"] == "我听见你说：我今天很难过"
    assert_emotion(reply["emotion"])
    assert_emotion(reply["user_emotion"])
    assert len(reply["demonstrations"]) == 3
    for item in reply["demonstrations"]:
        assert set(item) == DEMONSTRATION
        assert set(item["context"][0]) >= {"speaker", "text"}
        assert item["emotion"] in EKMAN
        assert -1 <= item["similarity"] <= 1
    assert reply["safety"] == {"level": "none"}
    assert set(reply["seconds"]) == {"safety", "perception", "retrieval", "prediction", "generation"}
    assert reply["backend"] == "echo"
    assert "我今天" in ran.out  # Chinese stays readable
    assert len(ran.out.splitlines()) == 1


def test_one_turn_as_text_is_the_reply_alone(cli, tiny_agent):
    ran = cli("chat", "-t", "so sad", "-r", tiny_agent)
    assert (ran.code, ran.out) == (0, "I hear you say: so sad\n")


def test_a_crisis_turn_says_so(cli, tiny_agent):
    reply = json.loads(cli("chat", "--text", "我想自杀", "-r", tiny_agent, "--json").out)
    assert reply["safety"] == {"level": "high"}
    assert (reply["backend"], reply["demonstrations"]) == ("fixed", [])
    assert "12356" in reply["reply"]


@pytest.fixture
def converse(cli, monkeypatch, tiny_agent):
    """Hold a conversation: each line is typed in turn, then Ctrl-D."""

    def run(typed, *arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return cli("chat", "-r", tiny_agent, *arguments)

    return run


def test_a_conversation_reads_lines_until_an_empty_one(converse):
    ran = converse("我今天很难过\n他走了\n\n不会读到\n", "--json")
    assert ran.code == 0, ran.err
    assert all(line.startswith("{") for line in ran.out.splitlines())  # the question goes to stderr
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["reply"] for row in rows] == ["我听见你说：我今天很难过", "我听见你说：他走了"]


def test_a_conversation_remembers_what_was_said(converse):
    ran = converse("我想自杀\n没事了\n", "--json")
    assert [json.loads(line)["backend"] for line in ran.out.splitlines()] == ["fixed", "fixed"]


def test_a_conversation_shows_the_words_as_they_are(converse):
    ran = converse("你好 [red]\n")
    assert ran.code == 0
    assert ran.out == "我听见你说：你好 [red]\n"
    assert "answered with" in ran.err


def test_a_line_of_nothing_visible_ends_the_conversation(converse):
    ran = converse("\u200b\x07\n你好\n")
    assert (ran.code, ran.out) == (0, "")


def test_ctrl_c_while_typing_ends_the_conversation(converse, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", stop)
    ran = converse("")
    assert (ran.code, ran.out) == (0, "")
    assert "Traceback" not in ran.err


def test_ctrl_c_while_working_ends_with_130(cli, tiny_agent, monkeypatch):
    from elmd.agent import Agent

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Agent, "reply", stop)
    ran = cli("chat", "-t", "你好", "-r", tiny_agent)
    assert (ran.code, ran.out) == (130, "")
    assert "Traceback" not in ran.err


def test_a_reader_that_leaves_early_is_no_error(tiny_agent):
    command = f"{sys.executable} -m elmd index search 难过 -k 500 -r {tiny_agent} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


# ---- mistakes ----

MISTAKES = {
    "an unknown recipe": (["--recipe", "agent-smal"], "unknown recipe 'agent-smal'; did you mean 'agent-small'"),
    "a recipe file that is not there": (["--recipe", "none.toml"], "none.toml: no such recipe file"),
    "an unknown key": (["--set", "retrieval.demonstration=2"], "unknown key retrieval.demonstration; did you mean 'demonstrations'"),
    "an unknown table": (["--set", "retreival.k=2"], "unknown key retreival; did you mean 'retrieval'"),
    "an unknown key of the backend": (["--set", "generation.llm.modle=1"], "unknown key generation.llm.modle"),
    "a wrong type": (["--set", "retrieval.demonstrations=many"], "retrieval.demonstrations: Input should be a valid integer"),
    "a key below a value": (["--set", "retrieval.embedder.x=1", "--set", "retrieval.embedder=e5", "--set", "retrieval.embedder.x=1"], "retrieval.embedder is not a table"),
    "a number for a table": (["--set", "retrieval=3"], "retrieval: Input should be"),
    "an override without a value": (["--set", "retrieval.demonstrations"], "write it as key.path=value"),
    "an unknown backend": (["--set", "generation.backend=ecko"], "unknown backend 'ecko'; did you mean 'echo'"),
    "an unknown embedder": (["--set", "retrieval.embedder=hash"], "unknown embedder 'hash'; did you mean 'hashing'"),
    "an index that is not there": (["--set", "retrieval.index=nowhere"], "nowhere is not a demonstration index"),
    "an index of another encoder": (["--set", "retrieval.encoder.dimension=32"], "was built with hashing 1/64"),
    "nothing said": (["--text", " "], "nothing to answer"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(cli, tiny_agent, arguments, complaint):
    ran = cli("chat", "--text", "你好", "--recipe", tiny_agent, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.complaint


def test_mistakes_in_a_process_of_its_own():
    ran = elmd("chat", "--text", "hi", "--recipe", "agent-smal")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'agent-small'" in ran.complaint


@pytest.mark.parametrize("content", ["this is = = not TOML", "\x00", "[generation]\nbackend = 'echo'\nbackend = 'hf'"])
def test_a_broken_recipe_file_is_one_line(cli, tmp_path, content):
    (tmp_path / "r.toml").write_text(content)
    ran = cli("chat", "--text", "hi", "--recipe", tmp_path / "r.toml")
    assert ran.code == 2
    assert "not TOML" in ran.complaint


@pytest.mark.parametrize("arguments", [["chta"], ["chat", "--txt", "a"], ["index"], ["generate"], ["generate", "a", "b", "--batch", "0"], ["index", "search", "a", "-k", "x"]])  # fmt: skip
def test_wrong_use_ends_with_2_and_no_traceback(cli, arguments):
    ran = cli(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err + ran.out


def test_the_environment_sets_keys_and_the_command_line_wins(cli, tiny_agent, monkeypatch):
    def shown(*arguments):
        return len(json.loads(cli("chat", "-t", "难过", "-r", tiny_agent, "--json", *arguments).out)["demonstrations"])

    monkeypatch.setenv("ELMD_RETRIEVAL__DEMONSTRATIONS", "1")
    assert shown() == 1
    assert shown("--set", "retrieval.demonstrations=2") == 2
    monkeypatch.setenv("ELMD_RETREIVAL__DEMONSTRATIONS", "1")
    assert "unknown key retreival" in cli("chat", "-t", "难过", "-r", tiny_agent).complaint


def test_a_missing_model_without_network_is_one_line_and_exit_1(cli, tiny_agent, home, monkeypatch):
    monkeypatch.setenv("ELMD_OFFLINE", "1")
    model = ["--set", "generation.backend=hf", "--set", "generation.llm.model=qwen2.5-0.5b"]
    ran = cli("chat", "-t", "难过", "-r", tiny_agent, *model)
    assert (ran.code, ran.out) == (1, "")
    assert "qwen2.5-0.5b is not here and ELMD_OFFLINE is set" in ran.complaint
    assert "elmd assets get qwen2.5-0.5b" in ran.complaint


def test_a_server_that_is_not_there_is_one_line_and_exit_1(cli, tiny_agent):
    server = ["--set", "generation.backend=openai", "--set", "generation.llm.base_url=http://127.0.0.1:9/v1"]
    ran = cli("chat", "-t", "难过", "-r", tiny_agent, *server, "--set", "generation.llm.model=m")
    assert ran.code == 1
    assert "127.0.0.1:9" in ran.complaint


# ---- the index ----


@pytest.fixture
def dialogues(tmp_path):
    def turn(speaker, text, emotion=None):
        return {"speaker": speaker, "text": text} | ({"emotion": emotion} if emotion else {})

    rows = [
        {"id": "a", "turns": [turn("x", "狗狗走丢了", "sadness"), turn("y", "它长什么样？", "fear"), turn("x", "白色的", "sadness")]},
        {"id": "b", "turns": [turn("x", "我升职了", "happiness"), turn("y", "太好了")]},
        {"id": "c", "turns": [turn("x", "下雨了")], "reference": "带伞了吗？", "reference_emotion": "neutral"},
    ]  # fmt: skip
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_index_is_built_from_replies_with_an_emotion_and_searched(cli, tiny_agent, dialogues, tmp_path):
    built = cli("index", "build", dialogues, "--out", tmp_path / "index", "--recipe", tiny_agent)
    assert (built.code, built.out) == (0, "")
    assert "3 demonstrations in" in built.err
    found = cli("index", "search", "我的狗狗不见了", "--index", tmp_path / "index", "-k", 2, "--recipe", tiny_agent)
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert [set(row) for row in rows] == [DEMONSTRATION] * 2
    assert rows[0]["context"][0]["text"] == "狗狗走丢了"
    assert rows[0]["similarity"] >= rows[1]["similarity"]
    everything = cli("index", "search", "嗯", "--index", tmp_path / "index", "-k", 99, "--recipe", tiny_agent)
    assert len(everything.out.splitlines()) == 3


def test_an_index_of_our_own_demonstrations_is_the_default(cli, tiny_agent, tmp_path):
    assert cli("index", "build", "--out", tmp_path / "index", "--recipe", tiny_agent).code == 0
    count = json.loads((tmp_path / "index" / "manifest.json").read_text())["count"]
    assert count >= 600


def test_an_index_of_nothing_is_refused(cli, tiny_agent, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": "a", "turns": [{"speaker": "x", "text": "hi"}]}\n')
    ran = cli("index", "build", tmp_path / "x.jsonl", "--out", tmp_path / "index", "--recipe", tiny_agent)
    assert ran.code == 2
    assert "no reply with a known emotion" in ran.complaint
    assert not (tmp_path / "index").exists()


def test_an_index_that_cannot_be_written_is_one_line(cli, tiny_agent, dialogues, tmp_path):
    (tmp_path / "file").write_text("precious")
    ran = cli("index", "build", dialogues, "--out", tmp_path / "file", "--recipe", tiny_agent)
    assert ran.code in (1, 2)
    assert str(tmp_path / "file") in ran.err
    assert "Traceback" not in ran.err
    assert (tmp_path / "file").read_text() == "precious"


# ---- lists ----


def test_list_as_json_has_name_and_summary(cli):
    rows = json.loads(cli("list", "--json").out)
    assert {tuple(row) for row in rows} == {("name", "summary")}
    assert {"m3ed", "echo", "hashing", "bleu", "agent-small"} <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


@pytest.mark.parametrize("zoo", [*ZOOS, "recipes"])
def test_list_of_one_zoo(cli, zoo):
    names = [row["name"] for row in json.loads(cli("list", zoo, "--json").out)]
    assert names
    assert zoo == "recipes" or names == list(ZOOS[zoo].names())
    text = cli("list", zoo).out
    assert all(name in text for name in names)


def test_list_of_an_unknown_zoo(cli):
    ran = cli("list", "backend")
    assert ran.code == 2
    assert "unknown zoo 'backend'; did you mean 'backends'" in ran.complaint


def test_assets_list_as_json(cli, home):
    rows = {row["name"]: row for row in json.loads(cli("assets", "list", "--json").out)}
    assert {"name", "summary", "license", "bytes", "default", "present", "packages", "hub"} == set(rows["qwen2.5-0.5b"])
    assert [row["present"] for row in rows.values()] == [False] * len(rows)
    assert rows["qwen2.5-0.5b"]["default"]
    assert not rows["qwen2.5-1.5b"]["default"]
    assert cli("assets", "verify").out == ""


@pytest.mark.parametrize(("arguments", "code", "complaint"), [
    (["get", "qwen"], 2, "unknown asset 'qwen'; did you mean 'qwen2.5-"),
    (["get", "--source", "torrent"], 2, "use packages or hub"),
    (["verify", "qwen2.5-0.5b"], 1, "has not been fetched; run: elmd assets get qwen2.5-0.5b"),
])  # fmt: skip
def test_mistakes_with_assets(cli, home, arguments, code, complaint):
    ran = cli("assets", *arguments)
    assert ran.code == code
    assert complaint in ran.complaint


def test_long_paths_are_not_broken_over_lines(cli, tiny_agent, dialogues, tmp_path):
    folder = tmp_path / ("long-name-" * 12)
    ran = cli("index", "build", dialogues, "--out", folder, "--recipe", tiny_agent)
    assert f"use it with --set retrieval.index={folder}" in ran.err
