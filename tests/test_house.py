"""The shape of the house: floors, registries, lazy imports, recipes, prompts, and the commands its pages name."""

import ast
import re
import shlex
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
import typer
from conftest import REPO, python

from elmd import config, errors
from elmd.cli import VERBS, build_app
from elmd.generation.prompts import HOLES, holes
from elmd.zoo import DATASETS, EMBEDDERS, LLMS, SENTIMENT, ZOOS

PACKAGE = REPO / "elmd"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {
        "types",
        "labels",
        "text",
        "config",
        "files",
        "errors",
        "zoo",
        "assets",
        "convert",
        "data",
        "runs",
        "quiet",
        "media",
        "_media_child",
        "plots",
    },
    {"datasets", "extractors", "embedders", "asr", "tts", "llms", "metrics", "safety"},
    {"perception", "sentiment", "retrieval", "prediction", "generation"},
    {"agent", "generate", "evaluate", "assess"},
    {"ui", "server", "cli", "app"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
STAIRS = {
    ("generate", "agent"),
    ("evaluate", "agent"),
    ("assess", "agent"),
    ("assess", "evaluate"),
    ("cli", "ui"),
    ("cli", "server"),
    ("app", "ui"),
}
"""Neighbours that may be entered: a batch run uses the agent, a verb opens a door."""
HEAVY = {"torch", "transformers", "faiss", "gradio", "sentence_transformers", "peft", "sklearn", "matplotlib"}


def room_of(module: str) -> str:
    """`elmd.llms.hf` → `llms`; the package itself is no room."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path, package: str) -> set[str]:
    """Every elmd module that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "elmd" else {base}
    return {name for name in found if name.startswith("elmd.") and name != "elmd.__version__"}


def modules() -> list[tuple[str, str, Path]]:
    """(room, package, file) of every module that lies on a floor; the package's own `__init__` lies on none."""
    rows = [(REPO / "app.py", "", "app")] if (REPO / "app.py").is_file() else []
    for path in SOURCES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        rows.append((path, ".".join(("elmd", *parts[:-1])), parts[0]))
    return [(room, package, path) for path, package, room in rows if room not in ("__init__", "__main__")]


def may_enter(room: str, other: str) -> bool:
    same_floor_of_words = FLOOR_OF[room] == FLOOR_OF[other] == 0
    return room == other or FLOOR_OF[other] < FLOOR_OF[room] or same_floor_of_words or (room, other) in STAIRS


def test_every_module_has_a_floor():
    assert sorted({str(path) for room, _, path in modules() if room not in FLOOR_OF}) == []


def test_modules_import_from_floors_below_only():
    wrong = [
        f"{path.relative_to(REPO)} imports {name}"
        for room, package, path in modules()
        for name in sorted(imports(path, package))
        if not {room, room_of(name)} <= {*FLOOR_OF} or not may_enter(room, room_of(name))
    ]
    assert wrong == []


def test_the_walk_sees_imports_wherever_they_stand(tmp_path):
    code = (
        "import elmd.agent\nfrom elmd import labels\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from elmd.ui import page\n"
        "def f():\n    from elmd.cli.chat import command\n    from ..metrics import bleu\n    from . import hf\n"
    )
    (tmp_path / "x.py").write_text(code)
    found = imports(tmp_path / "x.py", "elmd.llms")
    assert found == {"elmd.agent", "elmd.labels", "elmd.ui", "elmd.cli.chat", "elmd.metrics", "elmd.llms"}
    assert not may_enter("llms", "metrics")
    assert not may_enter("perception", "retrieval")
    assert may_enter("perception", "llms")


def test_import_elmd_brings_nothing_heavy():
    loaded = set(python("import elmd, sys; print(*{m.split('.')[0] for m in sys.modules})").split())
    assert "elmd" in loaded
    assert loaded & (HEAVY | {"pydantic", "numpy", "typer"}) == set()


def test_public_names_load_on_first_use():
    code = "import elmd, sys; print('elmd.agent' in sys.modules, elmd.Agent.__name__, *elmd.__all__)"
    first, agent, *names = python(code).split()
    assert (first, agent) == ("False", "Agent")
    import elmd

    assert [getattr(elmd, name).__name__ for name in names] == list(elmd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = elmd.Agnet


def test_the_help_brings_nothing_heavy():
    code = (
        "import sys, typer, typer.testing\nfrom elmd.cli import build_app\n"
        "help = typer.testing.CliRunner().invoke(build_app(), ['--help'])\nassert 'chat' in help.output, help.output\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert set(python(code).split()) & HEAVY == set()


@pytest.mark.parametrize(("zoo", "name"), [(z, n) for z in [*ZOOS.values(), VERBS] for n in z.names()])
def test_every_entry_loads_and_says_what_it_is(zoo, name):
    try:
        module = zoo.load(name)
    except errors.MissingExtra as error:
        pytest.skip(str(error))
    assert all(hasattr(module, export) for export in zoo.exports)
    assert zoo.summary(name) == (module.__doc__ or "").strip().splitlines()[0]
    assert 10 < len(zoo.summary(name)) < 140


@pytest.mark.parametrize("name", VERBS.names())
def test_every_verb_defines_a_command_or_commands(name):
    module = VERBS.load(name)
    assert hasattr(module, "command") != hasattr(module, "app")


@pytest.mark.parametrize("zoo", [LLMS, EMBEDDERS], ids=lambda z: z.word)
def test_every_key_of_a_backend_or_embedder_has_a_default(zoo):
    for name in zoo.names():
        zoo.load(name).Config()


def test_listing_imports_no_entry():
    code = (
        "import sys\nfrom elmd.zoo import ZOOS\n"
        "listed = [(z.package, n, z.summary(n)) for z in ZOOS.values() for n in z.names()]\n"
        "assert len(listed) > 15 and all(s for _, _, s in listed)\n"
        "print(*[f'{p}.{n}' for p, n, _ in listed if f'{p}.{n}' in sys.modules])"
    )
    assert python(code).split() == []


RECIPE_MODELS = {
    "agent": "elmd.agent:AgentConfig",
    "emotion": "elmd.perception.train:Config",
    "predictor": "elmd.prediction.train:Config",
    "retriever": "elmd.retrieval.train:Config",
    "generator": "elmd.generation.train:Config",
    "sentiment": "elmd.sentiment.config:Config",
}


@pytest.mark.parametrize("name", config.recipe_names())
def test_every_recipe_fits_its_configuration(name):
    module, _, model = RECIPE_MODELS[name.split("-")[0]].partition(":")
    without_set = ["data.name=jsonl"] if name.startswith("sentiment-") else []  # joined with a set, or named by hand
    loaded = config.load(getattr(import_module(module), model), name, without_set)
    assert len(config.recipe_summary(name)) > 20
    if name.startswith("agent-"):
        generation, retrieval = loaded.generation, loaded.retrieval
        config.validate(LLMS.load(generation.backend).Config, generation.llm)
        config.validate(EMBEDDERS.load(retrieval.embedder).Config, retrieval.encoder)


@pytest.mark.parametrize("name", SENTIMENT.names())
def test_every_sentiment_model_has_a_recipe_for_every_set(name):
    from elmd.sentiment.config import Config

    for part in config.set_names():
        loaded = config.load(Config, f"sentiment-{name}-{part}")
        assert loaded.model.name == name
        assert loaded.data.name in DATASETS.names()
        config.validate(SENTIMENT.load(name).Config, loaded.model.settings)


def test_a_recipe_that_is_not_there_is_refused_with_what_is():
    with pytest.raises(errors.UnknownName, match="did you mean 'sentiment-self_mm'.*sentiment-MODEL-mosi-utterance"):
        config.read_recipe("sentiment-self-m")


def test_there_is_a_default_recipe():
    assert "agent-small" in config.recipe_names()


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("name", HOLES)
def test_every_prompt_has_its_holes(name, language):
    assert holes(name, language) == HOLES[name]


def test_every_prompt_file_is_used_and_has_no_broken_hole():
    files = sorted((REPO / "prompts").glob("*.txt"))
    assert {f.name for f in files} == {f"{name}.{language}.txt" for name in HOLES for language in ("zh", "en")}
    for file in files:
        assert not re.search(r"[{}]", re.sub(r"\{\{ \w+ \}\}", "", file.read_text(encoding="utf-8"))), file


DANGER = ("torch.load(", "pickle.load", "allow_pickle=True", "trust_remote_code=True", "shell=True", "faiss.read_index")


@pytest.mark.parametrize("danger", DANGER)
def test_nothing_runs_what_a_stranger_wrote(danger):
    assert [str(path) for path in SOURCES if danger in path.read_text(encoding="utf-8")] == []


def test_no_eval_or_exec():
    calls = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    ]
    assert calls == []


def command_lines() -> list[str]:
    """Every `elmd …` line in a code block of README and docs."""
    found = []
    for page in [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]:
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            joined = block.replace("\\\n", " ")
            found += re.findall(r"(?:^|\| *|&& *|\$ +)((?:\S*/)?elmd [a-z-].*)$", joined, re.MULTILINE)
    return sorted(set(found))


def unknown_words(line: str) -> list[str]:
    """The verbs and options of a command line that elmd does not have."""
    words = shlex.split(re.split(r" [|>]|&&", line)[0], comments=True)[1:]
    here = typer.main.get_command(build_app())
    wrong = []
    while words:
        word = words.pop(0)
        options = {name: p for p in here.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
        if word.startswith("-"):
            name, sign, _ = word.partition("=")
            if name in options and not sign and not getattr(options[name], "is_flag", False):
                words = words[1:]  # its value
            elif name not in (*options, "--help", "-h"):
                wrong.append(word)
        elif hasattr(here, "commands"):
            if word not in here.commands:
                return [*wrong, word]
            here = here.commands[word]
    return wrong


@pytest.mark.parametrize("line", command_lines())
def test_every_command_that_the_pages_name_exists(line):
    assert unknown_words(line) == []


def test_the_check_of_command_lines_finds_mistakes():
    assert unknown_words("elmd chat --text 'a b' --json") == []
    assert unknown_words("elmd data check m3ed --root ~/data/m3ed  # whole?") == []
    assert unknown_words("elmd chta --text x") == ["chta"]
    assert unknown_words("elmd data chek m3ed") == ["chek"]
    assert unknown_words("elmd generate a.jsonl b.jsonl --bacth 3 --set=a.b=1") == ["--bacth"]
    assert len(command_lines()) >= 5


@pytest.mark.parametrize("name", ["emotion-text", "reply-emotion", "face"])
def test_shipped_weights_are_small_safe_and_have_a_card(name):
    folder = PACKAGE / "weights" / name
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    # The nets of the face are others' work: there is no run of ours to tell of.
    assert ({"README.md"} if name == "face" else {"README.md", "run.toml", "metrics.json"}) <= set(files)
    assert {Path(file).suffix for file in files} <= {".md", ".toml", ".json", ".safetensors", ".png"}
    assert sum(files.values()) < 20e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Licence", "## Made by", "## Scores", "## Limits"):
        assert heading in card
    told = card + "".join(path.read_text(encoding="utf-8") for path in folder.glob("run.toml"))
    assert str(REPO.parent) not in told


def test_every_package_folder_is_a_package():
    folders = {path.parent for path in SOURCES}
    assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_every_error_raised_on_purpose_is_ours():
    """Rooms raise ElmdError kinds, or ValueError and its like for misuse; never SystemExit or bare Exception."""
    bad = []
    for path in chain(PACKAGE.glob("*.py"), *(PACKAGE.glob(f"{room}/*.py") for room in FLOOR_OF if room != "cli")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", "")
                bad += [f"{path}:{node.lineno}"] if name in ("SystemExit", "Exception", "BaseException") else []
    assert bad == []
