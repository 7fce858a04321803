"""Results of sentiment systems side by side: a table for the terminal, one for documents, and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd.errors import UsageError
from elmd.plots import check_plot_path, new_figure, save_figure
from elmd.sentiment.metrics import INTERVAL, Result
from elmd.types import Score

if TYPE_CHECKING:
    from rich.table import Table

PLOTTED = ("mae", "corr")
"""The scores drawn by default."""

_TITLES: Mapping[str, str] = {
    "mae": "MAE", "corr": "Corr", "r2": "R²", "ccc": "CCC", "accuracy": "Acc",
    "acc2_has0": "Acc-2 has0", "acc2_non0": "Acc-2 non0", "f1_has0": "F1 has0", "f1_non0": "F1 non0",
    "acc2": "Acc-2", "acc3": "Acc-3", "acc5": "Acc-5", "acc7": "Acc-7", "f1": "F1", "acc2_weak": "Acc-2 weak",
    "macro_f1": "macro F1", "weighted_f1": "weighted F1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a table shows of one score, and whether no other system's is better."""

    text: str
    best: bool


def table(results: Mapping[str, Result]) -> "Table":
    """Return a table of systems by scores: means with the standard deviation over seeds, the best of a column bold."""
    from rich.table import Table
    from rich.text import Text

    names = _names(results)
    found = Table(caption=_caption(results))
    found.add_column("system", overflow="fold")
    found.add_column("n", justify="right")
    for name in names:
        found.add_column(Text(_heading(name)), justify="right")
    for system, cells in _cells(results, names).items():
        texts = [Text(cell.text, style="bold" if cell.best else "") for cell in cells]
        found.add_row(Text(system), str(results[system].n), *texts)
    return found


def markdown(results: Mapping[str, Result]) -> str:
    """Return the same table in Markdown, with a line below it that says what the numbers are."""
    names = _names(results)
    lines = [
        f"| system | n | {' | '.join(_heading(name) for name in names)} |",
        f"|---|--:|{'--:|' * len(names)}",
    ]
    for system, cells in _cells(results, names).items():
        shown = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(f"| {' | '.join([system.replace('|', chr(92) + '|'), str(results[system].n), *shown])} |")
    return "\n".join([*lines, "", _caption(results), ""])


def plot(results: Mapping[str, Result], path: Path, names: Sequence[str] = PLOTTED) -> None:
    """Draw each score as dots with intervals, a panel a score, the systems best first by the first score.

    Args:
        results: By system.
        path: Ends in one of `elmd.plots.PLOT_SUFFIXES`.
        names: The scores to draw; those that no system has are left out.

    Raises:
        UsageError: For another suffix, or when there is nothing to draw.
        ElmdError: When the file cannot be written.
    """
    check_plot_path(path)
    scores = {system: {score.name: score for score in result.scores} for system, result in results.items()}
    drawn = [name for name in names if any(name in found for found in scores.values())]
    if not drawn:
        raise UsageError(f"none of the results has {' or '.join(names)}")
    systems = sorted(scores, key=lambda system: _rank(scores[system].get(drawn[0])))
    figure = new_figure(1.2 + 3.4 * len(drawn), 1.3 + 0.34 * len(systems))
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, drawn, strict=True):
        _draw(panel, name, [scores[system].get(name) for system in systems])
    panels[0].set_yticks(range(len(systems)), systems)
    panels[0].set_ylim(len(systems) - 0.5, -0.5)
    figure.supxlabel(f"mean over seeds; line: {INTERVAL:g} % interval over videos", fontsize="small", color="#555555")
    save_figure(figure, path)


def lower_is_better(name: str) -> bool:
    """Return whether a smaller value of this score is the better one."""
    return name.split("_")[-1] == "mae"


def _names(results: Mapping[str, Result]) -> list[str]:
    names = list(dict.fromkeys(score.name for result in results.values() for score in result.scores))
    if not names:
        raise UsageError("there are no results to show")
    return names


def _cells(results: Mapping[str, Result], names: Sequence[str]) -> dict[str, list[_Cell]]:
    found = {system: {score.name: score for score in result.scores} for system, result in results.items()}
    best = {name: _best([scores[name] for scores in found.values() if name in scores]) for name in names}
    return {
        system: [_cell(results[system], found[system].get(name), best[name]) for name in names] for system in results
    }


def _best(scores: Sequence[Score]) -> str | None:
    """The best value as it is shown, or None where there is nothing to compare."""
    if len(scores) < 2:
        return None
    return _shown(scores[0].name, min(scores, key=_rank).value)


def _cell(result: Result, score: Score | None, best: str | None) -> _Cell:
    if score is None:
        return _Cell("–", False)
    value = _shown(score.name, score.value)
    spread = f" ± {_shown(score.name, result.sd[score.name])}" if len(result.seeds) > 1 else ""
    return _Cell(value + spread, value == best)


def _rank(score: Score | None) -> float:
    """Sorts the best first and systems without the score last."""
    if score is None:
        return float("inf")
    return score.value if lower_is_better(score.name) else -score.value


def _shown(name: str, value: float) -> str:
    plain = name.split("_")[-1] in ("mae", "corr", "ccc", "r2")
    return f"{value:.3f}" if plain else f"{value:.2f}"


def _title(name: str) -> str:
    axis, _, rest = name.partition("_")
    return _TITLES.get(name) or (f"{axis} {_TITLES[rest]}" if rest in _TITLES else name)


def _heading(name: str) -> str:
    return f"{_title(name)} {'↓' if lower_is_better(name) else '↑'}"


def _caption(results: Mapping[str, Result]) -> str:
    counts = sorted({len(result.seeds) for result in results.values()})
    if counts == [1]:
        return "One seed; accuracies and F1 in percent."
    seeds = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"Mean ± standard deviation over {seeds} seeds; accuracies and F1 in percent."


def _draw(panel: Any, name: str, scores: Sequence[Score | None]) -> None:
    for place, score in enumerate(scores):
        if score is not None:
            panel.plot([score.low, score.high], [place, place], color="#7aa6c2", linewidth=2.5, solid_capstyle="round")
            panel.plot([score.value], [place], "o", color="#1f3b4d", markersize=6)
    panel.set_title(f"{_title(name)} ({'lower' if lower_is_better(name) else 'higher'} is better)", fontsize="medium")
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)
