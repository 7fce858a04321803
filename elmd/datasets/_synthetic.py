"""Synthetic sets in the exact format of MMSA's pickles, for tests, benchmarks and for trying out without the real data.

A sentiment is drawn for each clip and planted in every modality along a fixed direction, under noise: text shows it
best, as in real data, so a model can learn it and no model reaches the label exactly. Nothing else is like people.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from elmd.errors import ElmdError, UnknownName, UsageError
from elmd.types import MODALITIES, Language, Modality, Split

Array = np.ndarray
PROTOCOL = 4
"""Of the pickle: every Python 3 that MMSA runs on reads it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a set looks like.

    Attributes:
        file: Its usual name.
        lengths, widths: Padded frames and width of a frame by modality.
        sizes: Clips of each split.
        steps: Labels to a point of the scale.
        limit: The end of the scale.
        mean, spread: Of the labels.
        alone: Whether each modality has labels of its own.
        tokens: Padded length of the token ids.
    """

    file: str
    lengths: Mapping[Modality, int]
    widths: Mapping[Modality, int]
    sizes: Mapping[Split, int]
    language: Language = "en"
    steps: int = 5
    limit: int = 3
    mean: float = 0.07
    spread: float = 1.57
    alone: bool = False
    tokens: int = 50


def _three(text: int, audio: int, vision: int) -> dict[Modality, int]:
    return {"text": text, "audio": audio, "vision": vision}


def _sizes(train: int, valid: int, test: int) -> dict[Split, int]:
    return {"train": train, "valid": valid, "test": test}


SHAPES: Mapping[str, Shape] = {
    "mosi": Shape("unaligned_50.pkl", _three(50, 375, 500), _three(768, 5, 20), _sizes(1284, 229, 686)),
    "mosei": Shape(
        "unaligned_50.pkl", _three(50, 500, 500), _three(768, 74, 35), _sizes(16326, 1871, 4659),
        steps=3, mean=0.2, spread=1.1,
    ),
    "sims": Shape(
        "unaligned_39.pkl", _three(39, 400, 55), _three(768, 33, 709), _sizes(1368, 456, 457),
        language="zh", limit=1, mean=-0.1, spread=0.6, alone=True, tokens=39,
    ),
    "simsv2": Shape(
        "ch-simsv2s.pkl", _three(50, 925, 232), _three(768, 25, 177), _sizes(2722, 647, 1034),
        language="zh", limit=1, mean=-0.1, spread=0.6, alone=True,
    ),
    "mosi_utterance": Shape(
        "utterance_unaligned.pkl", _three(1, 1, 1), _three(100, 73, 100), _sizes(1207, 237, 752),
    ),
}  # fmt: skip
"""The sets that can be made, as MMSA's configuration gives them; widths of SIMSv2 as its own configuration does."""

_HIDDEN: Mapping[Modality, float] = {"text": 0.35, "audio": 0.8, "vision": 0.8}
"""How far what a modality shows lies from the sentiment: standard deviation, in halves of the scale."""
_STRENGTH: Mapping[Modality, float] = {"text": 4.0, "audio": 2.5, "vision": 2.5}
"""Length of the planted vector; the noise of one frame has the length sqrt(width)."""
_MEAN_WORDS, _WORDS_SPREAD = 12.0, 0.65
_WORDS_PER_SECOND = 2.9
_FRAMES_PER_SECOND: Mapping[Modality, float] = {"text": 0.0, "audio": 12.5, "vision": 15.0}
_CLIPS_A_VIDEO = 20
_START, _END = 101, 102

_WORDS: Mapping[Language, tuple[Mapping[str, int], ...]] = {
    "en": (
        {"bad": 2919, "hate": 5223, "terrible": 6659, "boring": 11771, "horrible": 9202, "waste": 5949, "sad": 6517},
        {
            "the": 1996, "i": 1045, "it": 2009, "and": 1998, "was": 2001, "a": 1037, "of": 1997, "that": 2008,
            "um": 8529, "movie": 3185, "really": 2428, "this": 2023, "but": 2021, "is": 2003, "just": 2074, "to": 2000,
            "you": 2017, "in": 1999, "they": 2027, "very": 2200, "for": 2005, "one": 2028, "first": 2034, "think": 2228,
            "film": 2143, "story": 2466, "character": 2839, "acting": 3772,
        },
        {"good": 2204, "great": 2307, "love": 2293, "funny": 6057, "awesome": 12476, "fun": 4569, "nice": 3835},
    ),
    "zh": tuple({word: place for place, word in enumerate(words, start)} for words, start in (
        ("坏恨烂哭痛怕烦", 1000), ("的了是我你他在有这那就也都说看想要来去人们天事电影话", 2000), ("好爱美笑乐喜棒", 3000),
    )),
}  # fmt: skip
"""Negative, neutral and positive words with their ids: of bert-base-uncased for English, made up for Chinese."""


def synthesize(
    name: str,
    out: Path,
    sizes: Mapping[Split, int] | None = None,
    seed: int = 0,
    full_length: bool = False,
    aligned: bool = False,
) -> Path:
    """Write a synthetic set in the format and under the file name of the real one; return the file.

    Args:
        name: One of SHAPES; "-" and "_" are the same.
        out: The folder, made if need be.
        sizes: Clips of each split; else those of the real set. The real MOSEI size takes about 12 GB of memory.
        seed: The same seed makes the same file.
        full_length: Every clip fills its padded length, else lengths are like those of real speech.
        aligned: A frame a word in every modality and no length lists, as in the aligned files.

    Raises UnknownName, UsageError for an impossible size, ElmdError where the file cannot be written.
    """
    plain = name.replace("-", "_")
    if plain not in SHAPES:
        raise UnknownName("synthetic data set", name, SHAPES)
    shape = SHAPES[plain]
    if aligned:
        shape = _aligned(plain, shape)
    wanted = dict(shape.sizes if sizes is None else sizes)
    if not wanted or min(wanted.values()) < 1:
        raise UsageError(f"a split needs at least one clip, not {wanted}")
    parts = {split: _part(shape, split, size, seed, full_length, aligned) for split, size in wanted.items()}
    return _write(out / shape.file, parts)


def sizes_for(name: str, total: int) -> dict[Split, int]:
    """Return sizes that sum to `total`, in the proportions of the real set, each at least 1."""
    plain = name.replace("-", "_")
    if plain not in SHAPES:
        raise UnknownName("synthetic data set", name, SHAPES)
    real = SHAPES[plain].sizes
    if total < len(real):
        raise UsageError(f"{total} clips cannot fill {len(real)} splits")
    valid, test = (max(1, total * real[split] // sum(real.values())) for split in ("valid", "test"))
    return _sizes(total - valid - test, valid, test)


def _aligned(name: str, shape: Shape) -> Shape:
    if name == "mosi_utterance":
        raise UsageError("mosi_utterance has one step a modality; there is no aligned file of it")
    steps = shape.lengths["text"]
    return replace(shape, file=f"aligned_{steps}.pkl", lengths=_three(steps, steps, steps))


def _part(shape: Shape, split: Split, size: int, seed: int, full_length: bool, aligned: bool) -> dict[str, Any]:
    """Return one split: the keys, types and shapes of the real file."""
    draw = np.random.default_rng([seed, ("train", "valid", "test").index(split)])
    labels = _rounded(shape, draw.normal(shape.mean, shape.spread, size))
    # What each modality shows of it, in halves of the scale; with labels of their own it is those.
    shown = {kind: labels / shape.limit + draw.normal(0, _HIDDEN[kind], size) for kind in MODALITIES}
    alone = {kind: _rounded(shape, values * shape.limit) for kind, values in shown.items()}
    if shape.alone:
        shown = {kind: values / shape.limit for kind, values in alone.items()}
    words = _word_counts(draw, size, shape.tokens, full_length)
    lengths = {kind: _frames(kind, shape.lengths[kind], words, aligned, full_length) for kind in MODALITIES}
    bert, texts = _texts(shape, draw, words, shown["text"])
    part: dict[str, Any] = {"raw_text": texts, "id": _ids(split, size)}
    for kind in MODALITIES:
        part[kind] = _features(shape, kind, draw, shown[kind], lengths[kind], seed)
    part["text_bert"] = bert
    if not aligned:
        part |= {f"{kind}_lengths": lengths[kind].tolist() for kind in ("audio", "vision")}
    part["annotations"] = [("Negative", "Neutral", "Positive")[int(sign) + 1] for sign in np.sign(labels)]
    part["classification_labels"] = (np.sign(labels) + 1).astype(np.float32)
    part["regression_labels"] = labels.astype(np.float32)
    if shape.alone:
        part |= {f"regression_labels_{kind[0].upper()}": alone[kind].astype(np.float32) for kind in MODALITIES}
    return part


def _rounded(shape: Shape, values: Array) -> Array:
    """Return labels on the steps of the scale; 0.0 is never -0.0."""
    return (
        np.clip(np.round(values * shape.steps), -shape.limit * shape.steps, shape.limit * shape.steps) / shape.steps + 0
    )


def _word_counts(draw: np.random.Generator, size: int, tokens: int, full_length: bool) -> Array:
    most = tokens - 2
    if full_length:
        return np.full(size, most)
    middle = np.log(_MEAN_WORDS) - _WORDS_SPREAD**2 / 2
    return np.clip(draw.lognormal(middle, _WORDS_SPREAD, size).round(), 1, most).astype(int)


def _frames(kind: Modality, padded: int, words: Array, aligned: bool, full_length: bool) -> Array:
    """Return the true lengths: text and aligned sets have a frame a token, the others so many a second of speech."""
    if full_length:
        return np.full(len(words), padded)
    if kind == "text" or aligned:
        return (words + 2).clip(max=padded)
    frames = words / _WORDS_PER_SECOND * _FRAMES_PER_SECOND[kind]
    return np.asarray(frames.round().clip(1, padded), int)


def _texts(shape: Shape, draw: np.random.Generator, words: Array, shown: Array) -> tuple[Array, list[str]]:
    """Return (clips, 3, tokens) ids, mask and segment, and the words; the clearer the sentiment, the more such words."""
    groups = _WORDS[shape.language]
    names = [word for group in groups for word in group]
    ids = np.array([place for group in groups for place in group.values()])
    starts, sizes = np.cumsum([0, *map(len, groups)])[:3], np.array([*map(len, groups)])
    counts = (len(words), int(words.max()))
    side = np.where(draw.random(counts) < 0.5 + 0.5 * np.clip(shown, -1, 1)[:, None], 2, 0)
    group = np.where(draw.random(counts) < 0.25, side, 1)
    chosen = starts[group] + (draw.random(counts) * sizes[group]).astype(int)
    bert = np.zeros((len(words), 3, shape.tokens), np.float32)
    places = np.arange(counts[1])[None] < words[:, None]
    bert[:, 0, 1 : counts[1] + 1][places] = ids[chosen][places]
    bert[:, 0, 0] = _START
    bert[np.arange(len(words)), 0, words + 1] = _END
    bert[:, 1] = np.arange(shape.tokens)[None] < (words + 2)[:, None]
    mark = "" if shape.language == "zh" else " "
    return bert, [mark.join(names[i] for i in row[:count]) for row, count in zip(chosen, words, strict=True)]


def _ids(split: Split, size: int) -> list[str]:
    """Return "video$_$clip" ids; no video is in two splits."""
    return [f"synthetic_{split}{i // _CLIPS_A_VIDEO:04}$_${i % _CLIPS_A_VIDEO}" for i in range(size)]


def _features(
    shape: Shape, kind: Modality, draw: np.random.Generator, shown: Array, lengths: Array, seed: int
) -> Array:
    """Return (clips, padded length, width) float32: noise with what is shown along a direction, zeros as padding."""
    width, padded = shape.widths[kind], shape.lengths[kind]
    # The direction is that of the seed, the same in every split.
    direction = np.random.default_rng([seed, 9, MODALITIES.index(kind)]).standard_normal(width).astype(np.float32)
    direction *= np.float32(_STRENGTH[kind]) / np.linalg.norm(direction)
    frames = draw.standard_normal((int(lengths.sum()), width), np.float32)
    frames += np.repeat(shown.astype(np.float32), lengths)[:, None] * direction
    array = np.zeros((len(shown), padded, width), np.float32)
    array[np.arange(padded)[None] < lengths[:, None]] = frames
    return array


def _write(path: Path, parts: dict[Split, dict[str, Any]]) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            pickler = pickle.Pickler(file, PROTOCOL)
            pickler.fast = True  # no memo, which would keep a second copy of every array
            pickler.dump(parts)
        partial.replace(path)
    except OSError as error:
        raise ElmdError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path
