"""The face nets in torch: a tiny face detector, 68 landmarks and seven expressions.

Layers, anchors and constants are those of the MIT-licensed nets of `weights/face`; a picture is an (height, width, 3)
uint8 RGB array, a box (x, y, width, height) in its pixels. Import this module inside functions: it needs torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from elmd.errors import AssetError
from elmd.extractors._face_geometry import Place, overlap

STRIDE = 32
"""Pixels of one cell of the detector's grid."""
CROP = 112
"""Side of what the landmark and expression nets look at."""
FEATURES = 256
POINTS = 68
ANCHORS = (
    (1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308),
)  # fmt: skip
"""Width and height of the detector's prior boxes, in cells."""
OVERLAP = 0.4
"""Of two boxes that overlap more (intersection over union), only the surer is kept."""
Net = TypeVar("Net", bound=nn.Module)
_FRAME_MEAN = (117.001, 114.697, 97.404)
_CROP_MEAN = (122.782, 117.001, 104.298)


class FaceNets:
    """The three nets, for inference.

    Args:
        folder: Holds detector, landmarks and expression as safetensors. Raises AssetError when one cannot be read.
        device: Where the nets run.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.detector, _ = _load(_Detector(), folder / "detector.safetensors", self.device)
        self.landmarks, _ = _load(_CropNet(2 * POINTS), folder / "landmarks.safetensors", self.device)
        self.expression, about = _load(_CropNet(7), folder / "expression.safetensors", self.device)
        self.labels: tuple[str, ...] = tuple(about.get("labels", "").split())

    @torch.inference_mode()
    def detect(self, pictures: Sequence[np.ndarray], size: int, least: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the boxes (n, 4) and scores (n,) of the faces in each picture, surest first.

        Args:
            pictures: All of one size.
            size: The longer side is scaled to it; a multiple of 32.
            least: The lowest score, in [0, 1], that counts as a face.
        """
        height, width = pictures[0].shape[:2]
        scale = size / max(height, width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        outer = tuple(-(-side // STRIDE) * STRIDE for side in inner)
        batch = np.zeros((len(pictures), *outer, 3), np.uint8)
        for canvas, picture in zip(batch, pictures, strict=True):
            canvas[: inner[0], : inner[1]] = _resized(picture, inner)
        # Two at a time: the first layers of more do not fit a processor's cache and take longer a picture.
        parts = [batch[i : i + 2] for i in range(0, len(batch), 2)]
        cells = [cell for part in parts for cell in self.detector(self._prepared(part, _FRAME_MEAN)).cpu()]
        return [_boxes(cell, least, STRIDE / scale) for cell in cells]

    @torch.inference_mode()
    def mark(self, crops: np.ndarray) -> np.ndarray:
        """Return the landmarks of crops (n, 112, 112, 3) in units of the crop's side, (n, 68, 2) x and y."""
        found: np.ndarray = self.landmarks(self._prepared(crops, _CROP_MEAN))[0].view(-1, POINTS, 2).cpu().numpy()
        return found

    @torch.inference_mode()
    def express(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of `labels` (n, 7) and the vectors they are read from (n, 256)."""
        outputs, features = self.expression(self._prepared(crops, _CROP_MEAN))
        return outputs.softmax(-1).cpu().numpy(), features.cpu().numpy()

    def _prepared(self, pictures: np.ndarray, mean: Sequence[float]) -> Tensor:
        tensor = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float()
        return (tensor - tensor.new_tensor(mean).view(1, 3, 1, 1)) / 255


def cut(picture: np.ndarray, place: Place) -> np.ndarray:
    """Cut a turned box out of a picture, upright, into the middle of a black square of 112 pixels.

    What lies outside the picture is black too.
    """
    scale = place.side / CROP
    inner = [max(1, round(float(length) / scale)) for length in place.size]
    reach = float(np.hypot(*place.size)) / 2 + 2 * scale
    corner = np.floor(place.centre - reach).astype(int)
    around = Image.fromarray(picture).crop((*corner.tolist(), *np.ceil(place.centre + reach).astype(int).tolist()))
    # Whole pixels are averaged first: the turning takes four of them each and would leave out the rest.
    shrunk = max(1, int(scale))
    around = around.reduce(shrunk)
    left, top = (CROP - inner[0]) // 2, (CROP - inner[1]) // 2
    turn = place.turn * (scale / shrunk)
    start = (place.centre - corner) / shrunk - turn @ (CROP / 2 - np.array([left, top]))
    rows = (*turn[0].tolist(), float(start[0]), *turn[1].tolist(), float(start[1]))
    face = around.transform((inner[0], inner[1]), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    crop = np.zeros((CROP, CROP, 3), np.uint8)
    crop[top : top + inner[1], left : left + inner[0]] = np.asarray(face)
    return crop


def suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Return which boxes stay, surest first, when those that overlap a surer one by more than OVERLAP go."""
    left = [int(i) for i in np.argsort(-scores, kind="stable")]
    kept = []
    while left:
        first = left.pop(0)
        kept.append(first)
        left = [i for i in left if overlap(boxes[first], boxes[i]) <= OVERLAP]
    return kept


class _Separable(nn.Module):
    """A depthwise convolution and a pointwise one."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        # With a stride of two TensorFlow pads an even side at its end only; see _Dense.
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=2 - stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(self.depthwise(x), self.pointwise.weight, self.bias)


class _Detector(nn.Module):
    """A YOLO-like net: five boxes (x, y, width, height, score before their squashing) for each cell of 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 16, 3, padding=1)
        for i in range(1, 6):
            self.add_module(f"conv{i}", _Separable(8 << i, 16 << i))
        self.conv8 = nn.Conv2d(512, 5 * len(ANCHORS), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, rows, columns, anchors, 5) of pictures (n, 3, height, width), sides multiples of 32."""
        for i in range(6):
            x = self.get_submodule(f"conv{i}")(x)
            x = functional.max_pool2d(x, 2) if i < 5 else functional.max_pool2d(_padded(x, -torch.inf), 2, 1)
            # The original has it before the pooling: the same, as neither changes the order, on four times as many.
            x = functional.leaky_relu(x, 0.1)
        cells: Tensor = self.conv8(x).permute(0, 2, 3, 1)
        return cells.reshape(*cells.shape[:3], len(ANCHORS), 5)


class _Dense(nn.Module):
    """Four convolutions, each fed with the sum of those before it; halves both sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, outputs, 3, 2) if inputs == 3 else _Separable(inputs, outputs, 2)
        self.conv1, self.conv2, self.conv3 = (_Separable(outputs, outputs) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = functional.relu(self.conv0(_padded(x)))
        for layer in (self.conv1, self.conv2, self.conv3):
            total = total + layer(functional.relu(total))
        return functional.relu(total)


class _CropNet(nn.Module):
    """The net of landmarks and of expressions: four dense blocks, a mean over what is left, one linear layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.dense0, self.dense1, self.dense2, self.dense3 = (
            _Dense(a, b) for a, b in ((3, 32), (32, 64), (64, 128), (128, FEATURES))
        )
        self.fc = nn.Linear(FEATURES, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs (n, outputs) and the features (n, 256) of crops (n, 3, 112, 112)."""
        features = self.dense3(self.dense2(self.dense1(self.dense0(x)))).mean((2, 3))
        return self.fc(features), features


def _padded(x: Tensor, value: float = 0.0) -> Tensor:
    """Pad the right and the lower side by one."""
    return functional.pad(x, (0, 1, 0, 1), value=value)


def _boxes(cells: Tensor, least: float, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn the detector's numbers of one picture into boxes; `cell` is the side of a cell in the picture's pixels."""
    scores = cells[..., 4].sigmoid()
    row, column, anchor = (scores >= least).nonzero(as_tuple=True)
    x, y, width, height = cells[row, column, anchor, :4].unbind(-1)
    priors = torch.tensor(ANCHORS)[anchor]
    centre = torch.stack([column + x.sigmoid(), row + y.sigmoid()], 1)
    size = torch.stack([width.exp(), height.exp()], 1) * priors
    boxes = (torch.cat([centre - size / 2, size], 1) * cell).numpy()
    sure: np.ndarray = scores[row, column, anchor].numpy()
    kept = suppress(boxes, sure)
    return boxes[kept], sure[kept]


def _resized(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scale a picture to (height, width), smoothing where it shrinks."""
    return np.asarray(Image.fromarray(picture).resize(shape[::-1], Image.Resampling.BILINEAR))


def _load(net: Net, path: Path, device: torch.device) -> tuple[Net, dict[str, str]]:
    """Fill a net from its file, unpacking bytes: `NAME` is scaled by `NAME.range`, its (scale, minimum)."""
    try:
        with safe_open(path, "np") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about: dict[str, str] = json.loads((file.metadata() or {}).get("about", "{}"))
        net.load_state_dict({n: _unpacked(n, stored) for n in stored if not n.endswith(".range")})
    except Exception as error:  # the reader raises many kinds; all of them mean a file that is not ours or not whole
        raise AssetError(f"{path} is missing or damaged; reinstall elmd ({str(error).splitlines()[0]})") from error
    # Three times as fast on a CPU as the usual layout, mostly in the pooling of the detector.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.to(device).eval(), about


def _unpacked(name: str, stored: dict[str, np.ndarray]) -> Tensor:
    values = stored[name]
    if f"{name}.range" in stored:
        scale, low = stored[f"{name}.range"]
        values = values * scale + low
    return torch.from_numpy(values.astype(np.float32))
