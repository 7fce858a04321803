"""Figures without a screen: making one, the kinds of file, and writing it as a whole or not at all."""

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from elmd.errors import ElmdError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot_path(path: Path) -> None:
    """Raise UsageError unless `path` ends in one of PLOT_SUFFIXES."""
    if path.suffix not in PLOT_SUFFIXES:
        raise UsageError(f"{path}: a plot ends in {', '.join(PLOT_SUFFIXES)}")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure to a file as a whole or not at all; raises ElmdError when it cannot be written."""
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=150)
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(drawn.getvalue())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if name:
            Path(name).unlink(missing_ok=True)
        raise ElmdError(f"cannot write {path}: {error.strerror}") from error
