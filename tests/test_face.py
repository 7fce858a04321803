"""The face extractor: its converted nets, finding and following the main face, measures, streaming, and bad input."""

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest
from conftest import REPO, python
from PIL import Image
from skimage import data

from elmd import convert
from elmd.errors import AssetError
from elmd.extractors import _face_geometry as geometry
from elmd.extractors import face as face_module
from elmd.extractors.face import COLUMNS, Config, Extractor
from elmd.labels import EKMAN
from elmd.media import Clip, Frame

WEIGHTS = REPO / "elmd" / "weights" / "face"
PACKAGE_SHA256 = "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031"
ASTRONAUT = data.astronaut()
"""A smiling face in the public domain (NASA): about x 165–285, y 65–190 of 512."""
HEAD = Image.fromarray(ASTRONAUT[:260, 95:355])
NET_LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(Config())


@pytest.fixture(scope="module")
def nets():
    from elmd.extractors._face_nets import FaceNets

    return FaceNets(WEIGHTS)


def scene(*heads: tuple[int, int, int], shape: tuple[int, int] = (360, 640)) -> np.ndarray:
    """A coloured backdrop with heads on it: left, top and side of each."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    picture = Image.fromarray(np.stack([90 + rows // 6, 80 + columns // 9, 120 - rows // 8], 2).astype(np.uint8))
    for left, top, side in heads:
        picture.paste(HEAD.resize((side, side)), (left, top))
    return np.asarray(picture)


def film(pictures, fps: float = 4.0) -> Iterator[Frame]:
    return (Frame(i / fps, picture) for i, picture in enumerate(pictures))


class Reel:
    """A clip of ready pictures."""

    def __init__(self, pictures) -> None:
        self.pictures = pictures

    def frames(self, fps: float = 4.0, longest: int = 640) -> Iterator[Frame]:
        return film(self.pictures, fps)


def middles(faces) -> list[float]:
    return [float(face.box[0] + face.box[2] / 2) for face in faces]


# The nets are those of the package


def test_the_nets_agree_with_another_implementation_on_the_same_pixels(nets):
    """Values of a separate port of the package's nets (numbers decoded by it, OpenCV), on crops that need no resizing."""
    ((boxes, scores),) = nets.detect([ASTRONAUT[:416, :416]], 416, 0.5)
    assert boxes == pytest.approx(np.array([[160.8159, 72.8909, 122.8824, 115.6221]]), abs=0.01)
    assert scores == pytest.approx([0.940925], abs=1e-5)
    crops = np.stack([ASTRONAUT[62:174, 166:278], ASTRONAUT[300:412, 200:312], ASTRONAUT[40:152, 120:232]])
    shares, vectors = nets.express(crops)
    assert nets.labels == NET_LABELS
    assert shares[1] == pytest.approx([0.00507, 0.00058, 0.99175, 0.00042, 0.00014, 0.00003, 0.002], abs=2e-5)
    assert shares[2] == pytest.approx([0.01517, 0.74841, 0.16926, 0.00009, 0.00105, 0.0005, 0.06553], abs=2e-5)
    assert vectors[0].sum() == pytest.approx(228.3004, abs=1e-2)
    points = nets.mark(crops)[0] * 112
    assert points[[0, 8, 36, 54]] == pytest.approx(
        np.array([[9.582, 37.106], [54.761, 112.626], [28.994, 37.371], [79.099, 79.347]]), abs=0.01
    )


def test_batching_changes_nothing(nets):
    crops = np.stack([ASTRONAUT[y : y + 112, 166:278] for y in (40, 62, 90)])
    together, one_by_one = nets.mark(crops), np.concatenate([nets.mark(crop[None]) for crop in crops])
    assert together == pytest.approx(one_by_one, abs=1e-5)


def test_the_shipped_weights_are_the_pinned_package_and_small():
    from safetensors import safe_open

    names = {path.name for path in WEIGHTS.iterdir()}
    assert names == {"README.md", "detector.safetensors", "landmarks.safetensors", "expression.safetensors"}
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 1_000_000
    for name in convert.FACE_NETS:
        with safe_open(WEIGHTS / f"{name}.safetensors", "np") as file:
            assert json.loads(file.metadata()["about"])["sha256"] == PACKAGE_SHA256


def test_the_card_holds_the_licence_and_every_heading():
    card = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Licence", "## Made by", "## Scores", "## Limits"):
        assert heading in card
    assert "Copyright (c) Vladimir Mandic" in card
    assert "The above copyright notice and this permission notice shall be included" in card
    assert PACKAGE_SHA256 in card
    assert str(REPO.parent) not in card


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_weights_are_named_in_one_line(tmp_path, damage):
    from elmd.extractors._face_nets import FaceNets

    whole = (WEIGHTS / "detector.safetensors").read_bytes()
    content = {"cut": whole[:1000], "other": (WEIGHTS / "landmarks.safetensors").read_bytes()}
    if damage in content:
        (tmp_path / "detector.safetensors").write_bytes(content[damage])
    with pytest.raises(AssetError, match="detector.safetensors is missing or damaged; reinstall elmd") as error:
        FaceNets(tmp_path)
    assert "\n" not in str(error.value)


# The converter


def package(tmp_path, change=None, kind=tarfile.REGTYPE):
    """A .tgz like the package's: three nets with one packed and one plain tensor each."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in convert.FACE_NETS.values():
            manifest = [
                {
                    "weights": [
                        {
                            "name": "conv1/depthwise_filter",
                            "shape": [3, 3, 2, 1],
                            "dtype": "float32",
                            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0},
                        },
                        {"name": "fc/weights", "shape": [2, 3], "dtype": "float32"},
                    ]
                }
            ]
            content = bytes(range(18)) + np.arange(6, dtype="<f4").tobytes()
            files = {"-weights_manifest.json": json.dumps(manifest).encode(), ".bin": content} | (change or {})
            for end, body in files.items():
                member = tarfile.TarInfo(f"package/model/{name}{end}")
                member.size, member.type, member.linkname = len(body), kind, "/etc/passwd"
                tar.addfile(member, io.BytesIO(body))
    return path


def test_the_converter_keeps_bytes_and_lays_them_out_for_torch(tmp_path):
    from safetensors.numpy import load_file

    convert.main(["face-api", str(package(tmp_path)), str(tmp_path / "out")])
    stored = load_file(tmp_path / "out" / "expression.safetensors")
    assert stored["conv1.depthwise.weight"].tolist() == [
        [[[0, 2, 4], [6, 8, 10], [12, 14, 16]]],
        [[[1, 3, 5], [7, 9, 11], [13, 15, 17]]],
    ]
    assert stored["conv1.depthwise.weight.range"].tolist() == [0.5, -1.0]
    assert stored["fc.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    first = (tmp_path / "out" / "expression.safetensors").read_bytes()
    convert.face_nets_from_npm(tmp_path / "package.tgz", tmp_path / "out")
    assert (tmp_path / "out" / "expression.safetensors").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({".bin": b"12"}, tarfile.REGTYPE, "not as face-api writes it"),
        ({".bin": b"x" * 400}, tarfile.REGTYPE, "bytes are left over"),
        ({"-weights_manifest.json": b"{"}, tarfile.REGTYPE, "not as face-api writes it"),
        ({"-weights_manifest.json": b"[[]]"}, tarfile.REGTYPE, "not as face-api writes it"),
        ({".bin": b"x" * 4_000_001}, tarfile.REGTYPE, "has no package/model"),
        (None, tarfile.SYMTYPE, "has no package/model"),
    ],
)
def test_the_converter_refuses_what_is_not_the_package(tmp_path, change, kind, reason):
    with pytest.raises(AssetError, match=reason):
        convert.face_nets_from_npm(package(tmp_path, change, kind), tmp_path / "out")


def test_a_cut_or_foreign_archive_ends_in_one_line(tmp_path, capsys):
    whole = package(tmp_path)
    for content in (whole.read_bytes()[:200], b"PK no tar at all"):
        whole.write_bytes(content)
        with pytest.raises(SystemExit) as end:
            convert.main(["face-api", str(whole), str(tmp_path / "out")])
        assert end.value.code == 1
        assert capsys.readouterr().err.count("\n") == 1


# One face


def test_a_smiling_face_is_found_with_plausible_landmarks(extractor):
    (face,) = extractor.faces([Frame(1.5, ASTRONAUT)])
    assert face.time == 1.5
    x, y, w, h = face.box * 512
    assert 140 < x < 180
    assert 50 < y < 90
    assert 90 < w < 150
    assert 90 < h < 150
    points = face.landmarks
    eyes, nose, mouth, chin = points[36:48], points[30], points[48:68], points[8]
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min() < chin[1]
    assert points[36:42, 0].max() < nose[0] < points[42:48, 0].min()
    assert points[17:27, 1].max() < eyes[:, 1].min()
    assert EKMAN[int(face.emotions.argmax())] == "happiness"
    assert face.emotions.sum() == pytest.approx(1, abs=1e-5)
    assert face.score > 0.9
    roll, yaw = face.measures[-2:]
    assert abs(roll) < 6
    assert abs(yaw) < 10


def test_features_have_the_columns_of_the_contract(extractor):
    features = extractor.extract(Reel([ASTRONAUT] * 3))
    assert features.columns == extractor.columns == COLUMNS
    assert features.columns[:7] == EKMAN
    assert features.columns[-257:-255] == ("score", "f0")
    assert features.columns[-1] == "f255"
    assert features.values.shape == (3, len(COLUMNS))
    assert features.values.dtype == features.times.dtype == np.float32
    assert features.times.tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75]]
    assert features.column("happiness").min() > 0.9
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert {"mouth_open", "smile", "brow_raise", "brow_furrow", "eye_open", "roll", "yaw", "x", "y", "w", "h"} < {
        *COLUMNS
    }


def test_a_picture_file_is_read_through_a_clip(extractor, tmp_path):
    Image.fromarray(ASTRONAUT).save(tmp_path / "face.png")
    features = extractor.extract(Clip(tmp_path / "face.png"))
    assert len(features) == 1
    assert features.column("happiness")[0] > 0.9


@pytest.mark.parametrize("angle", [-25, 20])
def test_a_tilted_head_is_cut_out_upright(extractor, angle):
    tilted = Image.fromarray(ASTRONAUT).rotate(-angle, Image.Resampling.BILINEAR, center=(225, 125))
    (face,) = extractor.faces([Frame(0, np.asarray(tilted))])
    assert face.measures[-2] == pytest.approx(angle, abs=6)
    assert EKMAN[int(face.emotions.argmax())] == "happiness"


@pytest.mark.parametrize("side", [140, 260, 480])
def test_faces_near_and_far_are_found(extractor, side):
    (face,) = extractor.faces([Frame(0, scene((40, 0, side), shape=(500, 640)))])
    assert face.box[2] * 640 == pytest.approx(side * 0.46, rel=0.25)
    assert EKMAN[int(face.emotions.argmax())] == "happiness"


@pytest.mark.parametrize(
    "picture",
    [
        data.coffee(),
        data.chelsea(),
        np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.full((700, 3, 3), 200, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
    ],
    ids=["coffee", "cat", "noise", "black", "thin", "dot"],
)
def test_where_no_face_is_there_is_no_row(extractor, picture):
    features = extractor.extract(Reel([picture] * 2))
    assert features.values.shape == (0, len(COLUMNS))
    assert features.times.shape == (0, 2)
    assert list(extractor.watch(film([picture] * 9))) == []


def test_a_find_whose_landmarks_wander_is_no_face(extractor, monkeypatch):
    coins = Image.fromarray(np.repeat(data.coins()[..., None], 3, 2)).resize((268, 212))
    small = np.asarray(coins.crop((134, 106, 268, 212)))
    monkeypatch.setattr(face_module, "UNSTEADY", 9.0)
    assert len(list(extractor.faces([Frame(0, small)]))) == 1  # the detector takes it for a face
    monkeypatch.undo()
    assert list(extractor.faces([Frame(0, small)])) == []


def test_a_clip_without_frames_has_no_rows(extractor):
    assert len(extractor.extract(Reel([]))) == 0


# Several faces, over time


def test_of_two_faces_the_larger_is_the_main_one(extractor):
    assert middles(extractor.faces(film([scene((30, 20, 160), (330, 20, 300))]))) == pytest.approx([0.73], abs=0.06)
    assert middles(extractor.faces(film([scene((30, 20, 300), (400, 20, 160))]))) == pytest.approx([0.27], abs=0.06)


def test_in_a_crowd_the_most_prominent_are_looked_at_not_the_surest(extractor, monkeypatch):
    monkeypatch.setattr(face_module, "MOST", 1)
    (face,) = extractor.faces([Frame(0, scene((30, 20, 180), (330, 20, 240)))])
    assert middles([face]) == pytest.approx([0.7], abs=0.06)


def test_a_moving_face_is_followed_past_a_bystander_who_becomes_larger(extractor):
    pictures = [scene((20 + 12 * i, 60, 200), (380, 10, 120 + 20 * i)) for i in range(8)]
    seen = middles(extractor.faces(film(pictures)))
    assert len(seen) == 8
    assert np.diff(seen) == pytest.approx(np.full(7, 12 / 640), abs=0.012)


def test_a_short_loss_keeps_the_identity_and_a_long_one_ends_it(extractor):
    both, alone = scene((20, 40, 280), (420, 80, 170)), scene((420, 80, 170))
    seen = list(extractor.faces(film([both, both, alone, alone, alone, both])))
    assert [face.time for face in seen] == [0, 0.25, 1.25]
    assert max(middles(seen)) < 0.5
    late = list(extractor.faces(film([both, *[alone] * 6])))
    assert [face.time for face in late] == [0, 1.25, 1.5]
    assert min(middles(late[1:])) > 0.5


def box(x: float, side: float = 0.2) -> list[float]:
    return [x, 0.4, side, side]


def choices(rows, fresh=None) -> list[int | None]:
    follower = geometry.Follower()
    found = []
    for i, row in enumerate(rows):
        boxes = np.array(row, float).reshape(-1, 4)
        found.append(follower.choose(i / 4, boxes, np.array((fresh or {}).get(i, [True] * len(boxes)), bool)))
    return found


def test_who_is_far_more_prominent_for_two_seconds_takes_over():
    main, giant = box(0.1, 0.12), box(0.4, 0.5)
    assert choices([[main], *[[main, giant]] * 8]) == [0] * 9
    assert choices([[main], *[[main, giant]] * 9]) == [0] * 9 + [1]
    assert choices([[main], *[[main, giant]] * 5, [main], *[[main, giant]] * 8]) == [0] * 15


def test_an_unsure_face_goes_on_but_does_not_begin():
    assert choices([[box(0.4)], [box(0.4)]], {0: [False]}) == [None, 0]
    assert choices([[box(0.4)], [box(0.4)]], {1: [False]}) == [0, 0]


def test_centrality_decides_between_faces_of_one_size():
    assert choices([[box(0.0), box(0.42)]]) == [1]


def test_the_rules_hold_without_any_face():
    assert choices([[], [box(0.4)], [], [box(0.42)]]) == [None, 0, None, 0]


# Measures


def neutral_landmarks() -> np.ndarray:
    """A drawn face: eyes 100 apart, nose 60 long, mouth shut."""
    points = np.zeros((68, 2))
    points[:17] = [(150 - 110 * np.cos(t), 100 + 160 * np.sin(t)) for t in np.linspace(0, np.pi, 17)]
    points[17:22] = [(65 + 14 * i, 70) for i in range(5)]
    points[22:27] = [(179 + 14 * i, 70) for i in range(5)]
    points[27:31] = [(150, 100 + 15 * i) for i in range(4)]
    points[31:36] = [(130 + 10 * i, 160) for i in range(5)]
    for start, x in ((36, 100), (42, 200)):
        points[start : start + 6] = [
            (x - 20, 100), (x - 7, 94), (x + 7, 94), (x + 20, 100), (x + 7, 106), (x - 7, 106)
        ]  # fmt: skip
    points[48:60] = [(150 - 40 * np.cos(t), 200 - 10 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 13)[:12]]
    points[60:68] = [(120, 200), (135, 200), (150, 200), (165, 200), (180, 200), (165, 200), (150, 200), (135, 200)]
    return points


def changed(change: dict[int, tuple[float, float]]) -> dict[str, float]:
    points = neutral_landmarks()
    for index, move in change.items():
        points[index] += move
    return dict(zip(geometry.MEASURES, geometry.measure(points).tolist(), strict=True))


def test_measures_of_a_drawn_face_are_the_formulas():
    found = changed({})
    assert found == pytest.approx(
        {
            "mouth_open": 0, "smile": 0.8, "brow_raise": 0.5, "brow_furrow": 1 - 0.58, "eye_open": 0.3, "roll": 0, "yaw": 0,
        },
        abs=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "value"),
    [
        ("mouth_open", {i: (0, 12) for i in (65, 66, 67)}, 0.2),
        ("smile", {48: (-10, 0), 54: (10, 0)}, 1.0),
        ("brow_raise", {i: (0, -6) for i in range(17, 27)}, 0.6),
        ("brow_furrow", {21: (4, 0), 22: (-4, 0)}, 0.5),
        ("eye_open", {i: (0, 6) for i in (37, 38, 43, 44)} | {i: (0, -6) for i in (40, 41, 46, 47)}, 0.0),
        ("yaw", {30: (70, 0)}, 45.0),
    ],
)
def test_each_measure_sees_its_own_movement(name, change, value):
    before, after = changed({}), changed(change)
    assert after[name] == pytest.approx(value, abs=1e-4)
    assert [key for key in before if abs(after[key] - before[key]) > 0.02] == [name]


@pytest.mark.parametrize("angle", [-40, 0, 30])
def test_measures_do_not_depend_on_place_size_and_tilt(angle):
    points = neutral_landmarks()
    points[62] += (0, -9)
    moved = 1.7 * points @ geometry.turning(angle).T + (300, -20)
    expected = geometry.measure(points)
    expected[geometry.MEASURES.index("roll")] = angle
    assert geometry.measure(moved) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("angle", [-35, 0, 50])
def test_an_aligned_box_holds_the_face_with_level_eyes(angle):
    from elmd.extractors._face_nets import CROP, cut

    points = neutral_landmarks() @ geometry.turning(angle).T + (400, 300)
    place = geometry.align(points)
    picture = np.zeros((900, 900, 3), np.uint8)
    eyes = np.array([points[36:42].mean(0), points[42:48].mean(0)])
    for x, y in np.round(eyes).astype(int):
        picture[y - 4 : y + 4, x - 4 : x + 4] = 255
    crop = cut(picture, place)[..., 0].astype(float)
    ys, xs = np.mgrid[:CROP, :CROP] + 0.5
    halves = [crop * (xs < CROP / 2), crop * (xs > CROP / 2)]
    seen = np.array([[(half * axis).sum() / half.sum() for axis in (xs, ys)] for half in halves])
    assert seen[0, 1] == pytest.approx(seen[1, 1], abs=1)
    assert place.back(seen / CROP) == pytest.approx(eyes, abs=1.5)
    inside = (points - place.centre) @ place.turn
    assert (np.abs(inside) < place.size / 2).all()


def test_measures_of_a_point_are_finite():
    assert np.isfinite(geometry.measure(np.zeros((68, 2)))).all()


# Streaming


def test_the_first_state_needs_one_second_of_frames_only(extractor):
    taken = count()
    endless = (Frame(i / 4, ASTRONAUT) for i in taken)
    stream = extractor.watch(endless)
    first = next(stream)
    assert len(first) == 4
    assert next(taken) == 4
    second = next(stream)
    assert second.times[0, 0] == 1.25  # frame 4 went to the count above


def test_watch_and_extract_see_the_same(extractor):
    pictures = [scene((20 + 12 * i, 60, 240)) for i in range(10)]
    watched = np.concatenate([part.values for part in extractor.watch(film(pictures))])
    assert extractor.extract(Reel(pictures)).values == pytest.approx(watched, abs=1e-3)


def test_the_size_of_pictures_may_change_within_a_clip(extractor):
    pictures = [scene((40, 20, 240)), scene((40, 20, 240)), scene((60, 30, 360), shape=(540, 960))]
    seen = list(extractor.faces(film(pictures)))
    assert [face.time for face in seen] == [0, 0.25, 0.5]
    assert seen[2].box == pytest.approx(seen[0].box, abs=0.02)


# Behaving


def test_the_revision_names_what_the_values_depend_on():
    base = Extractor(Config()).revision
    assert Extractor(Config(batch=2)).revision == base
    assert (
        len(
            {
                base,
                *(Extractor(Config(**{k: v})).revision for k, v in {"fps": 2.0, "size": 320, "longest": 480}.items()),
            }
        )
        == 4
    )


@pytest.mark.parametrize("wrong", [{"size": 400}, {"fps": 0.0}, {"score": 1.2}, {"batch": 0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_the_module_loads_no_torch():
    assert python("import sys, elmd.extractors.face; print('torch' in sys.modules)").strip() == "False"
