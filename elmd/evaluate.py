"""Evaluation: replies beside what people answered, every score with its signature, interval and baselines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from elmd import __version__
from elmd.config import Strict
from elmd.errors import BadData, UsageError
from elmd.files import OnBad, read_dialogues, read_jsonl, stop, to_dict
from elmd.labels import check_label
from elmd.metrics import Measure, Settings
from elmd.plots import check_plot_path, new_figure, save_figure
from elmd.text import detect_language
from elmd.types import Dialogue, Judged, Language, Score
from elmd.zoo import EMBEDDERS, METRICS

CONSTANT_REPLIES: Mapping[Language, str] = {"zh": "我不知道。", "en": "I don't know."}
"""A reply that fits most questions: a system that loses to it on a score has shown nothing by that score."""

INTERVAL = 95.0
"""Percent of the bootstrap that lies between a score's `low` and `high`."""

PLOTTED = ("bleu_2", "bleu_4", "rouge_l", "meteor", "chrf", "distinct_2", "embedding_f1")
"""How the names of the scores drawn by default begin."""


_COUNTS_AT_ONCE = 1_000_000
"""Bounds memory: resamples times rows that are worked on at a time."""

Floats = npt.NDArray[np.float64]


class Encoder(Protocol):
    """What the metric "embedding" needs of an embedder."""

    name: str

    def token_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return (tokens, dimension) float32 for each text."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn: how often, and from which seed."""

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UsageError(f"resamples must be at least 1, not {self.resamples}")


@dataclass(frozen=True, slots=True)
class Replies:
    """A replies file: what is judged, and by id the reply of each row's first demonstration."""

    rows: tuple[Judged, ...]
    retrieved: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of `n` replies, and by baseline ("constant", "retrieval") what it gets on the same rows."""

    n: int
    scores: tuple[Score, ...]
    baselines: Mapping[str, tuple[Score, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return the report as `elmd evaluate --json` prints it."""
        return {
            "n": self.n,
            "scores": [to_dict(score) for score in self.scores],
            "baselines": {name: [to_dict(score) for score in scores] for name, scores in self.baselines.items()},
        }


class Run(Strict):
    """The settings of one evaluation, as its `run.toml` keeps them."""

    replies: str
    references: str | None
    metrics: tuple[str, ...]
    resamples: int
    seed: int
    skip_bad: bool


def default_metrics() -> tuple[str, ...]:
    """Return every metric except the costly ones, which are scored only when asked for."""
    return tuple(name for name in METRICS.names() if not getattr(METRICS.load(name), "ON_DEMAND", False))


def default_encoder() -> Encoder:
    """Return elmd's sentence encoder; its weights are loaded when it is first used."""
    module = EMBEDDERS.load("e5")
    return cast(Encoder, module.Embedder(module.Config()))


def evaluate(
    rows: Sequence[Judged],
    metrics: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    bootstrap: Bootstrap | None = None,
) -> list[Score]:
    """Score replies; each language apart, with "zh_" and "en_" before the names when there is more than one.

    Intervals are percentiles of a bootstrap over dialogues (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap"): whole dialogues are drawn with replacement, because the replies of one resemble each other.

    Args:
        rows: Replies with references, in any order.
        metrics: Names of METRICS; by default `default_metrics()`.
        encoder: What "embedding" compares tokens with.
        bootstrap: By default 1000 resamples from seed 0.

    Raises:
        UnknownName: For a metric that is not there.
        UsageError: Without rows, and when none of the metrics has anything to score.
    """
    if not rows:
        raise UsageError("there are no replies to score")
    scores = _evaluate(rows, metrics, encoder, bootstrap or Bootstrap())
    if not scores:
        raise UsageError("none of these metrics has anything to score here (emotions need annotations)")
    return scores


def report(
    replies: Replies,
    metrics: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Score replies and, on the same rows, the baselines: a constant reply, and retrieval if there are demonstrations.

    Arguments and errors are those of `evaluate`; a baseline has no emotion scores.
    """
    rivals = {"constant": constant_rows(replies.rows)}
    if replies.retrieved:
        rivals["retrieval"] = retrieval_rows(replies.rows, replies.retrieved)
    own = evaluate(replies.rows, metrics, encoder, bootstrap)
    scored = {name: _evaluate(rows, metrics, encoder, bootstrap or Bootstrap()) for name, rows in rivals.items()}
    return Report(len(replies.rows), tuple(own), {name: tuple(scores) for name, scores in scored.items()})


def constant_rows(rows: Sequence[Judged]) -> list[Judged]:
    """Return the rows as if every reply were CONSTANT_REPLIES of its language."""
    return [_said(row, CONSTANT_REPLIES[row.language]) for row in rows]


def retrieval_rows(rows: Sequence[Judged], retrieved: Mapping[str, str]) -> list[Judged]:
    """Return the rows as if the first demonstration's reply were given; rows without one get the constant reply."""
    return [_said(row, retrieved.get(row.id, CONSTANT_REPLIES[row.language])) for row in rows]


def read_replies(path: Path, references: Path | None = None, on_bad: OnBad = stop) -> Replies:
    """Read the replies that `elmd generate` wrote, with references from their own lines or from dialogues.

    Each line holds "id" and "reply", and may hold "emotion" and "user_emotion" (a label, or an object with one),
    "reference", "reference_emotion", "given_user_emotion", "language", "origin" and "demonstrations".

    Args:
        path: JSON lines.
        references: Dialogue JSONL joined by id, cut into replies if its dialogues have no reference of their own;
            what it says of a reply goes before the line's own fields.
        on_bad: What to do with a line that cannot be used.

    Raises:
        BadData: With file and line, for a bad line or a reply without reference (unless `on_bad` passes over
            it), and when no line is left.
    """
    known = {d.id: d for whole in read_dialogues(references, on_bad) for d in whole.replies()} if references else {}
    judged: dict[str, Judged] = {}
    retrieved: dict[str, str] = {}
    for number, line in read_jsonl(path, on_bad):
        try:
            row = _judged(line, known, references)
            top = _top_reply(line)
            if row.id in judged:
                raise UsageError(f"id {row.id!r} is there twice")
        except UsageError as error:
            on_bad(BadData(path, number, str(error)))
            continue
        judged[row.id] = row
        if top is not None:
            retrieved[row.id] = top
    if not judged:
        raise BadData(path, None, "holds no reply that can be scored")
    return Replies(tuple(judged.values()), retrieved)


def plot(report: Report, path: Path, names: Sequence[str] | None = None) -> None:
    """Draw scores as horizontal bars with intervals, and the baselines as marks.

    Args:
        report: What is drawn.
        path: Ends in one of `elmd.plots.PLOT_SUFFIXES`.
        names: The scores to draw, top down; by default those of PLOTTED and the weighted F1 of emotions.

    Raises:
        UsageError: For another suffix, or when no score of these names is there.
        ElmdError: When the file cannot be written.
    """
    check_plot_path(path)
    scores = [score for score in report.scores if (score.name in names if names else _is_plotted(score.name))]
    if not scores:
        raise UsageError("none of the chosen scores can be drawn")
    figure = new_figure(8.0, 1.2 + 0.32 * len(scores))
    _draw(figure.add_subplot(), scores, report.baselines)
    save_figure(figure, path)


def _evaluate(
    rows: Sequence[Judged], metrics: Sequence[str] | None, encoder: Encoder | None, bootstrap: Bootstrap
) -> list[Score]:
    modules = [METRICS.load(name) for name in dict.fromkeys(default_metrics() if metrics is None else metrics)]
    languages = sorted({row.language for row in rows})
    scores: list[Score] = []
    for language in languages:
        # A fixed order, so that neither the drawing nor a rounding depends on the file's.
        spoken = sorted((row for row in rows if row.language == language), key=lambda row: (row.origin, row.id))
        settings = Settings(language, encoder.token_vectors, encoder.name) if encoder else Settings(language)
        measures = [measure for module in modules for measure in module.scorer(spoken, settings)]
        prefix = f"{language}_" if len(languages) > 1 else ""
        scores += _scores(measures, [row.origin for row in spoken], prefix, bootstrap)
    return scores


def _scores(measures: Sequence[Measure], origins: Sequence[str], prefix: str, bootstrap: Bootstrap) -> list[Score]:
    dialogues = len(set(origins))
    drawn = f"dialogues:{dialogues}|bs:{bootstrap.resamples}|seed:{bootstrap.seed}|ci:{INTERVAL:g}|elmd:{__version__}"
    values = [float(measure.of(np.ones((1, len(origins))))[0]) for measure in measures]
    chunks = [[measure.of(counts) for measure in measures] for counts in _resampled(origins, bootstrap)]
    samples = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    return [
        _with_interval(prefix + measure.name, value, sample, f"{measure.signature}|{drawn}", measure.kinds)
        for measure, value, sample in zip(measures, values, samples, strict=True)
    ]


def _resampled(origins: Sequence[str], bootstrap: Bootstrap) -> Iterator[Floats]:
    """Yield how often each row is counted, (some resamples, rows), until there are `bootstrap.resamples`."""
    names, dialogue_of = np.unique(np.asarray(origins), return_inverse=True)
    random = np.random.default_rng(bootstrap.seed)
    step = max(1, _COUNTS_AT_ONCE // len(origins))
    for start in range(0, bootstrap.resamples, step):
        some = min(step, bootstrap.resamples - start)
        drawn = random.integers(len(names), size=(some, len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        yield counts[:, dialogue_of].astype(np.float64)


def _with_interval(name: str, value: float, sample: Floats, signature: str, kinds: bool) -> Score:
    kept = sample[~np.isnan(sample)]
    ends = np.percentile(kept, [50 - INTERVAL / 2, 50 + INTERVAL / 2]) if len(kept) else np.asarray([value, value])
    if kinds:
        # A resample repeats dialogues, so it always holds fewer different things than the rows themselves.
        ends = np.clip(ends + value - kept.mean(), 0.0, 100.0)
    placed = f"{signature}|interval:percentile{'-moved-to-value' if kinds else ''}"
    # Nine digits, so that what is 100 does not read 100.00000000000004.
    return Score(name, round(value, 9), round(float(ends[0]), 9), round(float(ends[1]), 9), placed)


def _said(row: Judged, reply: str) -> Judged:
    return replace(row, hypothesis=reply, emotion=None, user_emotion=None)


def _judged(line: Mapping[str, Any], known: Mapping[str, Dialogue], references: Path | None) -> Judged:
    name, reply = _text(line, "id"), _text(line, "reply")
    if not name or reply is None:
        raise UsageError(f'a line needs "{"reply" if name else "id"}"')
    dialogue = known.get(name)
    reference = dialogue.reference if dialogue else _text(line, "reference")
    if reference is None:
        where = f"and is not in {references}" if references else "and there is no --references FILE"
        raise UsageError(f'id {name!r} has no "reference" {where}')
    language = (dialogue.language if dialogue else None) or _language(line) or detect_language(f"{reference} {reply}")
    return Judged(
        id=name,
        origin=dialogue.origin if dialogue else _text(line, "origin") or name.split("#", 1)[0].split("~", 1)[0],
        language=language,
        hypothesis=reply,
        reference=reference,
        emotion=_label(line, "emotion"),
        reference_emotion=(dialogue.reference_emotion if dialogue else None) or _label(line, "reference_emotion"),
        user_emotion=_label(line, "user_emotion"),
        given_user_emotion=(dialogue.last.emotion if dialogue else None) or _label(line, "given_user_emotion"),
    )


def _text(line: Mapping[str, Any], key: str) -> str | None:
    value = line.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f'"{key}" must be text, not {type(value).__name__}')
    return value


def _label(line: Mapping[str, Any], key: str) -> str | None:
    value = line.get(key)
    label = _text(value if isinstance(value, dict) else line, "label" if isinstance(value, dict) else key)
    return check_label(label) if label is not None else None


def _language(line: Mapping[str, Any]) -> Language | None:
    language = _text(line, "language")
    if language is not None and language not in CONSTANT_REPLIES:
        raise UsageError(f'"language" must be {" or ".join(CONSTANT_REPLIES)}, not {language!r}')
    return cast(Language | None, language)


def _top_reply(line: Mapping[str, Any]) -> str | None:
    demonstrations = line.get("demonstrations") or []
    if not isinstance(demonstrations, list) or not all(isinstance(item, dict) for item in demonstrations):
        raise UsageError('"demonstrations" must be a list of objects')
    return _text(demonstrations[0], "reply") if demonstrations else None


def _is_plotted(name: str) -> bool:
    bare = name.removeprefix("zh_").removeprefix("en_")
    return bare.startswith(PLOTTED) or bare.endswith("emotion_weighted_f1")


def _draw(axes: Any, scores: Sequence[Score], baselines: Mapping[str, Sequence[Score]]) -> None:
    places = {score.name: -place for place, score in enumerate(scores)}
    axes.barh([*places.values()], [score.value for score in scores], height=0.6, color="#7aa6c2", label="elmd")
    for score in scores:
        place = places[score.name]
        axes.plot([score.low, score.high], [place, place], color="#1f3b4d", linewidth=1.5)
        text = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize="small")
    for (name, rivals), mark in zip(baselines.items(), "oDsv", strict=False):
        drawn = [rival for rival in rivals if rival.name in places]
        marks = [rival.value for rival in drawn], [places[rival.name] for rival in drawn]
        axes.plot(*marks, mark, label=name, markersize=5, color="#c2571a", fillstyle="none", clip_on=False)
    axes.set_yticks([*places.values()], [*places])
    axes.set_xlim(left=0)
    axes.set_xlabel(f"score; line and brackets: {INTERVAL:g} % interval over dialogues")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
