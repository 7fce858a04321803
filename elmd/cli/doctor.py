"""What works here, what is missing, and the command that brings it."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from elmd.cli._options import JsonOption, results

LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "sacrebleu", "openai")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: whether it is well, what was found, and the command that mends it."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True


def command(as_json: JsonOption = False) -> None:
    """Look at Python, libraries, models, memory and disk; exit 1 when something that is needed is missing."""
    checks = list(_checks())
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], ensure_ascii=False))
    else:
        _print(checks)
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    from elmd import __version__, assets

    yield Check("elmd", True, f"{__version__} on Python {platform.python_version()}, {platform.machine()}")
    for name in LIBRARIES:
        yield _library(name, needed=True, mend="pip install elmd")
    yield _library("gradio", needed=False, mend="pip install 'elmd[ui]'")
    for name, asset in assets.catalogue().items():
        here = assets.present(name)
        size = f"{asset.bytes / 1e6:.0f} MB to fetch"
        yield Check(name, here, "here" if here else size, "" if here else f"elmd assets get {name}", asset.default)
    yield _device()
    yield _memory()
    yield _disk(assets.home())
    yield Check("network", True, "forbidden (ELMD_OFFLINE)" if assets.offline() else "allowed", needed=False)


def _library(name: str, needed: bool, mend: str) -> Check:
    try:
        return Check(name, True, version(name), needed=needed)
    except PackageNotFoundError:
        return Check(name, False, "not installed", mend, needed)


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", True, torch.cuda.get_device_name())
    return Check("device", True, f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")


def _memory() -> Check:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gigabytes = pages * size / 2**30
    return Check("memory", gigabytes >= 4, f"{gigabytes:.0f} GiB", "the default models need 4 GiB", needed=False)


def _disk(home: Path) -> Check:
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free / 2**30
    return Check("disk", free >= 4, f"{free:.0f} GiB free for {home}", "set ELMD_HOME to a larger disk", needed=False)


def _print(checks: list[Check]) -> None:
    from rich.table import Table

    table = Table("what", "", "found", "to mend")
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]missing[/red]" if check.needed else "[yellow]no[/yellow]"
        table.add_row(check.name, mark, check.found, check.mend)
    results().print(table)
