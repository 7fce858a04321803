"""What `elmd test` prints, through an agent without real weights."""

import json


def test_the_reader_is_scored_on_every_statement(cli, tiny_agent):
    ran = cli("test", "emotion", "--recipe", tiny_agent, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["n"] == 154
    accuracy = next(score for score in report["scores"] if score["name"] == "zh_user_emotion_accuracy")
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert "n:84" in accuracy["signature"]


def test_the_predictor_is_scored_beside_copying_the_last_emotion(cli, tiny_agent, tmp_path):
    turns = [
        {"speaker": s, "text": f"句子{i}", "emotion": e}
        for i, (s, e) in enumerate(zip("ABAB", ["anger", "fear"] * 2, strict=True))
    ]
    (tmp_path / "valid.jsonl").write_text(json.dumps({"id": "d", "turns": turns}, ensure_ascii=False) + "\n")
    ran = cli("test", "predictor", "--data", "jsonl", "--root", tmp_path, "--recipe", tiny_agent, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["n"] == 3  # a reply at every change of speaker
    names = {score["name"] for score in report["scores"]}
    assert {"reply_emotion_macro_f1", "reply_emotion_majority_macro_f1"} <= names
    assert {score["name"] for score in report["baselines"]["copy_last"]} == names


def test_a_split_without_labels_is_refused(cli, tiny_agent, tmp_path):
    (tmp_path / "valid.jsonl").write_text('{"id": "d", "turns": [{"speaker": "A", "text": "嗯"}]}\n')
    ran = cli("test", "emotion", "--data", "jsonl", "--root", tmp_path, "--recipe", tiny_agent)
    assert ran.code == 2
    assert "nothing to score" in ran.err and ran.err.count("\n") <= 2
