"""What every training run leaves behind: `run.toml` (resolved config, versions, data hashes), metrics, a model card."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from elmd import __version__
from elmd.config import dump_toml
from elmd.files import sha256, write_text

LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of elmd and of the libraries that shape a result."""
    return {"elmd": __version__} | {name: _version(name) for name in LIBRARIES}


def write_run(out: Path, what: str, config: BaseModel, data: Iterable[Path]) -> None:
    """Write `run.toml`: the resolved configuration, which repeats the run, with versions and data hashes beside it."""
    hashes = {path.name: sha256(path) for path in data}
    notes = {"what": what, "versions": versions(), "data_sha256": hashes}
    write_text(out / "run.toml", dump_toml(config, {"run": notes}))


def write_metrics(out: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`."""
    write_text(out / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=1) + "\n")


def plot_curves(out: Path, curves: Mapping[str, list[float]], title: str) -> None:
    """Draw one line a metric over the epochs into `curves.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
    axes.set(title=title, xlabel="epoch")
    axes.legend()
    figure.savefig(out / "curves.png", dpi=120)
    pyplot.close(figure)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
