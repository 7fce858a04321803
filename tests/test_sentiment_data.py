"""Sample sets for sentiment analysis: each layout is read at its true lengths, and what cannot be read is named."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from elmd.cli.data import app
from elmd.datasets import _mmsa, mvsa, read_dialogues, read_samples
from elmd.datasets._samples import write_samples
from elmd.datasets._synthetic import SHAPES, sizes_for, synthesize
from elmd.datasets._unpickle import read_pickle
from elmd.errors import BadData, UnknownName, UsageError
from elmd.types import MODALITIES, DatasetCard, Sample
from elmd.zoo import DATASETS

FIXTURES = Path(__file__).parent / "fixtures"
SETS = (
    "mosi", "mosei", "sims", "simsv2", "mosi_utterance", "mosi_text", "mosei_text", "sims_text", "ravdess", "mvsa",
)  # fmt: skip
FEW = {"train": 6, "valid": 2, "test": 3}
SIMS_ROWS = (
    "video_0001,0001,我不想嫁给李茶,-1.0,-1.0,-1.0,-1.0,Negative,train\n"
    "video_0001,0002,你这是嫁入豪门啊！,1.0,1.0,0.8,1.0,Positive,train\n"
)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def load(path: Path):
    return pickle.loads(path.read_bytes())


def problems(name: str, root: Path, split: str = "train") -> tuple[list[Sample], list[BadData]]:
    bad: list[BadData] = []
    return list(read_samples(name, root, split, bad.append)), bad


@pytest.fixture
def mosi(tmp_path):
    """Make a small MOSI file whose train part a test may change; return a function that reads it."""
    path = synthesize("mosi", tmp_path, FEW)

    def changed(change=lambda part: None) -> tuple[list[Sample], list[BadData]]:
        data = load(path)
        change(data["train"])
        path.write_bytes(pickle.dumps(data, 4))
        return problems("mosi", tmp_path)

    return changed


def same(one: Sample, other: Sample) -> bool:
    plain = ("id", "origin", "text", "language", "sentiment", "sentiments", "emotion", "media")
    assert {name: getattr(one, name) for name in plain} == {name: getattr(other, name) for name in plain}
    assert (one.tokens is None) == (other.tokens is None)
    assert one.tokens is None or np.array_equal(one.tokens, other.tokens)
    assert one.features.keys() == other.features.keys()
    return all(np.array_equal(array, other.features[kind]) for kind, array in one.features.items())


# The zoo


@pytest.mark.parametrize("name", SETS)
def test_entries(name, tmp_path):
    card = DATASETS.load(name).CARD
    assert isinstance(card, DatasetCard) and card.files and card.license
    assert (card.scale is None) == (name == "ravdess")
    with pytest.raises(UsageError) as caught:
        list(read_samples(name, tmp_path, "train"))
    assert any(file in str(caught.value) for file in card.files) and str(tmp_path) in str(caught.value)
    with pytest.raises(UnknownName, match="dev"):
        list(read_samples(name, tmp_path, "dev"))
    with pytest.raises(UsageError, match=f"^{name} holds samples for sentiment analysis, not dialogues"):
        read_dialogues(name, tmp_path, "train")


def test_every_utterance_of_a_dialogue_set_is_a_sample():
    found = list(read_samples("m3ed", FIXTURES / "m3ed", "train"))
    assert [s.id for s in found[:2]] == ["m3ed:chaguan_1#0", "m3ed:chaguan_1#1"]
    assert {s.origin for s in found} == {"m3ed:chaguan_1", "m3ed:chaguan_2"}
    assert (found[1].emotion, found[1].language, found[1].sentiment) == ("anger", "zh", None)
    array = np.load(FIXTURES / "m3ed" / "vision_clip_vitb16.npy")
    vision = found[0].features["vision"]
    assert vision.dtype == np.float32 and vision.shape == (1, array.shape[1])
    assert "vision" not in found[-1].features


def test_action_units_of_meld_are_vision():
    found = list(read_samples("meld", FIXTURES / "meld", "train"))
    lines = (FIXTURES / "meld/openface/train.txt").read_text().splitlines()
    row = next(line.split()[1:] for line in lines if line.startswith("dia0_utt0 "))
    assert found[0].features["vision"].tolist() == [pytest.approx([float(number) for number in row])]
    assert "vision" not in found[1].features


def test_a_feature_row_that_is_not_there_is_bad(tmp_path):
    root = Path(shutil.copytree(FIXTURES / "m3ed", tmp_path / "m3ed"))
    np.save(root / "vision_clip_vitb16.npy", np.zeros((1, 4), np.float16))
    found, bad = problems("m3ed", root)
    assert bad and all("are not in" in problem.reason for problem in bad) and found


# MMSA's pickle


@pytest.mark.parametrize("name", SHAPES)
def test_synthetic_sets_have_the_real_format(name, tmp_path):
    shape, path = SHAPES[name], synthesize(name, tmp_path, FEW, seed=3)
    data = load(path)
    assert path.name == shape.file and {split: len(part["id"]) for split, part in data.items()} == FEW
    part = data["train"]
    for kind in MODALITIES:
        assert part[kind].shape == (6, shape.lengths[kind], shape.widths[kind])
        assert part[kind].dtype == np.float32
    assert (part["text_bert"].shape, part["text_bert"].dtype) == ((6, 3, shape.tokens), np.float32)
    assert isinstance(part["audio_lengths"], list) and isinstance(part["vision_lengths"], list)
    assert ("regression_labels_T" in part) == (shape.language == "zh")
    steps = part["regression_labels"] * shape.steps
    assert np.allclose(steps, steps.round(), atol=1e-5) and abs(part["regression_labels"]).max() <= shape.limit


@pytest.mark.parametrize("name", SHAPES)
def test_samples_come_at_their_true_length(name, tmp_path):
    part = load(synthesize(name, tmp_path, FEW))["train"]
    found = list(read_samples(name.replace("_", "-"), tmp_path, "train"))
    assert len({s.id for s in found}) == 6 and {s.origin for s in found} == {"synthetic_train0000"}
    for row, sample in enumerate(found):
        assert sample.id == part["id"][row].replace("$_$", "_") and sample.text == part["raw_text"][row]
        for kind, length in (("audio", part["audio_lengths"][row]), ("vision", part["vision_lengths"][row])):
            assert np.array_equal(sample.features[kind], part[kind][row, :length])
        tokens = int(part["text_bert"][row, 1].sum())
        assert sample.tokens.dtype == np.int64 and sample.tokens[[0, -1]].tolist() == [101, 102]
        assert len(sample.tokens) == tokens
        assert len(sample.features["text"]) == min(tokens, part["text"].shape[1])
        assert sample.sentiment == pytest.approx(float(part["regression_labels"][row]), abs=1e-6)
        assert len(str(abs(sample.sentiment))) <= 10  # 0.1, not 0.10000000149
        assert len(sample.sentiments) == 3 * ("regression_labels_T" in part)


def test_crops_are_views(mosi):
    samples, _ = mosi()
    base = [sample.features["vision"].base for sample in samples]
    assert all(array is not None for array in base)


def test_aligned_files_have_lengths_by_their_zeros(tmp_path):
    synthesize("mosi", tmp_path, FEW, aligned=True)
    for sample in read_samples("mosi", tmp_path / "aligned_50.pkl", "train"):
        assert {len(array) for array in sample.features.values()} == {len(sample.tokens)}
    synthesize("mosi", tmp_path, FEW)
    wide = next(iter(read_samples("mosi", tmp_path, "train")))
    assert len(wide.features["audio"]) != len(wide.tokens) or len(wide.features["vision"]) != len(wide.tokens)
    (tmp_path / "Processed").mkdir()
    (tmp_path / "unaligned_50.pkl").rename(tmp_path / "Processed" / "unaligned_50.pkl")
    assert same(next(iter(read_samples("mosi", tmp_path, "train"))), wide)


def test_odd_lengths(mosi):
    def change(part):
        part["audio_lengths"] = [0, 9999, -1, 1, 2, 3, 77]
        del part["vision_lengths"], part["text_bert"]
        part["vision"][0] = 0
        part["vision"][1, 5:] = 0

    samples, bad = mosi(change)
    assert bad == [] and all(sample.tokens is None for sample in samples)
    assert [len(s.features.get("audio", ())) for s in samples] == [0, 375, 0, 1, 2, 3]
    assert "vision" not in samples[0].features and len(samples[1].features["vision"]) == 5
    assert len(samples[0].features["text"]) == len(samples[0].text.split()) + 2


def test_numbers_that_are_none(mosi):
    def change(part):
        part["audio"][0, 0] = -np.inf
        part["vision"][1, 0, 0] = np.nan
        part["regression_labels"][2] = np.nan
        part["text"] = part["text"].astype(np.float64)

    samples, bad = mosi(change)
    assert bad == [] and samples[2].sentiment is None and samples[1].sentiment is not None
    assert not samples[0].features["audio"][0].any() and samples[1].features["vision"][0, 0] == 0
    assert all(array.dtype == np.float32 for array in samples[0].features.values())


def test_bad_rows_are_named(mosi):
    def change(part):
        part["id"][1] = part["id"][0]
        part["regression_labels"][2] = 7
        part["text_bert"][3, 0, 0] = -4
        part["audio_lengths"][4] = "long"

    samples, bad = mosi(change)
    assert [s.id[-1] for s in samples] == ["0", "5"]
    reasons = ("twice", "outside", "ids", "invalid literal")
    assert all(word in problem.reason for word, problem in zip(reasons, bad, strict=True))
    assert all("synthetic_train" in problem.reason for problem in bad)


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part.pop("id"),
        lambda part: part.update(audio=part["audio"][:3]),
        lambda part: [part.pop(key) for key in ("text", "audio", "vision", "raw_text")],
    ],
)
def test_a_part_that_is_none_is_bad(mosi, change):
    with pytest.raises(BadData):
        mosi(change)


def test_a_file_without_the_split(tmp_path):
    path = synthesize("mosi", tmp_path, {"train": 2})
    with pytest.raises(UsageError, match="no part 'test'; it has train"):
        list(read_samples("mosi", tmp_path, "test"))
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(BadData, match="must hold a dict"):
        list(read_samples("mosi", tmp_path, "test"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a_b$_$12", ("a_b_12", "a_b")), ("a_b_12", ("a_b_12", "a_b")), ("alone", ("alone", "alone"))],
)
def test_ids_name_their_video(name, parts):
    assert _mmsa.split_id(name) == parts


def test_utterance_parts_may_lie_in_several_files(tmp_path):
    data = load(synthesize("mosi_utterance", tmp_path, FEW))
    test = data.pop("test")
    (tmp_path / "utterance_unaligned.pkl").write_bytes(pickle.dumps(data))
    with pytest.raises(UsageError, match="no part 'test'"):
        read_samples("mosi_utterance", tmp_path, "test")
    synthesize("mosi", tmp_path, FEW)  # frames, so not this set's test part
    (tmp_path / "z_unseen.pkl").write_bytes(pickle.dumps({"test": test}))
    assert len(list(read_samples("mosi-utterance", tmp_path, "test"))) == 3
    assert len(list(read_samples("mosi_utterance", tmp_path / "z_unseen.pkl", "test"))) == 3
    assert len(list(read_samples("mosi_utterance", tmp_path, "valid"))) == 2


# Pickles of strangers


class Command:
    def __reduce__(self):
        return os.system, ("touch harm",)


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "elsewhere" if obj == "secret" else None


def refused(path: Path, data: bytes, match: str = ".") -> None:
    path.write_bytes(data)
    with pytest.raises(BadData, match=match) as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_pickles_that_do_more_than_hold_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pkl"
    for protocol in range(6):
        refused(path, pickle.dumps({"a": Command()}, protocol), r"posix\.system|nt\.system")
    refused(path, pickle.dumps(np.array([Command()], object)), "system")
    refused(path, pickle.dumps(np.zeros(2, [("a", "f4")])), "refused")
    refused(path, pickle.dumps(Path("x")), "pathlib")
    refused(path, pickle.dumps(np.str_("aa")).replace(b"a\0\0\0", b"a\0\0\x10"), "no Unicode")
    refused(path, b"cnumpy\nndarray\n(I9999999999999\ntR.", "refused")
    refused(path, b"cnumpy\nndarray\n(I9\nt\x81.")
    refused(path, b"cnumpy\ndtype\n}S'f'\nI1\nsb.", "changes a function")
    buffer = io.BytesIO()
    Persistent(buffer).dump(["secret"])
    refused(path, buffer.getvalue(), "outside itself")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"no pickle at all",
        b"\x80\x04\x8e" + (2**62).to_bytes(8, "little"),  # BINBYTES8
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.",  # FRAME
        b"\x80\x02Nr" + (2**31 - 1).to_bytes(4, "little") + b".",  # LONG_BINPUT
        b"Np2147483647\n.",  # PUT
        b"\x8b\xff\xff\xff\xff.",  # LONG4
    ],
)
def test_claims_that_cannot_be_true_are_refused(tmp_path, data):
    refused(tmp_path / "x.pkl", data)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind_and_protocol(tmp_path, protocol):
    held = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "F": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "words": np.array(["ab", "我"]),
        "none": np.zeros((0, 3)),
        "zero": np.array(5.0),
    }
    plain = {"number": np.float32(3), "word": np.str_("hé"), "empty": np.str_(""), "bytes": b"\xff", "list": [1, (2,)]}
    objects = np.array([np.ones((2, 2)), "x", None], dtype=object)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(held | plain | {"objects": objects}, protocol))
    found = read_pickle(path)
    assert all(np.array_equal(found[key], array) for key, array in held.items())
    assert {key: found[key] for key in plain} == plain
    assert found["objects"][1] == "x" and found["objects"][0].tolist() == [[1, 1], [1, 1]]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pickles_give_bad_data_only(tmp_path, data):
    part = {"id": [np.str_("a$_$1")], "audio": np.ones((1, 2, 3), np.float32), "o": np.array([None, "x"], object)}
    raw = bytearray(pickle.dumps({"train": part}, data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    path = tmp_path / "x.pkl"
    path.write_bytes(raw)
    try:
        _ = [sample.features for sample in read_samples("mosi", path, "train", lambda _: None)]
    except BadData:
        pass
    except UsageError as error:  # the flip was in the name of the part
        assert "holds no part" in str(error)


# label.csv


def test_text_sets(tmp_path):
    path = tmp_path / "label.csv"
    path.write_text("id,text,label,mode\na_b_1,so  good,2.4,train\na_b_2,bad,-0.8,dev\na_b_3,dull,,train\n")
    first, third = read_samples("mosi_text", tmp_path, "train")
    assert (first.id, first.origin, first.text, first.sentiment, first.features) == ("a_b_1", "a_b", "so good", 2.4, {})
    assert third.sentiment is None
    assert [s.id for s in read_samples("mosi-text", path, "valid")] == ["a_b_2"]
    with pytest.raises(UsageError, match="holds no rows of 'test'; it has train, valid"):
        list(read_samples("mosi_text", tmp_path, "test"))
    path.write_text('video_id,clip_id,text,label,mode\n-3g5,82_7645,"Key, and more",0.6666667,train\n')
    (only,) = read_samples("mosei_text", tmp_path, "train")
    assert (only.id, only.origin, only.text, only.sentiment) == ("-3g5_82_7645", "-3g5", "Key, and more", 0.6666667)


@pytest.mark.parametrize("header", ["", "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"])
def test_sims_text_with_and_without_a_header(tmp_path, header):
    (tmp_path / "label.csv").write_text(header + SIMS_ROWS, encoding="utf-8")
    first, second = read_samples("sims_text", tmp_path, "train")
    assert (first.id, first.origin, first.text, first.sentiment) == (
        "video_0001_0001",
        "video_0001",
        "我不想嫁给李茶",
        -1,
    )
    assert second.sentiments == {"text": 1.0, "audio": 0.8, "vision": 1.0} and second.language == "zh"


def test_bad_rows_of_label_csv_have_their_line(tmp_path):
    rows = ("v,1,a,1,train", "v,1,a,1,train", "v,2,a,9,train", "v,3,a,x,train", "v,,a,1,train", "v,4,a,1,exam")
    (tmp_path / "label.csv").write_text("video_id,clip_id,text,label,mode\n" + "\n".join(rows))
    samples, bad = problems("mosei_text", tmp_path)
    assert len(samples) == 1 and [problem.line for problem in bad] == [3, 4, 5, 6, 7]


def test_mosi_text_takes_audio_and_nothing_else_of_the_utterance_features(tmp_path):
    part = load(synthesize("mosi_utterance", tmp_path, FEW))["valid"]
    name = part["id"][0].replace("$_$", "_")
    (tmp_path / "label.csv").write_text(f"id,text,label,mode\n{name},yes,1,train\nother_1,no,-1,train\n")
    joined, alone = read_samples("mosi_text", tmp_path, "train")
    assert joined.features.keys() == {"audio"} and alone.features == {}
    assert np.array_equal(joined.features["audio"], part["audio"][0])


# RAVDESS and MVSA


def test_ravdess_recordings(tmp_path):
    for name in ("03-01-06-01-02-01-12.wav", "01-01-06-01-02-01-12.mp4", "02-01-06-01-02-01-12.mp4"):
        (tmp_path / "Actor_12").mkdir(exist_ok=True)
        (tmp_path / "Actor_12" / name).touch()
    for name in ("03-01-02-01-01-01-20.wav", "03-02-02-01-01-01-01.wav", "03-01-09-01-01-01-01.wav", "notes.wav"):
        (tmp_path / name).touch()
    (only,), bad = problems("ravdess", tmp_path)
    assert (only.emotion, only.text, only.origin) == ("fear", "Dogs are sitting by the door.", "actor_12")
    assert only.media.audio.endswith("03-01-06-01-02-01-12.wav")
    assert only.media.video.endswith("01-01-06-01-02-01-12.mp4")
    assert sorted(Path(problem.file).name for problem in bad) == ["03-01-09-01-01-01-01.wav", "notes.wav"]
    (calm,), _ = problems("ravdess", tmp_path, "valid")
    assert (calm.emotion, calm.sentiment) == ("neutral", None)


def test_ravdess_vectors(tmp_path):
    np.save(tmp_path / "X.npy", np.arange(200 * 193, dtype=float).reshape(200, 193))
    labels = np.eye(8)[np.arange(200) % 8]
    labels[7] = 0
    np.save(tmp_path / "y.npy", labels)
    found, bad = zip(*(problems("ravdess", tmp_path, split) for split in ("train", "valid", "test")), strict=True)
    assert sum(map(len, found)) == 199 and sum(map(len, bad)) == 1
    assert len({s.id for part in found for s in part}) == 199
    sample = found[0][0]
    assert sample.features["audio"].shape == (1, 193) and sample.features["audio"].dtype == np.float32
    np.save(tmp_path / "y.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(BadData, match=r"y\.npy"):
        problems("ravdess", tmp_path)


@pytest.fixture
def pairs(tmp_path):
    """An MVSA root of 40 neutral-and-positive pairs, the first with a text that is not UTF-8."""
    from PIL import Image

    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(1, 41):
        (folder / f"{i}.txt").write_bytes(b"caf\xe9" if i == 1 else b"So nice")
        Image.new("RGB", (50, 30), (255, 0, 0)).save(folder / f"{i}.jpg")
    labels = "".join(f"{i}\tneutral,positive\n" for i in range(1, 41))
    (tmp_path / "labelResultAll.txt").write_text(f"ID\ttext,image\n{labels}")
    return tmp_path


def every(root: Path) -> dict[str, Sample]:
    return {s.id: s for split in ("train", "valid", "test") for s in problems("mvsa", root, split)[0]}


def test_mvsa_single(pairs):
    found = every(pairs)
    assert len(found) == 40 and found["1"].text == "café" and found["2"].text == "So nice"
    assert (found["1"].sentiment, found["1"].sentiments) == (1.0, {"text": 0.0, "vision": 1.0})
    patches = found["1"].features["vision"]
    assert patches.shape == (196, 768) and patches.dtype == np.float32
    assert patches.reshape(-1, 3).mean(0) == pytest.approx([1, -1, -1], abs=0.03)


def test_mvsa_votes(pairs):
    (pairs / "labelResultAll.txt").write_text(
        "ID\ttext,image\ttext,image\ttext,image\n"
        "1\tpositive,positive\tpositive,neutral\tneutral,positive\n"  # both positive
        "2\tpositive,negative\tpositive,negative\tpositive,neutral\n"  # contrary
        "3\tpositive,negative\tneutral,negative\tnegative,negative\n"  # no majority on the text
        "4\tnegative,neutral\tnegative,neutral\tnegative,neutral\n"
    )
    assert {name: sample.sentiment for name, sample in every(pairs).items()} == {"1": 1.0, "4": -1.0}


def test_mvsa_bad_rows(pairs, monkeypatch):
    (pairs / "data" / "1.jpg").write_bytes(b"no image")
    (pairs / "data" / "2.txt").unlink()
    with (pairs / "labelResultAll.txt").open("a") as file:
        file.write("41\tgood,bad\n../x\tneutral,neutral\n3\tneutral,neutral\n")
    bad = {
        problem.line: problem.reason
        for split in ("train", "valid", "test")
        for problem in problems("mvsa", pairs, split)[1]
    }
    assert sorted(bad) == [2, 3, 42, 43, 44]
    assert "1.jpg" in bad[2] and "data/2.txt" in bad[3]
    monkeypatch.setattr(mvsa, "MOST_PIXELS", 100)
    with pytest.raises(ValueError, match="50 x 30 pixels are too many"):
        mvsa.patches(pairs / "data" / "3.jpg")


# JSON lines


def test_jsonl_samples(tmp_path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    save_file({"vision": np.ones((3, 4), np.float32)}, tmp_path / "v.safetensors")
    rows = [
        {"id": "v_1", "origin": "v", "text": "Nice.", "sentiment": 0.4, "sentiments": {"text": 1.0}, "tokens": [5, 6],
         "features": {"audio": {"file": "a.npy", "row": 1, "rows": 2}, "vision": {"file": "v.safetensors", "row": 0}}},
        {"id": "d", "turns": [{"speaker": "a", "text": "Hi."}, {"speaker": "b", "text": "好", "emotion": "anger"}]},
        {"id": "late", "text": "…", "split": "test"},
    ]  # fmt: skip
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found, bad = problems("jsonl", path)
    assert bad == [] and [s.id for s in found] == ["v_1", "d#0", "d#1"]
    assert found[0].features["audio"].tolist() == [[2, 3], [4, 5]] and found[0].features["vision"].shape == (1, 4)
    assert (found[0].origin, found[0].language, found[0].tokens.tolist()) == ("v", "en", [5, 6])
    assert (found[2].emotion, found[2].origin) == ("anger", "d")
    path.rename(tmp_path / "train.jsonl")
    found, bad = problems("jsonl", tmp_path)
    assert len(found) == 3 and [problem.line for problem in bad] == [3]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "no id"},
        {"id": "v_1", "sentiment": "much"},
        {"id": "v_1", "emotion": "glee"},
        {"id": "v_1", "features": {"audio": {"file": "a.npy", "row": 2, "rows": 2}}},
        {"id": "v_1", "features": {"audio": {"file": "a.npy", "row": -1}}},
        {"id": "v_1", "features": {"audio": {"file": "objects.npy", "row": 0}}},
        {"id": "v_1", "features": {"audio": {"file": "nowhere.npy", "row": 0}}},
        {"id": "v_1", "features": {"audio": {"file": "flat.npy", "row": 0}}},
        {"id": "v_1", "features": {"audio": {"file": "bad.safetensors", "row": 0}}},
        {"id": "v_1", "features": {"smell": {"file": "a.npy", "row": 0}}},
    ],
)
def test_bad_jsonl_samples(tmp_path, row):
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 99)
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({"id": "good", "text": "yes"}))
    found, bad = problems("jsonl", path)
    assert [s.id for s in found] == ["good"] and len(bad) == 1


@pytest.mark.parametrize("name", ["sims", "mosi_utterance"])
def test_prepared_samples_read_back_equal(name, tmp_path):
    synthesize(name, tmp_path / "in", FEW)
    out = tmp_path / "out" / "train.jsonl"
    result = run("prepare", name, "--root", tmp_path / "in", "--split", "train", "--out", out)
    assert result.exit_code == 0 and "wrote 6 samples" in result.stderr
    assert sorted(path.name for path in out.parent.iterdir()) == ["train.jsonl", "train.safetensors"]
    before = list(read_samples(name, tmp_path / "in", "train"))
    for root in (out, out.parent):
        after = list(read_samples("jsonl", root, "train"))
        assert all(same(*pair) for pair in zip(before, after, strict=True))


def test_write_samples_refuses_what_it_cannot_hold(tmp_path):
    made = [Sample(str(width), "v", features={"audio": np.zeros((1, width), np.float32)}) for width in (2, 3)]
    with pytest.raises(UsageError, match="audio is 3 wide, before 2"):
        write_samples(tmp_path / "x.jsonl", made)
    with pytest.raises(UsageError, match="beside"):
        write_samples(tmp_path / "x.safetensors", [])
    assert list(tmp_path.iterdir()) == []


# The generator


def test_the_same_seed_makes_the_same_file(tmp_path):
    files = [synthesize("mosi", tmp_path / str(i), FEW, seed).read_bytes() for i, seed in enumerate((1, 1, 2))]
    assert files[0] == files[1] != files[2]


def test_lengths_are_like_those_of_speech(tmp_path):
    synthesize("mosi", tmp_path, {"train": 300})
    found = list(read_samples("mosi", tmp_path, "train"))
    mean = {kind: np.mean([len(s.features[kind]) for s in found]) for kind in MODALITIES}
    assert mean == pytest.approx({"text": 14, "audio": 52, "vision": 62}, rel=0.15)
    synthesize("mosi", tmp_path, {"train": 2}, full_length=True)
    full = next(iter(read_samples("mosi", tmp_path, "train")))
    assert {kind: len(array) for kind, array in full.features.items()} == {"text": 50, "audio": 375, "vision": 500}


def test_every_modality_shows_the_sentiment(tmp_path):
    from sklearn.linear_model import Ridge

    synthesize("mosi_utterance", tmp_path, {"train": 600, "test": 300})
    train, test = (list(read_samples("mosi_utterance", tmp_path, split)) for split in ("train", "test"))
    labels, held_out = (np.array([s.sentiment for s in part]) for part in (train, test))
    correlation = {}
    for kind in MODALITIES:
        x, unseen = (np.concatenate([s.features[kind] for s in part]) for part in (train, test))
        correlation[kind] = np.corrcoef(Ridge(10).fit(x, labels).predict(unseen), held_out)[0, 1]
    assert min(correlation.values()) > 0.25 and max(correlation, key=correlation.get) == "text"
    assert max(correlation.values()) < 0.95


def test_sizes_follow_the_real_set():
    assert sizes_for("mosi", 220) == {"train": 130, "valid": 22, "test": 68}
    assert sizes_for("mosi", 3) == {"train": 1, "valid": 1, "test": 1}
    assert sum(sizes_for("mosi-utterance", 1000).values()) == 1000
    with pytest.raises(UsageError):
        sizes_for("sims", 2)
    with pytest.raises(UnknownName, match="did you mean 'mosi'"):
        sizes_for("mossi", 9)


def test_synthesize_refuses(tmp_path):
    with pytest.raises(UnknownName):
        synthesize("meld", tmp_path)
    with pytest.raises(UsageError, match="aligned"):
        synthesize("mosi_utterance", tmp_path, FEW, aligned=True)
    with pytest.raises(UsageError, match="at least one"):
        synthesize("mosi", tmp_path, {"train": 0})


# Real data


@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("mosi_utterance", "mosi", {"train": 1207, "valid": 237}),
        ("mosi_text", "mosi", {"train": 1281, "valid": 229}),
        ("mosei_text", "mosei_text", {"train": 16274, "valid": 1861}),
        ("m3ed", "m3ed", {"train": 7867, "valid": 1189}),
        ("ravdess", "ravdess_features", {"train": 1132, "valid": 159, "test": 149}),
    ],
)
def test_real_sets(shared_data, name, folder, counts):
    if not (shared_data / folder).is_dir():
        pytest.skip(f"no {folder} in {shared_data}")
    for split, count in counts.items():
        found = list(read_samples(name, shared_data / folder, split))
        assert len(found) == count and len({s.id for s in found}) == count
        assert all(np.isfinite(array).all() for s in found for array in s.features.values())


def test_real_meld_with_action_units(shared_data, tmp_path):
    if not (shared_data / "meld").is_dir() or not (shared_data / "meld_openface").is_dir():
        pytest.skip(f"no meld and meld_openface in {shared_data}")
    shutil.copy(shared_data / "meld" / "dev_sent_emo.csv", tmp_path)
    shutil.copy(shared_data / "meld_openface" / "dev.txt", tmp_path)
    found = list(read_samples("meld", tmp_path, "valid"))
    assert len(found) == 1109
    assert sum("vision" in s.features for s in found) == 1108
