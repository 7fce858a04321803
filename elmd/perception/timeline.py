"""A plot of what was perceived: valence over time by modality with the fused line, and the label of every moment."""

from pathlib import Path

from elmd.errors import UsageError
from elmd.plots import check_plot_path, new_figure, save_figure
from elmd.types import MODALITIES, Perceived

_COLOURS = {"text": "#3b6ea5", "audio": "#c2571a", "vision": "#3f8f5b"}
_WORDS = {"text": "words", "audio": "voice", "vision": "face"}


def plot(perceived: Perceived, path: Path) -> None:
    """Draw the timeline of a recording; raises UsageError for another suffix, or when there is nothing to draw."""
    check_plot_path(path)
    moments = perceived.timeline
    if not moments:
        raise UsageError(f"nothing to draw: {'; '.join(perceived.missing)}")
    figure = new_figure(9, 3.6)
    axes = figure.add_subplot()
    for modality in MODALITIES:
        points = [((m.start + m.end) / 2, m.modalities[modality].valence) for m in moments if modality in m.modalities]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOURS[modality], alpha=0.7, label=_WORDS[modality])
    middles = [(m.start + m.end) / 2 for m in moments]
    axes.plot(middles, [m.emotion.valence for m in moments], color="#1f2933", linewidth=2.2, label="fused")
    step = max(1, len(moments) // 12)
    for moment in moments[::step]:
        place = ((moment.start + moment.end) / 2, 1.0)
        axes.text(*place, moment.emotion.label, rotation=40, ha="left", va="bottom", fontsize="small")
    axes.set(ylim=(-1, 1), xlabel="seconds", ylabel="valence")
    axes.axhline(0, color="#b0b8c0", linewidth=0.8)
    axes.legend(loc="lower right", ncols=4, frameon=False, fontsize="small")
    save_figure(figure, path)
