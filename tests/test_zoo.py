"""A folder is a registry: adding a file adds an entry, and nothing else has to be touched."""

import sys

import pytest

from elmd.errors import MissingExtra, UnknownName
from elmd.zoo import Zoo


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """An empty zoo in a package of its own."""
    package = tmp_path / "animals"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield Zoo("animals", "animal", ("sound",))
    for name in [name for name in sys.modules if name.split(".")[0] == "animals"]:
        del sys.modules[name]


def add(zoo, name, text='"""A beast."""\nsound = "moo"\n'):
    (zoo.folder / name).parent.mkdir(exist_ok=True)
    (zoo.folder / name).write_text(text)


def test_a_file_is_an_entry(zoo):
    assert zoo.names() == ()
    add(zoo, "cow.py")
    add(zoo, "ant/__init__.py", '"""Small.\n\nMore."""\nsound = ""\n')
    add(zoo, "_shared.py")
    add(zoo, "notes.txt")
    assert zoo.names() == ("ant", "cow")
    assert zoo.summary("cow") == "A beast."
    assert zoo.summary("ant") == "Small."
    assert zoo.load("cow").sound == "moo"


def test_listing_runs_nothing(zoo):
    add(zoo, "bomb.py", '"""Ticks."""\nraise RuntimeError("it was run")\n')
    assert (zoo.names(), zoo.summary("bomb")) == (("bomb",), "Ticks.")
    with pytest.raises(RuntimeError, match="it was run"):
        zoo.load("bomb")


def test_an_unknown_name_offers_the_nearest(zoo):
    add(zoo, "cow.py")
    for ask in (zoo.load, zoo.summary):
        with pytest.raises(UnknownName, match="unknown animal 'cwo'; did you mean 'cow'"):
            ask("cwo")


@pytest.mark.parametrize("name", ["_shared", "__init__", "../cow", "cow.py", "", "animals.cow"])
def test_what_is_no_entry_cannot_be_loaded(zoo, name):
    add(zoo, "cow.py")
    add(zoo, "_shared.py")
    with pytest.raises(UnknownName):
        zoo.load(name)


def test_an_entry_that_does_not_keep_the_contract_is_named(zoo):
    add(zoo, "mute.py", '"""Silent."""\n')
    with pytest.raises(TypeError, match=r"animals\.mute must define sound"):
        zoo.load("mute")


def test_a_missing_library_is_said_with_the_command_that_brings_it(zoo):
    add(zoo, "whale.py", '"""Big."""\nREQUIRES = {"no_such_library": "sea"}\nsound = "?"\n')
    with pytest.raises(MissingExtra, match=r"the animal 'whale' needs an optional part: pip install 'elmd\[sea\]'"):
        zoo.load("whale")


def test_an_entry_without_docstring_has_an_empty_summary(zoo):
    add(zoo, "cow.py", "sound = 1\n")
    assert zoo.summary("cow") == ""


def test_an_entry_may_hold_any_language(zoo):
    add(zoo, "cow.py", '"""牛。"""\nsound = "哞"\n')
    assert zoo.summary("cow") == "牛。"
