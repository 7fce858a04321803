"""Sentiment metrics as the field's papers compute them, with bootstrap intervals over videos and spread over seeds.

The definitions are those of MMSA 2.2.1 (`MMSA/utils/metricsTop.py`), whose tables most papers follow, and of the
CH-SIMS v2 code (`utils/metricsTop.py` of thuiar/ch-sims-v2) for `acc2_weak` and `r2`. What is easy to get wrong:

- Numbers are compared as float32. A label of 0.4 that a file holds as float32 is 0.4000000059… as float64, and would
  fall out of |y| <= 0.4; so would labels that lie on an edge of a bin.
- On "mosi", Acc-5 and Acc-7 round halves to the even number: 0.5 is class 0, 1.5 and 2.5 are class 2.
- On "mosi", 0 counts as positive in `*_has0`; in `*_non0` rows labelled 0 are left out and a prediction of 0 is negative.
- On "sims", 0 is negative, bins are open on the left and closed on the right, and everything, MAE and Corr
  included, is computed on values clipped to [-1, 1]. On "mosi" MAE and Corr are of the values as they are.
- F1 weighs classes by how often they are *given*; with the arguments swapped, as some code has it, it comes out higher.

Every metric here is a function of sums over rows, so a resample costs one product with the counts of its videos.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from elmd import __version__
from elmd.errors import UnknownName, UsageError
from elmd.files import to_dict
from elmd.types import Scale, Score

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.intp]

INTERVAL = 95.0
"""Percent of the bootstrap that lies between a score's `low` and `high`."""

SCALES: Mapping[Scale, float] = {"mosi": 3.0, "sims": 1.0}
"""The scales of sentiment, each with its greatest value."""

WEAK = 0.4
"""On "sims", a sentiment up to this strength is weak."""

_SIMS_EDGES: Mapping[int, tuple[float, ...]] = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}
_AXES = ("valence", "arousal")
_COUNTS_AT_ONCE = 1_000_000
"""Bounds memory: resamples times videos that are drawn at a time."""

_NO_SPREAD = 1e-12
"""A variance below this share of the mean square is rounding alone."""


@dataclass(frozen=True, slots=True)
class Part:
    """One or more metrics of the same rows.

    Attributes:
        rows: What each row adds, shape (rows, k).
        finish: Sums of these, shape (resamples, k), to values by name, each (resamples,); nan where there is nothing.
    """

    rows: Floats
    finish: Callable[[Floats], dict[str, Floats]]


Metric: TypeAlias = Callable[[Floats, Floats], Sequence[Part]]
"""Predicted and given, as many rows of each and none missing, to parts in the order the metrics are listed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric's mean and standard deviation over seeds, and the interval of that mean over resampled videos."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a system reached on `n` labelled rows.

    Attributes:
        n: How many rows were scored.
        scores: Means over seeds with intervals over videos.
        sd: Standard deviation over seeds by score; 0 where there is one seed.
        seeds: The scores of each seed.
    """

    n: int
    scores: tuple[Score, ...]
    sd: Mapping[str, float]
    seeds: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "n": self.n,
            "scores": [to_dict(score) for score in self.scores],
            "sd": dict(self.sd),
            "seeds": {seed: dict(values) for seed, values in self.seeds.items()},
        }


# --- one set of predictions ---


def sentiment_metrics(predicted: npt.ArrayLike, given: npt.ArrayLike, scale: Scale) -> dict[str, float]:
    """Return the regression metrics of a scale, as MMSA's `MetricsTop("regression")` computes them.

    MAE, Corr (Pearson's r) and R² are as they are, all others percent. "mosi" has `mae`, `corr`, `acc2_has0`,
    `acc2_non0`, `f1_has0`, `f1_non0`, `acc5`, `acc7`; "sims" has `mae`, `corr`, `acc2`, `acc3`, `acc5`, `f1`, and of
    SIMS v2 `acc2_weak` (Acc-2 of the rows with |y| <= WEAK) and `r2`.

    Where predictions or labels are constant, Corr is 0 (in MMSA nan). A metric that no row is left for (`*_non0`
    where every label is 0) is left out. So are rows whose label is nan.

    Args:
        predicted: One number a row.
        given: The labels.
        scale: Which definitions hold.

    Raises:
        UsageError: Without a labelled row, for unequal lengths, and for a prediction that is not finite.
    """
    return _whole(sentiment_metric(scale), predicted, given)


def class_metrics(predicted: Sequence[str], given: Sequence[str | None], labels: Sequence[str]) -> dict[str, float]:
    """Return `accuracy`, `macro_f1` and `weighted_f1` in percent; rows without a given label are left out.

    F1 is 0 for a class that is never hit, and the macro average goes over the classes that are given or predicted
    at least once, as in scikit-learn.

    Raises:
        UnknownName: For a class that is not among `labels`.
        UsageError: As in `sentiment_metrics`.
    """
    return _whole(class_metric(labels), codes(predicted, labels), codes(given, labels))


def circumplex_metrics(predicted: npt.ArrayLike, given: npt.ArrayLike) -> dict[str, float]:
    """Return what valence and arousal, columns 0 and 1, are judged by: MAE, Corr and CCC of each, and the mean CCC.

    CCC is Lin's concordance (1989, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45),
    2 s_xy / (s_x² + s_y² + (x̄ - ȳ)²) with variances over n. It and Corr are 0 where they are not defined.

    Raises:
        UsageError: As in `sentiment_metrics`, and unless there are two columns.
    """
    return _whole(circumplex_metric, predicted, given)


def codes(names: Sequence[str | None], labels: Sequence[str]) -> Floats:
    """Return each name's place among `labels`, nan for None; raise UnknownName."""
    places = {label: float(place) for place, label in enumerate(labels)}
    for name in names:
        if name is not None and name not in places:
            raise UnknownName("class", name, labels)
    return np.asarray([np.nan if name is None else places[name] for name in names], dtype=np.float64)


# --- many seeds, with intervals ---


def intervals(
    metric: Metric,
    predicted_by_seed: Sequence[npt.ArrayLike],
    given: npt.ArrayLike,
    origins: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return mean and standard deviation over seeds of each metric, with an interval of the mean over videos.

    The interval is the middle INTERVAL percent of a bootstrap over videos (Efron and Tibshirani 1993, "An Introduction
    to the Bootstrap"): whole videos are drawn with replacement, the same for every seed, because the utterances of one
    resemble each other. It says what another test set would change, the standard deviation (over seeds - 1) what
    another training run would. Resamples in which a metric has nothing to score are left out; of a single video the
    interval is the value itself.

    Args:
        metric: `sentiment_metric(scale)`, `class_metric(labels)` or `circumplex_metric`.
        predicted_by_seed: Predictions of each training seed for the same rows.
        given: The labels; rows with nan are left out.
        origins: The video of each row.
        resamples: How often videos are drawn.
        seed: Where drawing starts.

    Raises:
        UsageError: Without a seed, without a labelled row, and for unequal lengths.
    """
    if resamples < 1:
        raise UsageError(f"resamples must be at least 1, not {resamples}")
    if not predicted_by_seed:
        raise UsageError("there are no predictions to score")
    known = _labelled(given)
    if len(origins) != len(known):
        raise UsageError(f"{len(origins)} origins for {len(known)} labels")
    runs = [metric(*_paired(predicted, given)) for predicted in predicted_by_seed]
    drawn = _resampled(
        [origin for origin, is_known in zip(origins, known, strict=True) if is_known], runs, resamples, seed
    )
    values = [_values(parts) for parts in runs]
    return {name: _interval([run[name] for run in values], drawn[name]) for name in values[0]}


def sentiment_result(
    predicted: Mapping[str, npt.ArrayLike],
    given: npt.ArrayLike,
    origins: Sequence[str],
    scale: Scale,
    resamples: int = 1000,
    seed: int = 0,
) -> Result:
    """Return `sentiment_metrics` of the predictions of each training seed, with intervals as `intervals` draws them."""
    runs = {name: np.asarray(values, dtype=np.float64) for name, values in predicted.items()}
    return _result(sentiment_metric(scale), f"scale:{scale}", runs, given, origins, (resamples, seed))


def class_result(
    predicted: Mapping[str, Sequence[str]],
    given: Sequence[str | None],
    origins: Sequence[str],
    labels: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> Result:
    """Return `class_metrics` of the predictions of each training seed, with intervals as `intervals` draws them."""
    runs = {name: codes(values, labels) for name, values in predicted.items()}
    return _result(
        class_metric(labels), f"classes:{len(labels)}", runs, codes(given, labels), origins, (resamples, seed)
    )


def circumplex_result(
    predicted: Mapping[str, npt.ArrayLike],
    given: npt.ArrayLike,
    origins: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> Result:
    """Return `circumplex_metrics` of the predictions of each training seed, with intervals as `intervals` draws them."""
    runs = {name: np.asarray(values, dtype=np.float64) for name, values in predicted.items()}
    return _result(circumplex_metric, "scale:circumplex", runs, given, origins, (resamples, seed))


# --- what the metrics add up ---


def sentiment_metric(scale: Scale) -> Metric:
    """Return the parts of `sentiment_metrics` on this scale, for `intervals`."""
    if scale not in SCALES:
        raise UnknownName("scale", scale, SCALES)
    return _mosi if scale == "mosi" else _sims


def class_metric(labels: Sequence[str]) -> Metric:
    """Return the parts of `class_metrics`, for `intervals`; it takes `codes`, not names."""

    def parts(predicted: Floats, given: Floats) -> list[Part]:
        pair = predicted.astype(np.intp), given.astype(np.intp)
        return [
            _accuracy("accuracy", *pair),
            _f1("macro_f1", *pair, classes=len(labels), average="macro"),
            _f1("weighted_f1", *pair, classes=len(labels)),
        ]

    return parts


def circumplex_metric(predicted: Floats, given: Floats) -> list[Part]:
    """Return the parts of `circumplex_metrics`, for `intervals`."""
    if predicted.shape[1:] != (2,):
        raise UsageError(f"valence and arousal are two columns, not an array of shape {predicted.shape}")
    axes = [_agreement(predicted[:, axis], given[:, axis]) for axis in range(2)]

    def finish(sums: Floats) -> dict[str, Floats]:
        halves = np.split(sums, 2, axis=1)
        found = {name: part.finish(half) for name, part, half in zip(_AXES, axes, halves, strict=True)}
        named = {f"{axis}_{key}": found[axis][key] for axis in _AXES for key in ("mae", "corr", "ccc")}
        return named | {"ccc": np.mean([found[axis]["ccc"] for axis in _AXES], axis=0)}

    return [Part(np.hstack([part.rows for part in axes]), finish)]


def _mosi(predicted: Floats, given: Floats) -> list[Part]:
    p, g = predicted.astype(np.float32), given.astype(np.float32)
    has0 = (p >= 0).astype(np.intp), (g >= 0).astype(np.intp)
    non0 = (p > 0).astype(np.intp), (g > 0).astype(np.intp)
    return [
        _only(_agreement(p, g), "mae", "corr"),
        _accuracy("acc2_has0", *has0),
        _accuracy("acc2_non0", *non0, keep=g != 0),
        _f1("f1_has0", *has0),
        _f1("f1_non0", *non0, keep=g != 0),
        _accuracy("acc5", _rounded(p, 2), _rounded(g, 2)),
        _accuracy("acc7", _rounded(p, 3), _rounded(g, 3)),
    ]


def _sims(predicted: Floats, given: Floats) -> list[Part]:
    p, g = (np.clip(values.astype(np.float32), -1, 1) for values in (predicted, given))
    binned = {bins: (_binned(p, edges), _binned(g, edges)) for bins, edges in _SIMS_EDGES.items()}
    return [
        _only(_agreement(p, g), "mae", "corr"),
        *(_accuracy(f"acc{bins}", *pair) for bins, pair in binned.items()),
        _f1("f1", *binned[2]),
        _accuracy("acc2_weak", *binned[2], keep=np.abs(g) <= np.float32(WEAK)),
        _only(_agreement(p, g), "r2"),
    ]


def _rounded(values: npt.NDArray[np.float32], limit: int) -> Ints:
    """Clip, then round halves to the even number."""
    return np.round(np.clip(values, -limit, limit)).astype(np.intp)


def _binned(values: npt.NDArray[np.float32], edges: Sequence[float]) -> Ints:
    """Return the bin of each value; an edge belongs to the bin below it."""
    return np.searchsorted(np.asarray(edges, dtype=np.float32), values, side="left")


def _accuracy(name: str, predicted: Ints, given: Ints, keep: npt.NDArray[np.bool_] | None = None) -> Part:
    kept = np.ones(len(given), dtype=bool) if keep is None else keep
    rows = np.stack([kept, kept & (predicted == given)], axis=1).astype(np.float64)
    return Part(rows, lambda sums: {name: _percent(sums[:, 1], sums[:, 0])})


def _f1(
    name: str,
    predicted: Ints,
    given: Ints,
    keep: npt.NDArray[np.bool_] | None = None,
    classes: int = 2,
    average: Literal["weighted", "macro"] = "weighted",
) -> Part:
    """F1 of every class from the table of given by predicted, averaged."""
    rows = np.eye(classes * classes)[given * classes + predicted]
    if keep is not None:
        rows *= keep[:, None]

    def finish(sums: Floats) -> dict[str, Floats]:
        table = sums.reshape(len(sums), classes, classes)
        annotated, guessed = table.sum(axis=2), table.sum(axis=1)
        f1 = 2 * np.einsum("bii->bi", table) / np.maximum(annotated + guessed, 1.0)
        weights = annotated if average == "weighted" else (annotated + guessed > 0).astype(np.float64)
        return {name: _percent((f1 * weights).sum(axis=1), weights.sum(axis=1))}

    return Part(rows, finish)


def _percent(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, 100.0 * part / np.maximum(whole, 1.0), np.nan)


def _agreement(predicted: npt.NDArray[Any], given: npt.NDArray[Any]) -> Part:
    """MAE, Corr, CCC and R² from moments about the means of all rows, so that little is lost in subtracting."""
    p, g = predicted.astype(np.float64), given.astype(np.float64)
    gap, x, y = p - g, p - p.mean(), g - g.mean()
    rows = np.stack([np.ones(len(x)), np.abs(gap), gap, gap * gap, x, y, x * x, y * y, x * y], axis=1)
    return Part(rows, _moments)


def _moments(sums: Floats) -> dict[str, Floats]:
    absolute, gap, square, x, y, xx, yy, xy = sums[:, 1:].T / sums[:, 0]
    spread_x, spread_y = _variance(xx, x), _variance(yy, y)
    together = xy - x * y
    either = (spread_x > 0) & (spread_y > 0)
    corr = np.where(either, np.clip(_over(together, np.sqrt(spread_x * spread_y)), -1, 1), 0.0)
    ccc = np.where(either, np.clip(_over(2 * together, spread_x + spread_y + gap * gap), -1, 1), 0.0)
    # Labels without spread leave nothing to explain: 1 for exact predictions, else 0, as in scikit-learn.
    r2 = np.where(spread_y > 0, 1 - _over(square, spread_y), (square == 0).astype(np.float64))
    return {"mae": absolute, "corr": corr, "ccc": ccc, "r2": r2}


def _variance(mean_square: Floats, mean: Floats) -> Floats:
    variance = mean_square - mean * mean
    return np.where(variance <= _NO_SPREAD * mean_square, 0.0, variance)


def _over(part: Floats, whole: Floats) -> Floats:
    return part / np.where(whole > 0, whole, 1.0)


def _only(part: Part, *names: str) -> Part:
    def finish(sums: Floats) -> dict[str, Floats]:
        found = part.finish(sums)
        return {name: found[name] for name in names}

    return Part(part.rows, finish)


# --- checking, resampling ---


def _labelled(given: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which rows have every label; raise UsageError if none has."""
    labels = np.atleast_1d(np.asarray(given, dtype=np.float64))
    known = np.asarray(~np.isnan(labels).any(axis=tuple(range(1, labels.ndim))), dtype=np.bool_)
    if not known.any():
        raise UsageError("there is no labelled row to score")
    return known


def _paired(predicted: npt.ArrayLike, given: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return predictions and labels of the labelled rows."""
    p, g = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (predicted, given))
    if p.shape != g.shape:
        raise UsageError(f"predictions of shape {p.shape} for labels of shape {g.shape}")
    known = _labelled(g)
    if not all((np.abs(values[known]) <= np.finfo(np.float32).max).all() for values in (p, g)):
        raise UsageError("a prediction or label is not a finite number of 32 bits")
    return p[known], g[known]


def _whole(metric: Metric, predicted: npt.ArrayLike, given: npt.ArrayLike) -> dict[str, float]:
    return _values(metric(*_paired(predicted, given)))


def _values(parts: Sequence[Part]) -> dict[str, float]:
    """The metrics of all rows, each once, without those that have nothing to score."""
    found = {name: float(value[0]) for name, value in _finished([part.rows for part in parts], parts, None).items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _finished(tables: Sequence[Floats], parts: Sequence[Part], counts: Floats | None) -> dict[str, Floats]:
    """The metrics of tables whose rows are counted so often, counts being (resamples, rows); None counts each once."""
    found: dict[str, Floats] = {}
    for table, part in zip(tables, parts, strict=True):
        found |= part.finish(table.sum(axis=0, keepdims=True) if counts is None else counts @ table)
    return found


def _resampled(origins: Sequence[str], runs: Sequence[Sequence[Part]], resamples: int, seed: int) -> dict[str, Floats]:
    """The mean over runs of each metric in each resample of videos."""
    names, video_of = np.unique(np.asarray(origins), return_inverse=True)
    tables = [[_by_video(part.rows, video_of, len(names)) for part in parts] for parts in runs]
    pieces = []
    for counts in _counts(len(names), resamples, seed):
        found = [_finished(table, parts, counts) for table, parts in zip(tables, runs, strict=True)]
        pieces.append({name: np.mean([run[name] for run in found], axis=0) for name in found[0]})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _by_video(rows: Floats, video_of: Ints, videos: int) -> Floats:
    table = np.zeros((videos, rows.shape[1]))
    np.add.at(table, video_of, rows)
    return table


def _counts(videos: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each video is drawn, (some resamples, videos), until there are `resamples`."""
    random = np.random.default_rng(seed)
    step = max(1, _COUNTS_AT_ONCE // videos)
    for start in range(0, resamples, step):
        drawn = random.integers(videos, size=(min(step, resamples - start), videos))
        yield np.stack([np.bincount(row, minlength=videos) for row in drawn]).astype(np.float64)


def _interval(values: Sequence[float], drawn: Floats) -> Interval:
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    kept = drawn[~np.isnan(drawn)]
    ends = np.percentile(kept, [50 - INTERVAL / 2, 50 + INTERVAL / 2]) if len(kept) else (mean, mean)
    # Nine digits, so that what is 100 does not read 100.00000000000004.
    return Interval(*(round(float(number), 9) for number in (mean, sd, *ends)))


def _result(
    metric: Metric,
    what: str,
    runs: Mapping[str, npt.ArrayLike],
    given: npt.ArrayLike,
    origins: Sequence[str],
    bootstrap: tuple[int, int],
) -> Result:
    found = intervals(metric, list(runs.values()), given, origins, *bootstrap)
    known = _labelled(given)
    videos = len({origin for origin, is_known in zip(origins, known, strict=True) if is_known})
    drawn = (
        f"seeds:{len(runs)}|videos:{videos}|bs:{bootstrap[0]}|seed:{bootstrap[1]}|ci:{INTERVAL:g}|elmd:{__version__}"
    )
    return Result(
        n=int(known.sum()),
        scores=tuple(
            Score(name, i.mean, i.low, i.high, f"{what}{_average(name)}|{drawn}") for name, i in found.items()
        ),
        sd={name: interval.sd for name, interval in found.items()},
        seeds={run: _rounded_values(_whole(metric, predicted, given)) for run, predicted in runs.items()},
    )


def _average(name: str) -> str:
    return f"|f1:{'macro' if name.startswith('macro') else 'weighted'}" if "f1" in name else ""


def _rounded_values(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 9) for name, value in values.items()}
