"""Configuration: recipe < environment < --set, strict, and every refusal names the key."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from elmd import config
from elmd.config import Strict
from elmd.errors import BadConfig, UnknownName


class Inner(Strict):
    size: int = 3
    rate: float = 0.5
    name: str = "a"
    note: str | None = None
    deep: bool = False
    sizes: list[int] = []


class Outer(Strict):
    seed: int = 0
    inner: Inner = Inner()
    free: dict[str, object] = {}


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / "recipe.toml")

    return write


def test_later_sources_win(recipe, monkeypatch):
    path = recipe("seed = 1\n[inner]\nsize = 1\nname = 'recipe'\nrate = 0.1")
    monkeypatch.setenv("ELMD_INNER__NAME", "environment")
    monkeypatch.setenv("ELMD_INNER__RATE", "0.2")
    loaded = config.load(Outer, path, ["inner.rate=0.3"])
    assert (loaded.seed, loaded.inner) == (1, Inner(size=1, name="environment", rate=0.3))
    assert config.load(Outer).inner == Inner(name="environment", rate=0.2)


@pytest.mark.parametrize(
    "override", ["inner.name=word", 'inner.name="word"', "inner.name = word ", "inner.name='word'"]
)
def test_words_need_no_quotes(override):
    assert config.load(Outer, None, [override]).inner.name == "word"


def test_values_may_hold_an_equals_sign_and_chinese():
    loaded = config.load(Outer, None, ["inner.name=a=b", "inner.note=你好 世界", "free.x.y=[1, 2]"])
    assert (loaded.inner.name, loaded.inner.note, loaded.free) == ("a=b", "你好 世界", {"x": {"y": [1, 2]}})


REFUSED = {
    "inner.sise=1": r"unknown key inner\.sise; did you mean 'size'\?",
    "iner.size=1": r"unknown key iner; did you mean 'inner'\?",
    "inner.xyzzy=1": r"unknown key inner\.xyzzy; known: size, rate, name",
    "inner.size=big": r"inner\.size: Input should be a valid integer",
    "inner.size=1.5": r"inner\.size: Input should be a valid integer",
    "inner.size=true": r"inner\.size: Input should be a valid integer",
    "inner.name=3": r"inner\.name: Input should be a valid string",
    "inner.deep=1": r"inner\.deep: Input should be a valid boolean",
    "inner=3": r"inner: Input should be",
    "seed.x=3": r"seed: Input should be",
    "inner.size": r"--set inner\.size: write it as key\.path=value",
    "=3": r"write it as key\.path=value",
}


@pytest.mark.parametrize(("override", "reason"), REFUSED.items())
def test_what_does_not_fit_is_refused_with_its_path(override, reason):
    with pytest.raises(BadConfig, match=reason) as caught:
        config.load(Outer, None, [override])
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_key_below_a_value_of_the_recipe_is_refused(recipe):
    with pytest.raises(BadConfig, match=r"inner\.size is not a table, so inner\.size\.x cannot be set"):
        config.load(Outer, recipe("[inner]\nsize = 3"), ["inner.size.x=1"])


def test_an_unknown_variable_is_refused_and_known_ones_are_no_keys(monkeypatch):
    for name in config.NOT_CONFIG:
        monkeypatch.setenv(name, "1")
    assert config.load(Outer) == Outer()
    monkeypatch.setenv("ELMD_INNER__SISE", "1")
    with pytest.raises(BadConfig, match=r"unknown key inner\.sise; did you mean 'size'"):
        config.load(Outer)


def test_recipes_by_name_and_by_path(recipe):
    with pytest.raises(UnknownName, match="unknown recipe 'agent-smal'; did you mean 'agent-small'"):
        config.read_recipe("agent-smal")
    with pytest.raises(BadConfig, match=r"nowhere\.toml: no such recipe file"):
        config.read_recipe("nowhere.toml")
    with pytest.raises(BadConfig, match="not TOML"):
        config.read_recipe(recipe("a = = 1"))
    for sneaky in ("../config", "../../pyproject", "/etc/passwd", ""):
        with pytest.raises(UnknownName):
            config.read_recipe(sneaky)


def test_the_notes_of_a_run_are_no_configuration(recipe):
    assert config.load(Outer, recipe("seed = 4\n[run]\nwhat = 'x'")).seed == 4


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
INNER = st.builds(
    Inner,
    size=st.integers(-(2**60), 2**60),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    name=NAMES,
    note=st.none() | NAMES,
    deep=st.booleans(),
    sizes=st.lists(st.integers(0, 9), max_size=3),
)


@given(st.builds(Outer, seed=st.integers(0, 9), inner=INNER))
def test_a_written_configuration_reads_back(made):
    written = config.dump_toml(made, {"run": {"what": "x", "rows": [{"a": 1}, {"a": 2}]}})
    data = tomllib.loads(written)
    assert data.pop("run") == {"what": "x", "rows": [{"a": 1}, {"a": 2}]}
    assert config.validate(Outer, data) == made


@pytest.mark.parametrize("key", ["meld", "data.csv", "my key", "发现"])
def test_any_key_can_be_written(key):
    made = config.dump_toml(Outer(free={key: 1}), {"run": {"data_sha256": {key: "abc"}}})
    assert tomllib.loads(made)["run"]["data_sha256"] == {key: "abc"}
    assert tomllib.loads(made)["free"] == {key: 1}


def test_an_infinite_number_can_be_written():
    made = create_model("Wide", __base__=Strict, top=(float, float("inf")))()
    assert tomllib.loads(config.dump_toml(made))["top"] == float("inf")
