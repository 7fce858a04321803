"""Sentiment metrics: what MMSA itself computed, a second implementation with other libraries, and the field's traps."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmd import __version__
from elmd.errors import ElmdError, UnknownName, UsageError
from elmd.labels import EKMAN, POLARITY
from elmd.plots import PLOT_SUFFIXES
from elmd.sentiment import report
from elmd.sentiment.metrics import (
    Result,
    circumplex_metric,
    circumplex_metrics,
    circumplex_result,
    class_metric,
    class_metrics,
    class_result,
    codes,
    intervals,
    sentiment_metric,
    sentiment_metrics,
    sentiment_result,
)

PLAIN = ("mae", "corr", "r2")
"""The metrics that are not in percent."""

STEPS = np.arange(686)
# Zeros, halves, values outside the scale, and values on the edges of bins.
DATA = {
    "mosi": (
        [-3.6, -2.5, -2.4, -1.5, -1.2, -0.5, -0.3, 0, 0, 0.1, 0.5, 0.5, 0.8, 1.5, 1.5, 2.5, 2.6, 3.4, -0.0, 1],
        [-3.0, -2.6, -1.0, -2.0, -0.2, 0.5, 0, 0, 0.2, -0.4, 1, 0, 1.5, 2.5, 1.4, 2.0, 3.0, 2.8, -0.6, 0],
    ),
    "sims": (
        [-1.3, -0.7, -0.71, -0.4, -0.1, -0.11, 0, 0, 0.05, 0.1, 0.11, 0.3, 0.7, 0.71, 1.2, 0, -0.2, 0.4, 0.09, -0.9],
        [-1.0, -0.8, -0.6, -0.7, -0.2, 0, 0, 0.2, -0.4, 0, 0.4, 0.1, 0.6, 0.8, 1, -1, 0.4, 0.7, -0.1, -0.7],
    ),
    "mosi waves": (3 * np.sin(STEPS * 0.37) + np.sin(STEPS * 1.9), np.round(9 * np.sin(STEPS * 0.37)) / 3),
    "sims waves": (np.sin(STEPS * 0.37) + 0.5 * np.sin(STEPS * 1.9), np.round(5 * np.sin(STEPS * 0.37)) / 5),
}

# What MetricsTop("regression") of MMSA 2.2.1 (PyPI) returned for these data as float32 tensors; it rounds to 4 digits.
# `acc2_weak` and `r2` by the formulas of utils/metricsTop.py of thuiar/ch-sims-v2.
MMSA = {
    "mosi": {
        "mae": 0.575, "corr": 0.9244, "acc2_has0": 0.8, "acc2_non0": 0.8125, "f1_has0": 0.8, "f1_non0": 0.8132,
        "acc5": 0.65, "acc7": 0.6,
    },
    "sims": {
        "mae": 0.222, "corr": 0.8419, "acc2": 0.75, "acc3": 0.65, "acc5": 0.55, "f1": 0.7519,
        "acc2_weak": 0.5, "r2": 0.705,
    },
    "mosi waves": {
        "mae": 0.6434, "corr": 0.9475, "acc2_has0": 0.9402, "acc2_non0": 0.9531, "f1_has0": 0.9403, "f1_non0": 0.9531,
        "acc5": 0.6837, "acc7": 0.4475,
    },
    "sims waves": {
        "mae": 0.2589, "corr": 0.9009, "acc2": 0.898, "acc3": 0.8324, "acc5": 0.5131, "f1": 0.898,
        "acc2_weak": 0.693, "r2": 0.8066,
    },
}  # fmt: skip


def random_data(scale: str, seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Labels in the scale's steps, predictions about them: some outside the scale, some exactly 0, some halves."""
    random = np.random.default_rng(seed)
    top, step = (3.0, 1 / 3) if scale == "mosi" else (1.0, 0.2)
    labels = np.round(random.uniform(-top, top, n) / step) * step
    guesses = labels + random.normal(0, top / 3, n)
    guesses = np.where(random.random(n) < 0.2, np.round(guesses * 2) / 2, guesses)
    return guesses, labels


def ratio(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value / (1 if name in PLAIN else 100) for name, value in metrics.items()}


# --- a second implementation ---


def other_mosi(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

    nonzero = y != 0
    rounded = {k: [[round(float(v)) for v in np.clip(x, -k, k)] for x in (y, p)] for k in (2, 3)}
    return {
        "mae": mean_absolute_error(y, p),
        "corr": pearsonr(p, y).statistic,
        "acc2_has0": accuracy_score(y >= 0, p >= 0),
        "acc2_non0": accuracy_score(y[nonzero] > 0, p[nonzero] > 0),
        "f1_has0": f1_score(y >= 0, p >= 0, average="weighted"),
        "f1_non0": f1_score(y[nonzero] > 0, p[nonzero] > 0, average="weighted"),
        "acc5": accuracy_score(*rounded[2]),
        "acc7": accuracy_score(*rounded[3]),
    }


def other_sims(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    pandas = pytest.importorskip("pandas")
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

    p, y = np.clip(p, -1, 1), np.clip(y, -1, 1)

    def cut(values: np.ndarray, *edges: float) -> np.ndarray:
        return np.asarray(pandas.cut(values, [-1.01, *edges, 1.01], labels=False))

    weak = (y > -0.401) & (y < 0.401)
    return {
        "mae": mean_absolute_error(y, p),
        "corr": pearsonr(p, y).statistic,
        "acc2": accuracy_score(cut(y, 0), cut(p, 0)),
        "acc3": accuracy_score(cut(y, -0.1, 0.1), cut(p, -0.1, 0.1)),
        "acc5": accuracy_score(cut(y, -0.7, -0.1, 0.1, 0.7), cut(p, -0.7, -0.1, 0.1, 0.7)),
        "f1": f1_score(cut(y, 0), cut(p, 0), average="weighted"),
        "acc2_weak": accuracy_score(cut(y[weak], 0), cut(p[weak], 0)),
        "r2": r2_score(y, p),
    }


def other_ccc(p: np.ndarray, y: np.ndarray) -> float:
    return float(2 * np.cov(p, y, bias=True)[0, 1] / (p.var() + y.var() + (p.mean() - y.mean()) ** 2))


# --- agreement ---


@pytest.mark.parametrize("name", DATA)
def test_the_numbers_are_those_of_mmsa(name):
    found = ratio(sentiment_metrics(*DATA[name], name.split()[0]))
    assert list(found) == list(MMSA[name])
    assert found == pytest.approx(MMSA[name], abs=5.1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("scale", "other"), [("mosi", other_mosi), ("sims", other_sims)])
def test_the_numbers_are_those_of_other_libraries(scale, other, seed):
    p, y = random_data(scale, seed)
    assert ratio(sentiment_metrics(p, y, scale)) == pytest.approx(other(p, y), abs=1e-6)


@pytest.mark.parametrize("labels", [POLARITY, EKMAN])
def test_class_metrics_are_those_of_scikit_learn(labels):
    from sklearn.metrics import accuracy_score, f1_score

    random = np.random.default_rng(0)
    # The last class is neither given nor predicted: it must not enter the macro average.
    y, p = (random.choice(labels[:-1], 200) for _ in range(2))
    expected = {
        "accuracy": accuracy_score(y, p),
        "macro_f1": f1_score(y, p, average="macro"),
        "weighted_f1": f1_score(y, p, average="weighted"),
    }
    assert ratio(class_metrics(p, y, labels)) == pytest.approx(expected, abs=1e-12)


def test_circumplex_metrics_are_those_of_the_formulas():
    random = np.random.default_rng(1)
    y = random.uniform(-1, 1, (200, 2))
    p = 0.5 * y + 0.2 + random.normal(0, 0.2, (200, 2))
    found = circumplex_metrics(p, y)
    for axis, name in enumerate(("valence", "arousal")):
        assert found[f"{name}_mae"] == pytest.approx(np.abs(p - y)[:, axis].mean())
        assert found[f"{name}_corr"] == pytest.approx(np.corrcoef(p[:, axis], y[:, axis])[0, 1])
        assert found[f"{name}_ccc"] == pytest.approx(other_ccc(p[:, axis], y[:, axis]))
    assert found["ccc"] == pytest.approx((found["valence_ccc"] + found["arousal_ccc"]) / 2)
    assert found["ccc"] < found["valence_corr"]


# --- traps ---


def test_halves_go_to_the_even_number():
    # 0.5 is class 0, 1.5 and 2.5 class 2; rounding halves up would find no hit.
    assert sentiment_metrics([0.5, 1.5, 2.5], [0.0, 2.0, 2.0], "mosi")["acc7"] == 100
    assert sentiment_metrics([0.5, 1.5, 2.5], [1.0, 1.0, 3.0], "mosi")["acc7"] == 0


def test_acc5_clips_before_it_compares():
    assert sentiment_metrics([3.0, -3.0], [2.0, -2.0], "mosi")["acc5"] == 100
    assert sentiment_metrics([3.0, -3.0], [2.0, -2.0], "mosi")["acc7"] == 0


def test_a_predicted_zero_is_positive_with_zeros_and_negative_without():
    found = sentiment_metrics([0.0, 0.0], [1.0, 0.0], "mosi")
    assert (found["acc2_has0"], found["acc2_non0"]) == (100, 0)


def test_zero_is_negative_on_sims():
    assert sentiment_metrics([0.0, 0.0], [-1.0, 0.2], "sims")["acc2"] == 50


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_lies_on_an_edge_does_not_depend_on_the_precision_it_was_stored_in(kind):
    p, y = np.asarray([0.1, -0.1, 0.7], dtype=kind), np.asarray([0.0, -0.4, 0.4], dtype=kind)
    found = sentiment_metrics(p.astype(np.float64), y.astype(np.float64), "sims")
    assert found["acc5"] == found["acc3"] == 100
    assert found["acc2_weak"] == pytest.approx(200 / 3)


def test_sims_clips_and_mosi_does_not():
    assert sentiment_metrics([5.0, -5.0], [1.0, -1.0], "sims")["mae"] == 0
    assert sentiment_metrics([5.0, -5.0], [3.0, -3.0], "mosi")["mae"] == 2


def test_f1_weighs_by_what_is_given():
    # Nine of ten are negative; "positive" is always said. Weighed by predictions it would read 18.2.
    assert sentiment_metrics([1.0] * 10, [-1.0] * 9 + [1.0], "sims")["f1"] == pytest.approx(100 * 0.1 * 2 / 11)


@pytest.mark.parametrize("constant", [0.3, 0.1, 2.0, 0.0])
def test_constant_predictions_have_no_correlation(constant):
    labels = np.linspace(-1, 1, 33)
    for scale in ("mosi", "sims"):
        assert sentiment_metrics([constant] * 33, labels, scale)["corr"] == 0
        assert sentiment_metrics(labels, [constant] * 33, scale)["corr"] == 0
    assert circumplex_metrics([[constant] * 2] * 33, np.stack([labels, labels], axis=1))["ccc"] == 0


def test_a_small_spread_is_not_taken_for_none():
    labels = np.linspace(-1, 1, 33)
    assert sentiment_metrics(0.5 + 1e-4 * labels, labels, "mosi")["corr"] == pytest.approx(1, abs=1e-4)


def test_rows_without_label_are_left_out():
    whole = sentiment_metrics([0.5, -1.0, 2.0], [1.0, -1.0, 0.4], "mosi")
    assert sentiment_metrics([0.5, 3.0, -1.0, 2.0, math.nan], [1.0, math.nan, -1.0, 0.4, math.nan], "mosi") == whole
    assert class_metrics(["neutral", "positive"], [None, "positive"], POLARITY)["accuracy"] == 100
    assert circumplex_metrics([[1, 1], [0, 1], [1, 0]], [[math.nan, 1], [0, 1], [1, 0]])["ccc"] == 1


def test_a_metric_without_rows_is_left_out():
    assert set(sentiment_metrics([1.0, 2.0], [0.0, 0.0], "mosi")) == {
        "mae", "corr", "acc2_has0", "f1_has0", "acc5", "acc7",
    }  # fmt: skip
    assert "acc2_weak" not in sentiment_metrics([1.0, 2.0], [1.0, -1.0], "sims")


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [([], []), ([1.0], [math.nan]), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([math.inf], [1.0]), ([1e39], [1.0])],
)
@pytest.mark.parametrize("scale", ["mosi", "sims"])
def test_what_cannot_be_scored_is_refused(predicted, labels, scale):
    with pytest.raises(UsageError):
        sentiment_metrics(predicted, labels, scale)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="scale"):
        sentiment_metrics([1.0], [1.0], "mosei")
    with pytest.raises(UnknownName, match="did you mean 'positive'"):
        class_metrics(["positiv"], ["positive"], POLARITY)
    with pytest.raises(UsageError, match="two columns"):
        circumplex_metrics([1.0], [1.0])


# --- invariants ---


def numbers(top: float) -> st.SearchStrategy[list[tuple[float, float]]]:
    number = st.one_of(st.floats(-top, top, width=32), st.sampled_from([0.0, -0.5, 0.5, -0.1, 0.1, -0.4, 0.4, 0.7]))
    return st.lists(st.tuples(number, number), min_size=1, max_size=40)


@pytest.mark.parametrize("scale", ["mosi", "sims"])
@given(rows=numbers(4))
def test_no_metric_is_nan_or_out_of_range(scale, rows):
    for name, value in sentiment_metrics(*np.asarray(rows).T, scale).items():
        assert math.isfinite(value)
        assert name in PLAIN or 0 <= value <= 100 + 1e-9
    assert -1 <= sentiment_metrics(*np.asarray(rows).T, scale)["corr"] <= 1


@pytest.mark.parametrize("scale", ["mosi", "sims"])
@given(rows=numbers(4))
def test_perfect_predictions_are_perfect(scale, rows):
    labels = [label for label, _ in rows]
    for name, value in sentiment_metrics(labels, labels, scale).items():
        if name != "corr":
            assert value == pytest.approx(0 if name == "mae" else 1 if name == "r2" else 100)


@pytest.mark.parametrize("scale", ["mosi", "sims"])
@given(rows=st.permutations(list(zip(*DATA["mosi"], strict=True))))
def test_the_order_of_rows_does_not_matter(scale, rows):
    found = sentiment_metrics(*zip(*rows, strict=True), scale)
    assert found == pytest.approx(sentiment_metrics(*DATA["mosi"], scale), abs=1e-9)


@given(rows=st.lists(st.tuples(st.sampled_from(EKMAN), st.sampled_from(EKMAN)), min_size=1, max_size=30))
def test_class_metrics_lie_in_range(rows):
    p, y = zip(*rows, strict=True)
    assert all(0 <= value <= 100 + 1e-9 for value in class_metrics(p, y, EKMAN).values())
    assert class_metrics(y, y, EKMAN) == pytest.approx({"accuracy": 100, "macro_f1": 100, "weighted_f1": 100})


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), scale=st.sampled_from(["mosi", "sims"]))
def test_intervals_of_wide_data_contain_the_value(seed, scale):
    p, y = random_data(scale, seed, 240)
    videos = [f"v{i % 40}" for i in range(240)]
    for interval in intervals(sentiment_metric(scale), [p], y, videos, resamples=200).values():
        assert interval.low <= interval.mean <= interval.high
        assert interval.low < interval.high


# --- seeds and videos ---


def seeds(scale: str, count: int = 3, n: int = 120) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    _, y = random_data(scale, 0, n)
    noise = np.random.default_rng(5)
    runs = {str(i): y + noise.normal(0, 0.4 * y.std(), n) for i in range(count)}
    return runs, y, [f"v{i // 6}" for i in range(n)]


def test_the_interval_is_that_of_resampling_row_by_row():
    runs, y, videos = seeds("mosi")
    found = intervals(sentiment_metric("mosi"), list(runs.values()), y, videos, resamples=60, seed=3)
    names = sorted(set(videos))
    random = np.random.default_rng(3)
    means = []
    for drawn in random.integers(len(names), size=(60, len(names))):
        rows = np.concatenate([[i for i, video in enumerate(videos) if video == names[place]] for place in drawn])
        means.append(
            np.mean([list(sentiment_metrics(p[rows], y[rows], "mosi").values()) for p in runs.values()], axis=0)
        )
    for name, column in zip(found, np.transpose(means), strict=True):
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.percentile(column, [2.5, 97.5])), abs=1e-6)


def test_mean_and_deviation_are_over_seeds():
    runs, y, videos = seeds("sims")
    found = intervals(sentiment_metric("sims"), list(runs.values()), y, videos, resamples=5)
    each = [sentiment_metrics(p, y, "sims") for p in runs.values()]
    for name, interval in found.items():
        values = [metrics[name] for metrics in each]
        assert (interval.mean, interval.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-8)
    alone = intervals(sentiment_metric("sims"), [y], y, videos, resamples=5)
    assert {interval.sd for interval in alone.values()} == {0}


def test_intervals_do_not_depend_on_the_order_of_rows():
    runs, y, videos = seeds("sims", 2)
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = [p[order] for p in runs.values()], y[order], [videos[i] for i in order]
    straight = intervals(sentiment_metric("sims"), list(runs.values()), y, videos, resamples=50)
    again = intervals(sentiment_metric("sims"), *shuffled, resamples=50)
    for name, interval in straight.items():
        assert (again[name].low, again[name].high) == pytest.approx((interval.low, interval.high), abs=1e-8)


def test_videos_are_drawn_as_wholes():
    # Every row of a video is equally wrong: the more rows a video has, the fewer different draws there are.
    y = np.tile([-1.0, 1.0], 60)
    p = y + np.repeat([0.0, 1.0], 60)
    few = intervals(sentiment_metric("mosi"), [p], y, [f"v{i // 30}" for i in range(120)])["mae"]
    many = intervals(sentiment_metric("mosi"), [p], y, [f"v{i}" for i in range(120)])["mae"]
    assert few.high - few.low > 2 * (many.high - many.low)


def test_a_single_video_and_unlabelled_rows_can_be_resampled():
    found = intervals(sentiment_metric("mosi"), [[1.0, 0.0, 3.0]], [1.0, math.nan, 2.0], ["a", "b", "a"], resamples=5)
    assert found["mae"].low == found["mae"].mean == found["mae"].high == 0.5


def test_resamples_with_nothing_to_score_are_left_out():
    # Only the video "a" has labels other than 0.
    y, p = [1.0, -1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]
    found = intervals(sentiment_metric("mosi"), [p], y, list("aabcd"), resamples=100)["acc2_non0"]
    assert (found.low, found.mean, found.high) == (50, 50, 50)


def test_classes_and_the_circumplex_can_be_resampled():
    labels = codes(["positive", "negative", None, "neutral"] * 10, POLARITY)
    guesses = codes(["positive", "neutral", "neutral", "neutral"] * 10, POLARITY)
    videos = [f"v{i // 8}" for i in range(40)]
    assert intervals(class_metric(POLARITY), [guesses], labels, videos)["accuracy"].mean == pytest.approx(200 / 3)
    both = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    assert intervals(circumplex_metric, [both], both, videos)["ccc"].low == pytest.approx(1)


def test_what_cannot_be_resampled_is_refused():
    metric = sentiment_metric("mosi")
    with pytest.raises(UsageError, match="resamples"):
        intervals(metric, [[1.0]], [1.0], ["a"], resamples=0)
    with pytest.raises(UsageError, match="no predictions"):
        intervals(metric, [], [1.0], ["a"])
    with pytest.raises(UsageError, match="2 origins for 1"):
        intervals(metric, [[1.0]], [1.0], ["a", "b"])
    with pytest.raises(UsageError, match="no labelled row"):
        intervals(metric, [[1.0]], [math.nan], ["a"])


# --- results and reports ---


def results() -> dict[str, Result]:
    runs, y, videos = seeds("mosi")
    return {
        "good": sentiment_result(runs, y, videos, "mosi", resamples=50),
        "poor | noisy": sentiment_result({s: 0.2 * p[::-1] for s, p in runs.items()}, y, videos, "mosi", resamples=50),
    }


def test_a_result_is_json_with_signatures():
    found = json.loads(json.dumps(results()["good"].to_json()))
    assert list(found) == ["n", "scores", "sd", "seeds"]
    assert found["n"] == 120
    assert list(found["scores"][0]) == ["name", "value", "low", "high", "signature"]
    signatures = {score["name"]: score["signature"] for score in found["scores"]}
    drawn = f"seeds:3|videos:20|bs:50|seed:0|ci:95|elmd:{__version__}"
    assert signatures["mae"] == f"scale:mosi|{drawn}"
    assert signatures["f1_non0"] == f"scale:mosi|f1:weighted|{drawn}"
    assert set(found["seeds"]) == {"0", "1", "2"}
    mean = np.mean([metrics["mae"] for metrics in found["seeds"].values()])
    assert found["scores"][0]["value"] == pytest.approx(mean)
    assert found["sd"]["mae"] > 0


def test_results_of_classes_and_the_circumplex():
    of_classes = class_result({"0": ["neutral", "positive"]}, ["neutral", None], ["a", "b"], POLARITY, resamples=5)
    assert of_classes.n == 1
    assert [score.value for score in of_classes.scores] == [100, 100, 100]
    assert of_classes.scores[1].signature.startswith("classes:3|f1:macro|seeds:1|videos:1|")
    square = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    assert circumplex_result({"0": square}, square, ["a", "b"], resamples=5).seeds["0"]["ccc"] == 1


def test_the_markdown_table_shows_spread_and_the_best():
    found = results()
    lines = report.markdown(found).splitlines()
    assert lines[0].startswith("| system | n | MAE ↓ | Corr ↑ | Acc-2 has0 ↑ |")
    mae = next(score for score in found["good"].scores if score.name == "mae")
    assert f"| good | 120 | **{mae.value:.3f} ± {found['good'].sd['mae']:.3f}** |" in lines[2]
    assert "**" not in lines[3]
    assert lines[3].startswith(r"| poor \| noisy | 120 |")
    assert "3 seeds" in lines[-1]


def test_one_system_of_one_seed_has_no_best_and_no_spread():
    runs, y, videos = seeds("sims", 1)
    text = report.markdown({"only": sentiment_result(runs, y, videos, "sims", resamples=5)})
    assert "**" not in text
    assert "±" not in text
    assert text.endswith("One seed; accuracies and F1 in percent.\n")


def test_systems_on_different_scales_leave_gaps():
    runs, y, videos = seeds("sims", 1)
    text = report.markdown(results() | {"sims": sentiment_result(runs, y, videos, "sims", resamples=5)})
    assert "| – |" in text
    assert "over 1–3 seeds" in text


def test_the_terminal_table_has_the_same_numbers():
    from rich.console import Console

    console = Console(width=250, record=True)
    console.print(report.table(results()))
    shown = console.export_text()
    assert "poor | noisy" in shown
    assert "Acc-7 ↑" in shown
    assert "±" in shown


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
def test_the_plot_is_written(tmp_path: Path, suffix: str):
    path = tmp_path / "new" / f"plot{suffix}"
    report.plot(results(), path)
    assert path.stat().st_size > 1000
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"ends in \.png"):
        report.plot(results(), tmp_path / "plot.txt")
    with pytest.raises(UsageError, match="none of the results has ccc"):
        report.plot(results(), tmp_path / "plot.png", ["ccc"])
    with pytest.raises(UsageError, match="no results"):
        report.markdown({})
    (tmp_path / "file").touch()
    with pytest.raises(ElmdError, match="cannot write"):
        report.plot(results(), tmp_path / "file" / "plot.png")
