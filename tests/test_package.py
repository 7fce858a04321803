"""The wheel: everything a user needs is inside, nothing else is, and it works from an empty folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import REPO, Ran

pytestmark = pytest.mark.package

SOURCES = ("elmd", "prompts", "data", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources, so that nothing of the checkout is touched."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        place = folder / "source" / name
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(REPO / name, place)
    alone = ["--no-isolation"] if find_spec("hatchling") else []  # else `build` fetches hatchling
    command = ["-m", "build", "--wheel", *alone, "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel; the libraries it needs are borrowed from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    borrowed = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--no-cache-dir"]
    done = subprocess.run([*pip, "--ignore-installed", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin"


@pytest.fixture
def run(installed, tmp_path):
    """Run the installed console script from an empty folder with no trace of the checkout in the environment."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*command):
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        settings = clean | {"ELMD_HOME": str(tmp_path / "home"), "ELMD_OFFLINE": "1"}
        command = [installed / command[0], *map(str, command[1:])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=empty, env=settings, timeout=240)
        assert list(empty.iterdir()) == []
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def tracked(folder: str, under: str) -> set[str]:
    """The files of a folder of the checkout, under the name they have in the wheel."""
    files = (path for path in (REPO / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{under}/{path.relative_to(REPO / folder).as_posix()}" for path in files}


def test_everything_is_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = tracked("elmd", "elmd") | tracked("prompts", "elmd/_prompts") | tracked("data", "elmd/_data")
    assert sorted(wanted - names) == []
    for name in (
        "elmd/assets.toml",
        "elmd/recipes/agent-small.toml",
        "elmd/_prompts/crisis.zh.txt",
        "elmd/_data/demonstrations/en.jsonl",
        "elmd/weights/emotion-text/adapter_model.safetensors",
        "elmd/weights/reply-emotion/predictor.safetensors",
    ):
        assert name in names


def test_nothing_else_is_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"elmd"}
    assert [n for n in names if "test" in Path(n).name and n != "elmd/cli/test.py"] == []
    assert [n for n in names if n.endswith((".pyc", ".bin", ".pt", ".pkl", ".env"))] == []
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 20e6


def test_the_metadata_is_whole(wheel):
    archive = zipfile.ZipFile(wheel)
    read = {Path(n).name: n for n in archive.namelist() if ".dist-info/" in n}
    metadata = archive.read(read["METADATA"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: torch" in metadata
    assert archive.read(read["entry_points.txt"]).decode().split() == [
        "[console_scripts]",
        "elmd",
        "=",
        "elmd.cli:main",
    ]
    assert "LICENSE" in read


def test_the_installed_package_is_the_wheels(run):
    ran = run("python", "-c", "import elmd; from elmd.data import shipped; print(elmd.__file__, shipped('data'))")
    for path in ran.out.split():
        assert "/fresh" in path
        assert not Path(path).is_relative_to(REPO)
    assert ran.out.split()[1].endswith("elmd/_data"), ran.err


def test_the_recipes_are_listed(run):
    ran = run("elmd", "list", "recipes")
    assert ran.code == 0, ran.err
    assert "agent-small" in ran.out


def test_a_turn_is_answered(run, tiny_agent):
    ran = run("elmd", "chat", "--text", "我今天很难过", "--recipe", tiny_agent, "--json")
    assert ran.code == 0, ran.err
    reply = json.loads(ran.out)
    assert reply["reply"] == "我听见你说：我今天很难过"
    assert len(reply["demonstrations"]) == 3


def test_our_own_demonstrations_are_found_and_indexed(run, tiny_agent, tmp_path):
    ran = run("elmd", "index", "build", "--out", tmp_path / "index", "--recipe", tiny_agent)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "index" / "manifest.json").read_text())["count"] >= 600


def test_a_crisis_turn_finds_its_text(run, tiny_agent):
    ran = run("elmd", "chat", "--text", "I want to die", "--recipe", tiny_agent)
    assert "988" in ran.out, ran.err
