"""MVSA: English tweets of a text and an image, each judged for sentiment (-Single and -Multiple, MMM 2016).

A pair in which one is positive and the other negative is left out, as is usual; a neutral one takes the side of the
other. MVSA-Multiple has three annotators: their majority counts, and a pair without one is left out.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from elmd.datasets._common import check_split, find, part_of, read_lines
from elmd.errors import BadData
from elmd.files import OnBad, stop
from elmd.text import clean
from elmd.types import DatasetCard, Media, Sample

if TYPE_CHECKING:
    import numpy as np

CARD = DatasetCard(
    title="MVSA-Single or MVSA-Multiple",
    language="en",
    license="research only, the authors' terms",
    url="https://mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/",
    splits=("train", "valid", "test"),
    files=("labelResultAll.txt",),
    label_set=None,
    note="beside it data/<ID>.txt and data/<ID>.jpg; split 8 : 1 : 1 by a hash of the ID; 0.6 MB of memory a sample",
    scale="sims",
)

SIDE, PATCH = 224, 16
"""Pixels of the square that an image is scaled to, and of its patches."""
MOST_PIXELS = 50_000_000
"""A larger image is refused before it is decoded."""
_VALUES = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}


def samples(root: Path, split: str, on_bad: OnBad = stop) -> Iterator[Sample]:
    """Yield the samples of a split: sentiment -1, 0 or 1, and the image as (196, 768) patches of pixels in [-1, 1]."""
    checked = check_split("mvsa", split, CARD.splits)
    path = find(root, CARD.files[0], get=f"ask the authors for the data: {CARD.url}")
    seen: set[str] = set()
    for line, row in read_lines(path, on_bad):
        if line == 1 and row.casefold().startswith("id"):
            continue
        try:
            name, votes = _votes(row)
            if name in seen:
                raise ValueError(f"ID {name!r} is there twice")
            seen.add(name)
            judged = _judged(votes)
            if judged and part_of(f"mvsa:{name}") == checked:
                yield _sample(root / "data", name, *judged)
        except ValueError as error:
            on_bad(BadData(path, line, str(error)))


def patches(path: Path) -> "np.ndarray":
    """Return an image file as ViT patches, (196, 768) float32 in [-1, 1]: rows of patches, each 16 x 16 x RGB.

    Raises ValueError for what is no image, or one of more than MOST_PIXELS.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=("JPEG", "PNG", "GIF", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at the nearest larger size, which is much faster
            pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    except Exception as error:  # a damaged image raises whatever its decoder meets
        raise ValueError(f"{path.name} cannot be read as an image ({' '.join(str(error).split()):.120})") from error
    count = SIDE // PATCH
    grid = pixels.reshape(count, PATCH, count, PATCH, 3).swapaxes(1, 2)
    return grid.reshape(count * count, -1).astype(np.float32) / np.float32(127.5) - np.float32(1)


def _votes(row: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the ID of a line and the (text, image) labels of each annotator."""
    name, *columns = (column.strip() for column in row.split("\t"))
    votes = [tuple(label.strip().casefold() for label in column.split(",")) for column in columns]
    if not name.isalnum() or not votes or any(len(vote) != 2 or not set(vote) <= _VALUES.keys() for vote in votes):
        raise ValueError(f"not an ID and pairs of {', '.join(_VALUES)}: {row!r:.80}")
    return name, [(text, image) for text, image in votes]


def _judged(votes: list[tuple[str, str]]) -> tuple[float, float, float] | None:
    """Return the sentiment of a pair, of its text and of its image, or None if it is left out."""
    text, image = (_majority([vote[side] for vote in votes]) for side in (0, 1))
    if text is None or image is None or text * image < 0:
        return None
    return text or image, text, image


def _majority(labels: list[str]) -> float | None:
    (label, count), *_ = Counter(labels).most_common(1)
    return _VALUES[label] if count > len(labels) / 2 else None


def _sample(folder: Path, name: str, both: float, text: float, image: float) -> Sample:
    words, picture = folder / f"{name}.txt", folder / f"{name}.jpg"
    for path in (words, picture):
        if not path.is_file():
            raise ValueError(f"data/{path.name} is not there")
    return Sample(
        id=name,
        origin=name,
        text=clean(_decoded(words.read_bytes())),
        features={"vision": patches(picture)},
        sentiment=both,
        sentiments={"text": text, "vision": image},
        media=Media(image=str(picture)),
    )


def _decoded(raw: bytes) -> str:
    """Return the words of a tweet; not all of the official files are UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
