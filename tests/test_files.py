"""Files: reading names every fault by line, writing is whole or not at all."""

import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmd.errors import BadData, ElmdError, UsageError
from elmd.files import JsonlAppender, dumps, read_dialogues, read_jsonl, sha256, write_jsonl, write_text

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_rows_survive_a_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_jsonl(path, rows) == len(rows)
    assert [row for _, row in read_jsonl(path)] == rows


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_line_by_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "x.jsonl"
    path.write_bytes(data)
    bad: list[BadData] = []
    good = [number for number, row in read_jsonl(path, bad.append)]
    assert sorted([*good, *(p.line for p in bad)]) == sorted({*good, *(p.line for p in bad)})
    assert len(good) + len(bad) <= data.count(b"\n") + 1


def test_lines_are_numbered_as_in_the_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('\ufeff{"a": 1}\n\n{"a": 2}\r\n[3]\n"x"\nnull\n{', encoding="utf-8")
    bad: list[BadData] = []
    assert list(read_jsonl(path, bad.append)) == [(1, {"a": 1}), (3, {"a": 2})]
    assert [p.line for p in bad] == [4, 5, 6, 7]
    with pytest.raises(BadData, match=r"x\.jsonl:4: not a JSON object"):
        list(read_jsonl(path))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match=f"{path}: no such file"):
            list(read_jsonl(path))


TURN = {"speaker": "x", "text": "hi"}


@pytest.mark.parametrize(("row", "reason"), [
    ({"id": "a"}, "turns"),
    ({"turns": [TURN]}, "id"),
    ({"id": 3, "turns": [TURN]}, "id: Input should be a valid string"),
    ({"id": "a", "turns": [{"text": "hi"}]}, r"turns\.0\.speaker"),
    ({"id": "a", "turns": [TURN, {**TURN, "emotion": "joy"}]}, "'joy' is not one of"),
    ({"id": "a", "turns": [TURN], "language": "fr"}, "language"),
    ({"id": "a", "turns": [TURN], "split": "dev"}, "split"),
    ({"id": "a", "turns": [{**TURN, "start": "soon"}]}, r"turns\.0\.start"),
])  # fmt: skip
def test_a_row_that_is_no_dialogue_is_named_by_line_and_key(tmp_path, row, reason):
    write_jsonl(tmp_path / "d.jsonl", [{"id": "fine", "turns": [TURN]}, row])
    with pytest.raises(BadData, match=rf"d\.jsonl:2: .*{reason}"):
        list(read_dialogues(tmp_path / "d.jsonl"))


def test_unknown_keys_are_ignored_and_doubled_ids_are_not(tmp_path):
    rows = [
        {"id": "a", "turns": [{**TURN, "mood": 3}], "extra": {}},
        {"id": "b", "turns": [TURN]},
        {"id": "a", "turns": [TURN]},
    ]
    write_jsonl(tmp_path / "d.jsonl", rows)
    with pytest.raises(BadData, match=r":3: id 'a' is already on line 1"):
        list(read_dialogues(tmp_path / "d.jsonl"))
    bad: list[BadData] = []
    assert [d.id for d in read_dialogues(tmp_path / "d.jsonl", bad.append)] == ["a", "b"]
    assert [p.line for p in bad] == [3]


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "x.txt"
    write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ElmdError, match=rf"cannot write {path}: No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_a_bad_row_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise BadData("y", 1, "bad")

    with pytest.raises(BadData):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("write", [lambda p: write_text(p, "x"), lambda p: JsonlAppender(p, "id")])
def test_a_place_that_cannot_be_written_is_named(tmp_path, write):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "x"):
        with pytest.raises(ElmdError, match=f"cannot write {path}"):
            write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def append(path: Path, *rows):
    with JsonlAppender(path, "id") as appender:
        appender.append(rows)


def test_appending_keeps_what_is_there(tmp_path):
    path = tmp_path / "sub" / "x.jsonl"
    append(path, {"id": 1}, {"id": 2})
    append(path)
    append(path, {"id": "三"})
    assert path.read_text(encoding="utf-8") == '{"id": 1}\n{"id": 2}\n{"id": "三"}\n'


@given(st.integers(0, 60))
def test_after_a_cut_at_any_byte_whole_lines_are_left(tmp_path_factory, at):
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    append(path, {"id": "一", "a": "难过"}, {"id": "二", "a": "开心"})
    whole = path.read_bytes()
    path.write_bytes(whole[:at])
    append(path, {"id": "三"})
    kept = whole[:at][: whole[:at].rfind(b"\n") + 1]
    assert path.read_bytes() == kept + dumps({"id": "三"}).encode() + b"\n"


@pytest.mark.parametrize("ending", ["precious", '{"name": 1}', '{"id"x', "[1]", '{"id": 1}\nprecious'])
def test_the_end_of_another_file_is_not_cut(tmp_path, ending):
    path = tmp_path / "x.jsonl"
    path.write_text(ending)
    with pytest.raises(UsageError, match="name another output file"):
        JsonlAppender(path, "id")
    assert path.read_text() == ending


def test_a_full_disk_leaves_whole_rows_and_can_go_on(tmp_path, monkeypatch):
    path, real, full = tmp_path / "x.jsonl", os.fsync, [False]

    def fsync(handle):
        if full[0]:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with JsonlAppender(path, "id") as appender:
        appender.append([{"id": 1}])
        full[0] = True
        with pytest.raises(ElmdError, match="No space left on device; what is done so far is kept"):
            appender.append([{"id": 2}])
        assert path.read_text() == '{"id": 1}\n'
        full[0] = False
        appender.append([{"id": 3}])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_write_that_was_cut_short_leaves_whole_rows(tmp_path):
    """The kernel takes a part of the rows and then no more, as it does when a disk fills up."""
    path, limit = tmp_path / "x.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonlAppender(path, "id") as appender:
        appender.append([{"id": 1}])
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        try:
            with pytest.raises(ElmdError, match="File too large; what is done so far is kept"):
                appender.append([{"id": n, "text": "x" * 9_000} for n in range(2, 6)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        appender.append([{"id": 9}])
    assert path.read_text() == '{"id": 1}\n{"id": 9}\n'


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
