"""Every data set: its fixture loads, bad rows are named by file and line, missing files by name."""

import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from elmd.datasets import cped, emotiontalk, esconv, jsonl, m3ed, meld, mmed, smile
from elmd.errors import BadData, UnknownName, UsageError
from elmd.labels import EKMAN, LABEL_SETS
from elmd.types import DatasetCard, Dialogue
from elmd.zoo import DATASETS

FIXTURES = Path(__file__).parent / "fixtures"
CASES = {  # fixture folder → data set and the splits the fixture has
    "m3ed": ("m3ed", ("train", "valid")),
    "emotiontalk": ("emotiontalk", ("train", "valid")),
    "cped": ("cped", ("train", "valid", "test")),
    "meld": ("meld", ("train", "valid", "test")),
    "esconv": ("esconv", ("train", "valid", "test")),
    "esconv_json": ("esconv", ("train",)),
    "smile": ("smile", ("train", "valid", "test")),
    "smile_jsonl": ("smile", ("train", "valid", "test")),
    "smile_folder": ("smile", ("train", "valid", "test")),
    "mmed": ("mmed", ("train",)),
    "jsonl": ("jsonl", ("train", "valid")),
    "jsonl_file/all.jsonl": ("jsonl", ("train", "valid", "test")),
}
DATA = Path(os.environ.get("ELMD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def copy(tmp_path):
    """Copy a fixture, so that a test may damage it."""
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def load(name: str, split: str) -> list[Dialogue]:
    return list(DATASETS.load(CASES[name][0]).read(FIXTURES / name, split))


def problems(module, root: Path, split: str) -> list[BadData]:
    bad: list[BadData] = []
    list(module.read(root, split, bad.append))
    return bad


def words(dialogue: Dialogue) -> list[str]:
    return [turn.text for turn in dialogue.turns]


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_zoo_lists_every_set_and_only_sets():
    assert {c[0] for c in CASES.values()} <= set(DATASETS.names())
    assert not any(name.startswith("_") for name in DATASETS.names())


@pytest.mark.parametrize("name", sorted({c[0] for c in CASES.values()}))
def test_card(name):
    card = DATASETS.load(name).CARD
    assert isinstance(card, DatasetCard)
    assert card.label_set is None or card.label_set in LABEL_SETS
    assert card.license and card.url and card.files and set(card.splits) <= {"train", "valid", "test"}
    assert DATASETS.summary(name)


@pytest.mark.parametrize("name", CASES)
def test_fixture_loads(name):
    entry, splits = CASES[name]
    card = DATASETS.load(entry).CARD
    found = {split: load(name, split) for split in splits}
    dialogues = [d for split in splits for d in found[split]]
    assert dialogues
    assert all(len({d.id for d in found[split]}) == len(found[split]) for split in splits)
    assert all(d.split == split for split in splits for d in found[split])
    assert all(d.source and d.license and d.language in ("zh", "en") for d in dialogues)
    assert all(t.text == t.text.strip() and t.text and t.speaker for d in dialogues for t in d.turns)
    assert all(t.emotion in (*EKMAN, None) and set(t.emotions) <= set(EKMAN) for d in dialogues for t in d.turns)
    if entry != "jsonl":
        assert all((d.source, d.license, d.language) == (entry, card.license, card.language) for d in dialogues)
        assert len({d.id for d in dialogues}) == len(dialogues)
        assert {d.id.partition(":")[0] for d in dialogues} == {entry}


@pytest.mark.parametrize("name", CASES)
def test_replies_never_hold_their_own_answer(name):
    for split in CASES[name][1]:
        for dialogue in load(name, split):
            for reply in dialogue.replies():
                if reply is dialogue:
                    continue
                at = int(reply.id.rpartition("#")[2])
                assert reply.turns == dialogue.turns[:at]
                assert reply.reference == dialogue.turns[at].text
                assert reply.last.speaker != dialogue.turns[at].speaker
                assert reply.origin == dialogue.origin


@pytest.mark.parametrize("name", sorted({c[0] for c in CASES.values()}))
def test_missing_files_are_named(name, tmp_path):
    card = DATASETS.load(name).CARD
    with pytest.raises(UsageError) as caught:
        list(DATASETS.load(name).read(tmp_path, "train"))
    message = str(caught.value)
    assert not isinstance(caught.value, BadData)
    assert str(tmp_path) in message and "\n" not in message
    assert any(file in message for file in card.files)


@pytest.mark.parametrize("name", CASES)
def test_unknown_split(name):
    with pytest.raises(UnknownName, match="dev"):
        list(DATASETS.load(CASES[name][0]).read(FIXTURES / name, "dev"))


# M3ED


def test_m3ed_order_times_and_labels():
    first, second = load("m3ed", "train")
    assert (first.id, second.id) == ("m3ed:chaguan_1", "m3ed:chaguan_2")
    assert words(first) == ["师傅，茶凉了。", "他说好三点来，现在都五点了！", "那就再泡一壶，边喝边等。"]
    assert first.turns[0].start == pytest.approx(1 + 4 / 25)
    assert first.turns[1].end == pytest.approx(8 + 20 / 25)
    assert (first.turns[1].emotion, first.turns[1].emotions) == ("anger", ("anger", "sadness"))
    assert (second.turns[0].emotions, second.turns[0].start) == (("surprise",), None)
    assert (second.turns[1].emotion, second.turns[1].emotions, second.turns[1].start) == (None, (), 1.5)


def test_m3ed_feature_rows_point_at_their_utterance():
    folder = FIXTURES / "m3ed"
    ids = (folder / "vision_clip_vitb16.ids.txt").read_text().split()
    first, second = load("m3ed", "train")
    for turn, name in zip(
        (*first.turns, second.turns[0]), ("chaguan_1_8", "chaguan_1_9", "chaguan_1_10", "chaguan_2_1"), strict=True
    ):
        row = turn.features["vision"]
        assert Path(row.file).is_absolute()
        assert ids[row.row] == name
        assert np.load(row.file).shape[0] > row.row
    assert second.turns[1].features is None
    assert all(t.features is None for d in load("m3ed", "valid") for t in d.turns)


def test_m3ed_bad_utterances_are_named_by_key_path(copy):
    root = copy("m3ed")
    replace_in(root / "annotation.json", '"final_main_emo": "Anger"', '"final_main_emo": "Furious"')
    replace_in(root / "annotation.json", '"00:00:01:04"', '"one second"')
    with pytest.raises(BadData, match=r"chaguan\.chaguan_1\.Dialog\.chaguan_1_8: time 'one second'"):
        list(m3ed.read(root, "train"))
    bad = problems(m3ed, root, "train")
    assert [p.line for p in bad] == [None, None]
    assert {p.reason.split(":")[0].rpartition(".")[2] for p in bad} == {"chaguan_1_8", "chaguan_1_9"}
    assert "Furious" in " ".join(p.reason for p in bad)


def test_m3ed_left_out_utterance_cuts_the_dialogue(copy):
    root = copy("m3ed")
    replace_in(root / "annotation.json", '"final_main_emo": "Anger"', '"final_main_emo": "Furious"')
    dialogues = list(m3ed.read(root, "train", lambda _: None))
    assert [d.id for d in dialogues] == ["m3ed:chaguan_1~0", "m3ed:chaguan_1~1", "m3ed:chaguan_2"]
    assert {d.origin for d in dialogues[:2]} == {"m3ed:chaguan_1"}


def test_m3ed_show_that_is_not_in_the_annotation(copy):
    root = copy("m3ed")
    (root / "movie_list_train.txt").write_text("chaguan\n\nnowhere\n")
    (bad,) = problems(m3ed, root, "train")
    assert (Path(bad.file).name, bad.line) == ("movie_list_train.txt", 3)


def test_m3ed_without_test_list_says_which_file():
    with pytest.raises(UsageError, match=r"movie_list_test\.txt"):
        list(m3ed.read(FIXTURES / "m3ed", "test"))


@pytest.mark.parametrize(
    ("content", "line"), [(b'{"a": 1,\n}', 2), (b"[]", None), (b"\xff{}", None)], ids=["json", "list", "bytes"]
)
def test_m3ed_broken_file(copy, content, line):
    root = copy("m3ed")
    (root / "annotation.json").write_bytes(content)
    with pytest.raises(BadData) as caught:
        list(m3ed.read(root, "train"))
    assert caught.value.line == line


@pytest.mark.parametrize(
    "entry", ["null", "[]", '{"EmoAnnotation": {"final_main_emo": 3}, "Text": "a", "Speaker": "A"}']
)
def test_m3ed_odd_json_values_are_bad_rows(copy, entry):
    root = copy("m3ed")
    path = root / "annotation.json"
    path.write_text(json.dumps({"chaguan": {"chaguan_1": {"Dialog": {"chaguan_1_1": json.loads(entry)}}}}))
    assert len(problems(m3ed, root, "train")) == 1
    path.write_text(json.dumps({"chaguan": {"chaguan_1": json.loads(entry)}}))
    assert len(problems(m3ed, root, "train")) == 1


# EmotionTalk


def test_emotiontalk_cleans_orders_and_cuts():
    stretches = load("emotiontalk", "train")
    assert [d.id for d in stretches] == [f"emotiontalk:G00099_01~{i}" for i in range(3)]
    assert words(stretches[0]) == ["你到哪儿了？", "来了来了，路上堵车。"]
    assert words(stretches[1]) == ["你每次都这么说。", "这次是真的，对不起。"]
    assert words(stretches[2]) == ["那我请你吃面？"]
    assert [t.speaker for t in stretches[0].turns] == ["09", "07"]
    assert [t.emotion for d in stretches for t in d.turns] == ["neutral", "surprise", "disgust", None, "happiness"]
    assert len({d.origin for d in stretches}) == 1


def test_emotiontalk_missing_label_is_none():
    (whole,) = load("emotiontalk", "valid")
    assert whole.id == "emotiontalk:G00098_03"
    assert [t.emotion for t in whole.turns] == ["disgust", None]


def test_emotiontalk_clip_only_where_the_file_is(copy):
    root = copy("emotiontalk")
    clip = root / "G00098/G00098_03/G00098_03_07/G00098_03_07_001.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    (whole,) = emotiontalk.read(root, "valid")
    assert [t.media and t.media.video for t in whole.turns] == [str(clip), None]


def test_emotiontalk_bad_rows(copy):
    root = copy("emotiontalk")
    replace_in(root / "mm.csv", "001.mp4,neutral", "001.mp4,bored")
    with (root / "split_train.txt").open("a") as file:
        file.write("G00099_01_07_099\nG00099_01_07\nG00099_01_07_007\n")
    found = [(Path(p.file).name, p.line) for p in problems(emotiontalk, root, "train")]
    assert found == [("mm.csv", 3), ("split_train.txt", 7), ("split_train.txt", 8), ("split_train.txt", 9)]


# CPED


def test_cped_labels_and_gap():
    (train,) = load("cped", "train")
    assert train.id == "cped:90_000"
    assert [t.emotion for t in train.turns] == ["fear", None, "sadness"]
    assert words(train)[1] == "丢了，又要换锁"
    assert [d.id for d in load("cped", "valid")] == ["cped:90_100~0", "cped:90_100~1"]


def test_cped_bad_rows_have_file_and_line(copy):
    root = copy("cped")
    replace_in(root / "test_split.csv", "depress", "bored")
    replace_in(root / "test_split.csv", "90_200_002,大鹏", "90_200_002,")
    with (root / "test_split.csv").open("a", encoding="utf-8") as file:
        file.write("90,90_200\n")
    with pytest.raises(BadData, match=r"test_split\.csv:3: unknown cped emotion label 'bored'"):
        list(cped.read(root, "test"))
    assert sorted(p.line for p in problems(cped, root, "test")) == [3, 4, 5]


def test_cped_without_a_column(copy):
    root = copy("cped")
    replace_in(root / "test_split.csv", ",Emotion,", ",Mood,")
    with pytest.raises(BadData, match=r"test_split\.csv:1: no column Emotion"):
        list(cped.read(root, "test"))


def test_cped_row_that_is_not_utf8(copy):
    root = copy("cped")
    data = (root / "test_split.csv").read_bytes()
    (root / "test_split.csv").write_bytes(data.replace("是我在说".encode(), "是我在说".encode("gb18030")))
    (bad,) = problems(cped, root, "test")
    assert (bad.line, bad.reason) == (3, "not UTF-8")


# MELD


def test_meld_times_quotes_and_gap():
    first, second = load("meld", "train")
    assert (first.id, second.id) == ("meld:train_0~0", "meld:train_0~1")
    assert words(first)[0] == "Who ate the whole pie, and why isn’t anybody sorry?"
    assert (first.turns[0].start, first.turns[0].end, first.turns[1].start) == (10.5, 12.25, 12.3)
    (valid,) = load("meld", "valid")
    assert (valid.id, words(valid)[2], valid.turns[2].start) == ("meld:valid_0", "“Mine”.", None)
    assert [t.emotion for t in load("meld", "test")[0].turns] == ["sadness", "neutral", None]


def test_meld_feature_rows_point_at_their_utterance():
    first, second = load("meld", "train")
    rows = [turn.features and turn.features["vision"] for turn in (*first.turns, *second.turns)]
    lines = (FIXTURES / "meld/openface/train.txt").read_text().splitlines()
    assert [row and lines[row.row].split()[0] for row in rows] == ["dia0_utt0", None, "dia0_utt3"]
    assert all(Path(row.file).name == "train.txt" for row in rows if row)


def test_meld_bad_rows(copy):
    root = copy("meld")
    replace_in(root / "test_sent_emo.csv", "00:02:02,000", "two minutes")
    with (root / "test_sent_emo.csv").open("a") as file:
        file.write('4,"No,\nreally.",Hugo,neutral,neutral,zero,3,1,3,,\n5,Again.,Hugo,neutral,neutral,0,2,1,3,,\n')
    (root / "test.txt").write_text("dia0_utt0 0.5 0.5\n")
    found = [(Path(p.file).name, p.line) for p in problems(meld, root, "test")]
    assert found == [("test.txt", 1)] + [("test_sent_emo.csv", line) for line in (2, 3, 5, 7)]


# ESConv


def test_esconv_rebuilds_whole_dialogues():
    first, second = load("esconv", "train")
    assert (first.id, second.id) == ("esconv:train_0", "esconv:train_1")
    assert words(first) == [
        "Hi, I cannot sleep before exams.", "How long has this been going on?", "Two weeks now.",
        "I had that too in my last year.", "What helped?", "A walk [a short one] after dinner.",
    ]  # fmt: skip
    assert [t.speaker for t in first.turns] == ["seeker", "supporter"] * 3
    assert [t.speaker for t in second.turns] == ["supporter", "seeker", "supporter"]


def test_esconv_turns_outside_every_window_cut_the_dialogue():
    assert [(d.id, len(d.turns)) for d in load("esconv", "valid")] == [("esconv:valid_0~0", 7), ("esconv:valid_0~1", 2)]


def test_esconv_official_names_of_the_tab_files(copy):
    root = copy("esconv")
    (root / "dev.tsv").rename(root / "devWithStrategy_short.tsv")
    assert len(list(esconv.read(root, "valid"))) == 2


def test_esconv_bad_row(copy):
    root = copy("esconv")
    with (root / "dev.tsv").open("a") as file:
        file.write("\nhello\n0.0 0 0 Hi. EOS 1.0 1 1\n")
    assert [p.line for p in problems(esconv, root, "valid")] == [5, 6]


def test_esconv_json():
    first, second, third = load("esconv_json", "train")
    assert (first.topic, first.id) == ("academic pressure", "esconv:train_0")
    assert [(t.speaker, t.emotion) for t in first.turns] == [
        ("supporter", None), ("seeker", "fear"), ("supporter", None), ("seeker", None),
    ]  # fmt: skip
    assert [d.turns[0].emotion for d in (second, third)] == ["sadness", "anger"]


def test_esconv_json_beside_tab_files_is_not_train(copy, tmp_path):
    root = copy("esconv")
    shutil.copy(FIXTURES / "esconv_json/ESConv.json", root)
    assert len(list(esconv.read(root, "train"))) == 2
    (root / "train.tsv").unlink()
    with pytest.raises(UsageError, match=r"train\.tsv"):
        list(esconv.read(root, "train"))


def test_esconv_json_bad_turn(copy):
    root = copy("esconv_json")
    replace_in(root / "ESConv.json", "anger", "rage")
    replace_in(root / "ESConv.json", "That hurts you both.", "")
    rows = json.loads((root / "ESConv.json").read_text())
    rows[0]["dialog"][2]["speaker"] = "bot"
    (root / "ESConv.json").write_text(json.dumps(rows))
    bad: list[BadData] = []
    dialogues = list(esconv.read(root, "train", bad.append))
    assert [p.reason.split(":")[0] for p in bad] == ["0.dialog.2", "2"]
    assert [(d.id, len(d.turns)) for d in dialogues] == [
        ("esconv:train_0~0", 2), ("esconv:train_0~1", 1), ("esconv:train_1", 1),
    ]  # fmt: skip


# SMILE


@pytest.mark.parametrize("name", ["smile", "smile_jsonl", "smile_folder"])
def test_smile_layouts_agree(name):
    found = {d.id: (d.split, words(d)) for split in ("train", "valid", "test") for d in load(name, split)}
    assert sorted(found) == ["smile:1", "smile:2", "smile:3"]
    assert len(found["smile:1"][1]) == 4
    assert found == {d.id: (d.split, words(d)) for s in ("train", "valid", "test") for d in load("smile", s)}


def test_smile_split_is_stable_and_near_90_5_5():
    splits = [smile.split_of(str(i)) for i in range(4000)]
    assert [splits.count(s) / 4000 for s in ("train", "valid", "test")] == pytest.approx([0.9, 0.05, 0.05], abs=0.015)
    assert [smile.split_of(str(i)) for i in (1, 2, 761)] == ["train", "train", "train"]


def test_smile_bad_rows(copy):
    root = copy("smile_jsonl")
    with (root / "dialogues.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "1", "data": []}\n{"id": "8"}\n{"data": []}\nnot json\n[1]\n')
        file.write(json.dumps({"id": _train_id(), "data": [{"role": "bot", "content": "x"}]}))
    assert [p.line for p in problems(smile, root, "train")] == [4, 5, 6, 7, 8, 9]


def test_smile_damaged_gzip(copy):
    root = copy("smile")
    data = gzip.compress(b"".join(b'{"id": "%d", "data": []}\n' % i for i in range(99)), mtime=0)
    (root / "dialogues.jsonl.gz").write_bytes(data[:-12])
    with pytest.raises(BadData, match="damaged gzip"):
        list(smile.read(root, "train"))


def _train_id() -> str:
    return next(str(i) for i in range(100, 200) if smile.split_of(str(i)) == "train")


# MMED and JSONL


def test_mmed_names_its_stand_in(tmp_path):
    assert "emotiontalk" in mmed.CARD.note
    with pytest.raises(UsageError, match=r"mmed\.train\.jsonl.*'emotiontalk'"):
        list(mmed.read(tmp_path, "train"))
    assert load("mmed", "train")[0].turns[0].media.video == "clips/0.mp4"


def test_jsonl_keeps_what_a_row_says():
    first, second, third = load("jsonl", "train")
    assert (first.source, first.license, first.language) == ("kitchen", "CC0-1.0", "en")
    assert words(first)[0] == "I burnt the rice again."
    assert (second.source, second.license, second.turns[0].end) == ("jsonl", "unstated", 2.0)
    assert (third.reference, third.replies()) == ("我记得，生日快乐。", (third,))


def test_jsonl_file_is_filtered_by_split():
    ids = {split: [d.id for d in load("jsonl_file/all.jsonl", split)] for split in ("train", "valid", "test")}
    assert ids == {"train": ["own-1", "own-3#1"], "valid": ["own-3#1"], "test": ["own-2", "own-3#1"]}


def test_jsonl_row_of_another_split_is_bad(copy):
    root = copy("jsonl")
    replace_in(root / "valid.jsonl", '"split": "valid"', '"split": "train"')
    (bad,) = problems(jsonl, root, "valid")
    assert "own-4" in bad.reason


def test_jsonl_bad_row(copy):
    root = copy("jsonl")
    replace_in(root / "train.jsonl", '"happiness", "start"', '"joyful", "start"')
    (bad,) = problems(jsonl, root, "train")
    assert bad.line == 2 and "joyful" in bad.reason


# The real data, where it is there


@pytest.mark.parametrize(
    ("name", "folder", "split", "dialogues", "utterances", "replies"),
    [
        ("m3ed", "m3ed", "train", 656, 7867, 4789),
        ("m3ed", "m3ed", "valid", 121, 1189, 731),
        ("emotiontalk", "emotiontalk", "train", 587, 15413, 10823),
        ("emotiontalk", "emotiontalk", "valid", 71, 1908, 1255),
        ("meld", "meld", "train", 1038, 9989, None),
        ("meld", "meld", "valid", 114, 1109, None),
    ],
)
def test_real_data_has_the_published_counts(name, folder, split, dialogues, utterances, replies):
    root = DATA / folder
    if not root.is_dir():
        pytest.skip(f"no data at {root}; ELMD_TEST_DATA names the folder that holds {folder}/")
    bad: list[BadData] = []
    found = list(DATASETS.load(name).read(root, split, bad.append))
    assert not bad
    assert len({d.origin for d in found}) == dialogues
    assert sum(len(d.turns) for d in found) == utterances
    assert replies is None or sum(len(d.replies()) for d in found) == replies
    assert len({d.id for d in found}) == len(found)


def test_real_esconv_windows_do_not_contradict_each_other():
    root = DATA / "esconv"
    if not (root / "dev.tsv").is_file():
        pytest.skip(f"no dev.tsv at {root}; ELMD_TEST_DATA names the folder that holds esconv/")
    found = list(esconv.read(root, "valid"))
    assert len({d.origin for d in found}) == 211
    assert not any(t.text.startswith("[") for d in found for t in d.turns)


def test_real_cped_is_one_of_the_official_files():
    path = DATA / "cped" / "train_split.csv"
    if not path.is_file():
        pytest.skip(f"no {path}; ELMD_TEST_DATA names the folder that holds cped/")
    found = list(cped.read(path.parent, "train"))
    counts = (len({d.origin for d in found}), sum(len(d.turns) for d in found))
    assert counts in {(8086, 94187), (2815, 27438)}  # the train file, or the test file used in its place
