"""The main face of a clip: seven expressions, measures of mouth, brows and eyes, and a 256-wide vector a frame."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from elmd.config import Strict
from elmd.errors import AssetError
from elmd.extractors._face_geometry import MEASURES, Follower, Place, align, around, measure, prominence, steadiness
from elmd.labels import EKMAN
from elmd.types import Features, Modality

if TYPE_CHECKING:
    from elmd.extractors._face_nets import FaceNets
    from elmd.media import Clip, Frame

SHIPPED = "weights/face"
BOX = ("x", "y", "w", "h")
COLUMNS = (*EKMAN, *MEASURES, *BOX, "score", *(f"f{i}" for i in range(256)))
LEAST = 0.3
"""The lowest score of the detector that a followed face may sink to."""
MOST = 4
"""How many faces of a frame are looked at, the most prominent ones."""
SMALLEST = 24.0
"""Pixels; on a smaller face the landmarks are guesses."""
UNSTEADY = 0.04
"""A find whose landmarks move more between two looks is no face; see `steadiness`."""
_FORMAT = 1
_EKMAN_OF = {
    "neutral": "neutral", "happy": "happiness", "sad": "sadness", "angry": "anger", "fearful": "fear",
    "disgusted": "disgust", "surprised": "surprise",
}  # fmt: skip


class Config(Strict):
    """How closely a clip is watched."""

    fps: float = Field(4.0, gt=0, le=60)
    """Frames a second that are looked at."""
    longest: int = Field(640, ge=64)
    """Longer side of the decoded frames, in pixels."""
    size: int = Field(416, ge=224, multiple_of=32)
    """Longer side of what the detector sees: a face is found from about a seventh of it on."""
    score: float = Field(0.5, ge=0.0, le=1.0)
    """How sure the detector must be of a face to begin with it."""
    batch: int = Field(8, ge=1)
    """Frames that go through the nets together."""
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Face:
    """The main face at one moment.

    Attributes:
        time: Seconds.
        emotions: Probabilities in the order of EKMAN, (7,).
        measures: In the order of MEASURES, (7,).
        box: Left, top, width and height around the landmarks, in shares of the frame's sides, (4,).
        score: How sure the detector is, in [0, 1].
        vector: What the expression net reads the emotion from, (256,).
        landmarks: In the frame's pixels, (68, 2).
    """

    time: float
    emotions: np.ndarray
    measures: np.ndarray
    box: np.ndarray
    score: float
    vector: np.ndarray
    landmarks: np.ndarray

    @property
    def row(self) -> np.ndarray:
        """All but time and landmarks, in the order of COLUMNS."""
        return np.concatenate([self.emotions, self.measures, self.box, [self.score], self.vector])


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What the detector takes for a face in one frame of a batch."""

    frame: int
    score: float
    place: Place


@dataclass(frozen=True, eq=False)
class _Found:
    """A face that was found in one frame of a batch, with its crop for the expression net."""

    frame: int
    score: float
    landmarks: np.ndarray
    box: np.ndarray
    crop: np.ndarray


class Extractor:
    """Follows the main face through a clip. Frames without it give no row; see `Follower` for who is the main one."""

    name = "face"
    modality: Modality = "vision"
    columns = COLUMNS

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def revision(self) -> str:
        """What the values depend on: this code, the weights, and how frames are taken."""
        digest = hashlib.sha256()
        for path in sorted(_folder().glob("*.safetensors")):
            digest.update(path.read_bytes())
        c = self.config
        return f"{_FORMAT}/{digest.hexdigest()[:16]}/{c.fps:g}-{c.longest}-{c.size}-{c.score:g}"

    def extract(self, clip: "Clip") -> Features:
        """Return a row for every sampled frame in which the main face is seen, lasting until the next sample."""
        frames = clip.frames(self.config.fps, self.config.longest)
        return self._features([*self.faces(frames)])

    def watch(self, frames: "Iterable[Frame]") -> Iterator[Features]:
        """Yield the rows of about one second after another, as soon as its frames are there; never an empty one."""
        follower = Follower()
        for batch in _batches(frames, max(1, round(self.config.fps))):
            if found := self._look(batch, follower):
                yield self._features(found)

    def faces(self, frames: "Iterable[Frame]") -> Iterator[Face]:
        """Yield the main face of each frame that shows it; only a batch of frames is held at a time."""
        follower = Follower()
        for batch in _batches(frames, self.config.batch):
            yield from self._look(batch, follower)

    @cached_property
    def _nets(self) -> "FaceNets":
        from elmd.extractors._face_nets import FaceNets

        return FaceNets(_folder(), self.config.device)

    @cached_property
    def _order(self) -> list[int]:
        """Where each label of EKMAN is among the outputs of the expression net."""
        ours = [_EKMAN_OF.get(label, "") for label in self._nets.labels]
        if sorted(ours) != [*EKMAN]:
            raise AssetError(f"{_folder()} names the expressions {self._nets.labels}; reinstall elmd")
        return [ours.index(label) for label in EKMAN]

    def _look(self, frames: "Sequence[Frame]", follower: Follower) -> list[Face]:
        found = self._find(frames)
        main = []
        for i, frame in enumerate(frames):
            here = [face for face in found if face.frame == i]
            boxes = np.array([face.box for face in here]).reshape(-1, 4)
            chosen = follower.choose(frame.time, boxes, np.array([f.score >= self.config.score for f in here], bool))
            main += [here[chosen]] if chosen is not None else []
        if not main:
            return []
        shares, vectors = self._nets.express(np.stack([face.crop for face in main]))
        return [
            Face(frames[f.frame].time, share, measure(f.landmarks), f.box, f.score, vector, f.landmarks)
            for f, share, vector in zip(main, shares[:, self._order], vectors, strict=True)
        ]

    def _find(self, frames: "Sequence[Frame]") -> list[_Found]:
        """Find the faces of some frames: landmarks in each box, and again in the box that those align."""
        pictures = [frame.rgb for frame in frames]
        candidates = self._candidates(pictures)
        looks = self._mark(pictures, [(c.frame, c.place) for c in candidates])
        aligned = [(c.frame, align(points)) for c, (points, _) in zip(candidates, looks, strict=True)]
        again = self._mark(pictures, aligned)
        sides = np.array([*pictures[0].shape[1::-1]] * 2)
        return [
            _Found(c.frame, c.score, points, around(points) / sides, crop)
            for c, (before, _), (points, crop) in zip(candidates, looks, again, strict=True)
            if steadiness(before, points, c.place.side) <= UNSTEADY
        ]

    def _candidates(self, pictures: Sequence[np.ndarray]) -> list[_Candidate]:
        """Return the most prominent finds of the detector in each picture."""
        sides = np.array([*pictures[0].shape[1::-1]] * 2)
        least = min(LEAST, self.config.score)
        found = []
        for i, (boxes, scores) in enumerate(self._nets.detect(pictures, self.config.size, least)):
            order = np.argsort([-prominence(box / sides) for box in boxes])
            fit = [at for at in order if boxes[at, 2:].min() >= SMALLEST and boxes[at, 2:].max() <= 2 * sides.max()]
            found += [_Candidate(i, float(scores[at]), Place.of(boxes[at])) for at in fit[:MOST]]
        return found

    def _mark(
        self, pictures: Sequence[np.ndarray], places: Sequence[tuple[int, Place]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the landmarks in places of pictures, each with the crop they were seen in."""
        from elmd.extractors._face_nets import cut

        if not places:
            return []
        crops = np.stack([cut(pictures[i], place) for i, place in places])
        marks = self._nets.mark(crops)
        return [(place.back(m), crop) for (_, place), m, crop in zip(places, marks, crops, strict=True)]

    def _features(self, faces: Sequence[Face]) -> Features:
        starts = np.array([face.time for face in faces], np.float32)
        times = np.stack([starts, starts + np.float32(1 / self.config.fps)], 1).reshape(-1, 2)
        rows = np.array([face.row for face in faces], np.float32).reshape(-1, len(COLUMNS))
        return Features(times, rows, COLUMNS)


def _folder() -> Path:
    return Path(str(resources.files("elmd") / SHIPPED))


def _batches(frames: "Iterable[Frame]", size: int) -> "Iterator[list[Frame]]":
    """Yield frames in groups of one picture size, at most `size` long."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and frame.rgb.shape != batch[0].rgb.shape:
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
