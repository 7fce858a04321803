"""Boxes and landmarks of faces: where a face lies upright, which face is the main one, and what its parts do.

Points are (x, y) in pixels, y downwards; boxes (x, y, width, height). Landmarks are the 68 of iBUG's 300-W in their
order: jaw 0–16, brows 17–26, nose 27–35, eyes 36–47, outer lips 48–59, inner lips 60–67; "left" is the picture's left.
"""

from dataclasses import dataclass

import numpy as np

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
MARGIN = 1.4
"""An aligned box is that of the landmarks, longer by this factor."""
MEASURES = ("mouth_open", "smile", "brow_raise", "brow_furrow", "eye_open", "roll", "yaw")
PATIENCE = 1.0
"""Seconds for which a lost face is waited for before another may become the main one."""
CONTINUITY = 0.1
"""A face is the one of the frame before if their boxes overlap at least so much (intersection over union)."""
RIVAL, RIVAL_SECONDS = 2.0, 2.0
"""Another face becomes the main one when it is so many times as prominent for so long."""


@dataclass(frozen=True, eq=False)
class Place:
    """A box that may be turned about its centre.

    Attributes:
        centre: Of the box, (2,).
        size: Width and height before turning, (2,).
        angle: Degrees, clockwise as one sees it.
    """

    centre: np.ndarray
    size: np.ndarray
    angle: float = 0.0

    @classmethod
    def of(cls, box: np.ndarray) -> "Place":
        """An upright box as a place."""
        return cls(box[:2] + box[2:] / 2, box[2:])

    @property
    def side(self) -> float:
        """The longer side, at least one pixel."""
        return max(float(self.size.max()), 1.0)

    @property
    def turn(self) -> np.ndarray:
        """The matrix that turns upright offsets (columns) to where they lie in the picture, (2, 2)."""
        return turning(self.angle)

    def back(self, points: np.ndarray) -> np.ndarray:
        """Put points (n, 2) in [0, 1] of the square around the upright box back into the picture."""
        placed: np.ndarray = (points - 0.5) * self.side @ self.turn.T + self.centre
        return placed


def turning(degrees: float) -> np.ndarray:
    """Return the matrix of a turn, clockwise as one sees it."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def roll_of(points: np.ndarray) -> float:
    """Return how far the line through the eyes is turned, in degrees; positive lowers the picture's right eye."""
    x, y = points[RIGHT_EYE].mean(0) - points[LEFT_EYE].mean(0)
    return float(np.degrees(np.arctan2(y, x)))


def align(points: np.ndarray) -> Place:
    """Return the place of a face whose eyes are level when it is cut out, by its landmarks (68, 2)."""
    angle = roll_of(points)
    turn = turning(angle)
    upright = points @ turn
    low, high = upright.min(0), upright.max(0)
    return Place(turn @ ((low + high) / 2), (high - low) * MARGIN, angle)


def steadiness(first: np.ndarray, second: np.ndarray, side: float) -> float:
    """Return how much landmarks moved between two looks: the mean over coordinates, in shares of the box's side.

    On a face the net finds the same points again (under 0.03 on photographs), elsewhere it wanders.
    """
    return float(np.abs(first - second).mean() / side)


def measure(points: np.ndarray) -> np.ndarray:
    """Return MEASURES of landmarks (68, 2), (7,) float32.

    The head is first turned upright. Widths are in units of the distance between the middles of the eyes, heights in
    units of the nose's length (27 to 33), which turning the head sideways leaves as it is.

    - mouth_open: mean gap of the inner lips (61–67, 62–66, 63–65) over their width (60–64); 0 is shut.
    - smile: width of the mouth (48–54) in eye distances.
    - brow_raise: height of the brows' middles (17–21, 22–26) above the middles of the eyes, in noses.
    - brow_furrow: 1 less the distance of the brows' inner ends (21–22) in eye distances; more is more drawn together.
    - eye_open: eye aspect ratio (p2–p6 + p3–p5) / (2 · p1–p4), the mean of both eyes (Soukupová and Čech 2016,
      "Real-time eye blink detection using facial landmarks"): about 0.3 when open, less in a blink.
    - roll: degrees; positive lowers the picture's right eye.
    - yaw: degrees, positive towards the picture's right; the tip of the nose (30) is taken to stand as far before the
      outer corners of the eyes (36, 45) as those are from their middle, so its shift over that distance is the tangent.
    """
    roll = roll_of(points)
    face = points @ turning(roll)
    left, right = face[LEFT_EYE].mean(0), face[RIGHT_EYE].mean(0)
    eyes = max(_apart(left, right), 1e-6)
    nose = max(_apart(face[27], face[33]), 1e-6)
    gap = np.mean([_apart(face[61], face[67]), _apart(face[62], face[66]), _apart(face[63], face[65])])
    brows = [left[1] - face[17:22, 1].mean(), right[1] - face[22:27, 1].mean()]
    half = max((face[45, 0] - face[36, 0]) / 2, 1e-6)
    shift = face[30, 0] - (face[45, 0] + face[36, 0]) / 2
    return np.array(
        [
            gap / max(_apart(face[60], face[64]), 1e-6),
            _apart(face[48], face[54]) / eyes,
            np.mean(brows) / nose,
            1 - _apart(face[21], face[22]) / eyes,
            (_aspect(face[LEFT_EYE]) + _aspect(face[RIGHT_EYE])) / 2,
            roll,
            np.degrees(np.arctan(shift / half)),
        ],
        np.float32,
    )


class Follower:
    """Picks the main face of each frame and stays with it.

    At first it is the most prominent one: large and near the middle. From then on it is the one whose box overlaps that
    of the frame before most. While it is lost for up to PATIENCE seconds nobody takes its place; a face that is RIVAL
    times as prominent for RIVAL_SECONDS does.
    """

    def __init__(self) -> None:
        self._box: np.ndarray | None = None
        self._seen = 0.0
        self._rival_since: float | None = None

    def choose(self, time: float, boxes: np.ndarray, fresh: np.ndarray) -> int | None:
        """Return which face is the main one; None if it is not there.

        Args:
            time: Of the frame, in seconds; later from call to call.
            boxes: Of the faces, in shares of the frame's sides, (n, 4).
            fresh: Which are sure enough to begin with, (n,); the others only go on.
        """
        if self._box is not None and time - self._seen > PATIENCE:
            self._box = None
        weights = np.array([prominence(box) for box in boxes])
        found = self._begin(weights, fresh) if self._box is None else self._go_on(time, boxes, weights, fresh)
        if found is not None:
            self._box, self._seen = boxes[found], time
        return found

    def _begin(self, weights: np.ndarray, fresh: np.ndarray) -> int | None:
        self._rival_since = None
        return int((weights * fresh).argmax()) if fresh.any() else None

    def _go_on(self, time: float, boxes: np.ndarray, weights: np.ndarray, fresh: np.ndarray) -> int | None:
        overlaps = [overlap(self._box, box) for box in boxes] if self._box is not None else []
        if not overlaps or max(overlaps) < CONTINUITY:
            return None
        same = int(np.argmax(overlaps))
        rival = self._rival(time, weights, fresh, same)
        return same if rival is None else rival

    def _rival(self, time: float, weights: np.ndarray, fresh: np.ndarray, same: int) -> int | None:
        """Return the face that takes over, if one has been far more prominent for long enough."""
        strongest = int((weights * fresh).argmax())
        if weights[strongest] * fresh[strongest] < RIVAL * weights[same]:
            self._rival_since = None
            return None
        if self._rival_since is None:
            self._rival_since = time
        if time - self._rival_since < RIVAL_SECONDS:
            return None
        self._rival_since = None
        return strongest


def prominence(box: np.ndarray) -> float:
    """Return how much a face stands out: its side in shares of the frame, half as much in a corner as in the middle.

    The side is the root of width times height; between middle and corner the factor falls with the distance.
    """
    away = np.hypot(*(box[:2] + box[2:] / 2 - 0.5)) / np.hypot(0.5, 0.5)
    return float(np.sqrt(box[2] * box[3]) * (1 - 0.5 * min(away, 1.0)))


def around(points: np.ndarray) -> np.ndarray:
    """Return the box around landmarks (68, 2), longer by MARGIN."""
    low, high = points.min(0), points.max(0)
    size = (high - low) * MARGIN
    return np.concatenate([(low + high - size) / 2, size])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(float(one[2] * one[3] + other[2] * other[3]) - shared, 1e-9)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.hypot(*(one - other)))


def _aspect(eye: np.ndarray) -> float:
    return (_apart(eye[1], eye[5]) + _apart(eye[2], eye[4])) / max(2 * _apart(eye[0], eye[3]), 1e-6)
