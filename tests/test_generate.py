"""Batch replies: in order, resumable, whole after any kill, and clear about bad input."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import Ran


def dialogue(n, text="我今天很难过", **more):
    return {"id": f"d{n}", "turns": [{"speaker": "user", "text": f"{text} {n}"}], **more}


def write(path, rows):
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows), encoding="utf-8")
    return path


def ids(path):
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def generate(cli, tiny_agent):
    """Run `elmd generate` with the tiny agent."""
    return lambda *arguments: cli("generate", *arguments, "--recipe", tiny_agent)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "replies.jsonl"


def test_replies_come_in_order_with_the_public_keys(generate, tmp_path, out):
    rows = [dialogue(n, reference="抱抱", reference_emotion="sadness", license="CC0-1.0") for n in range(7)]
    rows[3]["turns"][0]["emotion"] = "fear"
    ran = generate(write(tmp_path / "in.jsonl", rows), out, "--batch", 3)
    assert ran.code == 0, ran.err
    assert "7 replies written, 7 in" in ran.err
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [f"d{n}" for n in range(7)]
    assert [line["reply"] for line in lines] == [f"我听见你说：我今天很难过 {n}" for n in range(7)]
    public = {"id", "reply", "emotion", "user_emotion", "demonstrations", "reference", "seconds", "backend"}
    assert all(public <= set(line) for line in lines)
    assert set(lines[0]["emotion"]) == {"label", "scores", "valence"}
    assert set(lines[0]["demonstrations"][0]) == {"context", "reply", "emotion", "similarity", "source"}
    assert [line.get("given_user_emotion") for line in lines[2:5]] == [None, "fear", None]
    assert "抱抱" in out.read_text(encoding="utf-8")


def test_batches_of_any_size_give_the_same_replies(generate, tmp_path):
    source = write(tmp_path / "in.jsonl", [dialogue(n, "a b"[: n % 4] or "我想死") for n in range(9)])
    found = []
    for size in (1, 4, 16):
        assert generate(source, tmp_path / f"{size}.jsonl", "--batch", size).code == 0
        rows = [json.loads(line) for line in (tmp_path / f"{size}.jsonl").read_text(encoding="utf-8").splitlines()]
        found.append([(r["id"], r["reply"], r["emotion"]["label"], r["backend"]) for r in rows])
    assert found[0] == found[1] == found[2]
    assert {backend for *_, backend in found[0]} == {"echo", "fixed"}


def test_a_second_run_adds_only_what_is_new(generate, tmp_path, out):
    source = write(tmp_path / "in.jsonl", [dialogue(n) for n in range(3)])
    generate(source, out)
    first = out.read_text()
    write(source, [dialogue(n) for n in range(5)])
    ran = generate(source, out)
    assert "2 replies written, 5 in" in ran.err
    assert out.read_text().startswith(first)
    assert ids(out) == [f"d{n}" for n in range(5)]
    assert "0 replies written, 5 in" in generate(source, out).err


def test_the_run_is_written_down_and_repeats_itself(cli, tmp_path, out, tiny_agent):
    source = write(tmp_path / "in.jsonl", [dialogue(1)])
    changed = ["--set", "retrieval.demonstrations=1"]
    assert cli("generate", source, out, "--recipe", tiny_agent, *changed).code == 0
    again = tmp_path / "again.jsonl"
    assert cli("generate", source, again, "--recipe", out.with_suffix(".run") / "run.toml").code == 0
    assert len(json.loads(again.read_text())["demonstrations"]) == 1


def test_kill_9_loses_and_repeats_nothing(tmp_path, out, tiny_agent):
    total = 250
    source = write(tmp_path / "in.jsonl", [dialogue(n) for n in range(total)])
    command = [sys.executable, "-m", "elmd", "generate", str(source), str(out), "-r", str(tiny_agent), "--batch", "1"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not out.exists() or out.read_bytes().count(b"\n") < 10:
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    kept = out.read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    assert 10 <= whole.count(b"\n") < total
    done = subprocess.run([*command[:-1], "64"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert ids(out) == [f"d{n}" for n in range(total)]
    assert out.read_bytes().startswith(whole)


def test_a_torn_last_line_is_cut_and_done_again(generate, tmp_path, out):
    source = write(tmp_path / "in.jsonl", [dialogue(n) for n in range(4)])
    generate(source, out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-9])
    assert "1 replies written, 4 in" in generate(source, out).err
    assert ids(out) == ["d0", "d1", "d2", "d3"]


def test_torn_in_the_middle_of_a_character(generate, tmp_path, out):
    source = write(tmp_path / "in.jsonl", [dialogue(n) for n in range(2)])
    generate(source, out)
    whole = out.read_bytes()
    out.write_bytes(whole[: whole.rfind("难".encode()) + 1])
    assert generate(source, out).code == 0
    assert ids(out) == ["d0", "d1"]


BAD_LINES = {
    "not JSON": ("{oops", "not JSON"),
    "no turns": ('{"id": "x"}', "turns"),
    "empty turns": ('{"id": "x", "turns": []}', "at least one turn"),
    "an unknown emotion": ('{"id": "x", "turns": [{"speaker": "u", "text": "a", "emotion": "joy"}]}', "joy"),
    "an id twice": ('{"id": "d0", "turns": [{"speaker": "u", "text": "a"}]}', "already on line 1"),
    "not an object": ("[1]", "not a JSON object"),
    "a number as text": ('{"id": "x", "turns": [{"speaker": "u", "text": 3}]}', "text"),
    "a deep nest": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_stops_the_run_before_any_work(generate, tmp_path, out, line, reason):
    source = write(tmp_path / "in.jsonl", [dialogue(0), line, dialogue(1)])
    ran = generate(source, out)
    assert ran.code == 2
    assert f"{source}:2: " in ran.complaint
    assert reason in ran.complaint
    assert not out.exists()


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_skip_bad_names_the_line_and_goes_on(generate, tmp_path, out, line, reason):
    source = write(tmp_path / "in.jsonl", [dialogue(0), line, dialogue(1)])
    ran = generate(source, out, "--skip-bad")
    assert ran.code == 0
    said = ran.err.replace("\n", "")  # a terminal of 80 columns wraps
    assert "skipped" in said
    assert f"{source}:2: " in said
    assert ids(out) == ["d0", "d1"]


def test_broken_utf8_is_named_by_line(generate, tmp_path, out):
    source = tmp_path / "in.jsonl"
    good = [json.dumps(dialogue(n)).encode() for n in range(2)]
    source.write_bytes(good[0] + b'\n{"id": "\xff"}\n' + good[1] + b"\n")
    ran = generate(source, out)
    assert (ran.code, out.exists()) == (2, False)
    assert f"{source}:2: not UTF-8 (byte 9" in ran.complaint
    assert generate(source, out, "--skip-bad").code == 0
    assert ids(out) == ["d0", "d1"]


def test_a_byte_order_mark_and_blank_lines_are_no_fault(generate, tmp_path, out):
    source = tmp_path / "in.jsonl"
    source.write_text(f"\ufeff{json.dumps(dialogue(0))}\n\n   \n{json.dumps(dialogue(1))}", encoding="utf-8")
    assert generate(source, out).code == 0
    assert ids(out) == ["d0", "d1"]


def test_a_turn_without_words_stops_or_is_skipped_with_its_id(generate, tmp_path, out):
    rows = [dialogue(0), {"id": "mute", "turns": [{"speaker": "user", "text": "\u200b "}]}, dialogue(1)]
    source = write(tmp_path / "in.jsonl", rows)
    ran = generate(source, out)
    assert ran.code == 2
    assert "mute" in ran.complaint
    assert generate(source, out, "--skip-bad").code == 0
    assert ids(out) == ["d0", "d1"]


def test_replies_to_other_dialogues_are_never_mixed_in(generate, tmp_path, out):
    generate(write(tmp_path / "a.jsonl", [dialogue(n) for n in range(3)]), out)
    before = out.read_bytes()
    ran = generate(write(tmp_path / "b.jsonl", [dialogue(n) for n in range(7, 9)]), out)
    assert ran.code == 2
    assert "other dialogues" in ran.complaint
    assert out.read_bytes() == before


def test_a_file_that_holds_something_else_is_left_alone(generate, tmp_path, out):
    source = write(tmp_path / "a.jsonl", [dialogue(0)])
    for content in ('{"name": "precious"}\n', "precious notes\n", "precious notes without newline"):
        out.write_text(content)
        ran = generate(source, out)
        assert ran.code == 2, ran.err
        assert out.read_text() == content


def test_the_replies_cannot_go_into_the_dialogues(generate, tmp_path):
    source = write(tmp_path / "a.jsonl", [dialogue(0)])
    before = source.read_bytes()
    assert "file of dialogues" in generate(source, source).complaint
    assert source.read_bytes() == before


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_gives_an_empty_file(generate, tmp_path, out, content):
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    ran = generate(source, out)
    assert ran.code == 0
    assert "0 replies" in ran.err


def test_a_missing_file_is_named(generate, tmp_path, out):
    assert f"{tmp_path}/none.jsonl: no such file" in generate(tmp_path / "none.jsonl", out).complaint
    assert not out.exists()


def test_a_folder_as_output_is_one_line(generate, tmp_path):
    ran = generate(write(tmp_path / "a.jsonl", [dialogue(0)]), tmp_path)
    assert ran.code in (1, 2)
    assert str(tmp_path) in ran.complaint


@pytest.mark.parametrize("part", [0, 40])
def test_a_full_disk_is_one_line_and_leaves_whole_lines(generate, tmp_path, out, monkeypatch, part):
    """The disk is full from the third batch on, after `part` bytes of it are written."""
    source = write(tmp_path / "in.jsonl", [dialogue(n) for n in range(4)])
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(os.path.realpath(f"/proc/self/fd/{handle}"))
        if calls.count(str(out)) >= 3 and calls[-1] == str(out):
            os.ftruncate(handle, os.fstat(handle).st_size - part)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    ran = generate(source, out, "--batch", 1)
    assert ran.code == 1
    assert "No space left" in ran.complaint
    assert ids(out) == ["d0", "d1"]
    monkeypatch.undo()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=10).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small file system here; the monkeypatched full disk stands for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(generate, tmp_path, small_disk):
    out = small_disk / "replies.jsonl"
    ran: Ran = generate(write(tmp_path / "in.jsonl", [dialogue(n) for n in range(200)]), out, "--batch", 5)
    assert ran.code == 1
    assert "No space left" in ran.complaint
    kept = ids(out)
    assert kept == [f"d{n}" for n in range(len(kept))]
    assert 5 <= len(kept) < 200
