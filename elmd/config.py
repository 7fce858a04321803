"""Configuration: a recipe in TOML becomes strict pydantic models; ELMD_* and --set come on top.

Order, later wins: model defaults, recipe, environment, `--set`. An unknown key or a wrong type is
refused with its path and the nearest key.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from elmd.errors import BadConfig, UnknownName, nearest

PREFIX = "ELMD_"
NOT_CONFIG = frozenset({"ELMD_HOME", "ELMD_OFFLINE", "ELMD_TEST_DATA"})
"""ELMD_* variables that are not keys of a recipe: where assets lie, whether the network may be used, data for tests."""


class Strict(BaseModel):
    """A configuration table: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


AGENT_TABLES = frozenset({"perception", "clip", "retrieval", "prediction", "generation"})
"""The tables of an agent: ELMD_GENERATION__… in the environment is none of a training run's business."""

Model = TypeVar("Model", bound=BaseModel)


def recipe_names() -> tuple[str, ...]:
    """The shipped recipes, without ".toml"."""
    return tuple(sorted(p.stem for p in _recipe_folder().glob("*.toml")))


def set_names() -> tuple[str, ...]:
    """The sets that a sentiment recipe can be put together with: `sentiment-<model>-<set>`."""
    return tuple(sorted(p.stem for p in (_recipe_folder() / "sets").glob("*.toml")))


def read_recipe(name: str) -> dict[str, Any]:
    """Read a shipped recipe by name, or any TOML file by path (a run's `run.toml` repeats that run).

    A name `sentiment-<model>-<set>` that has no file of its own is the recipe of the model over that of the set.
    In names "-" and "_" are the same.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise BadConfig(f"{name}: no such recipe file")
        return _read_toml(Path(name))
    files = {_plain(path.stem): path for path in _recipe_folder().glob("*.toml")}
    if _plain(name) in files:
        return _read_toml(files[_plain(name)])
    for part in set_names():
        head = _plain(name).removesuffix(f"-{part}")
        if head != _plain(name) and head.startswith("sentiment-") and head in files:
            return _merged(_read_toml(_recipe_folder() / "sets" / f"{part}.toml"), _read_toml(files[head]))
    raise UnknownName("recipe", name, (*recipe_names(), *(f"sentiment-MODEL-{part}" for part in set_names())))


def recipe_summary(name: str) -> str:
    """The first line of a recipe's leading comment."""
    first = (_recipe_folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def load(model: type[Model], recipe: str | None = None, overrides: Iterable[str] = ()) -> Model:
    """Build the configuration `model` from a recipe, the environment and `--set a.b=value` overrides."""
    data = read_recipe(recipe) if recipe else {}
    data.pop("run", None)
    for key, value in _environment().items():
        path = key.split(".")
        if path[0] in model.model_fields or path[0] not in AGENT_TABLES:
            _put(data, path, value)
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise BadConfig(f"--set {override}: write it as key.path=value")
        _put(data, key.strip().split("."), _value(value.strip()))
    return validate(model, data)


def validate(model: type[Model], data: Mapping[str, Any], at: str = "") -> Model:
    """Validate a table against `model`; raise BadConfig with the key's path (below `at`) and the nearest key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadConfig(_explain(model, error, at)) from error


def dump_toml(config: BaseModel, extra: Mapping[str, Any] | None = None) -> str:
    """Write a resolved configuration as TOML that `read_recipe` reads back; None values are left out."""
    lines: list[str] = []
    _table({**config.model_dump(mode="json"), **(extra or {})}, (), lines)
    return "\n".join(lines).strip() + "\n"


def _recipe_folder() -> Path:
    return Path(str(resources.files("elmd") / "recipes"))


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML ({error})") from error


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two recipes as one: tables are joined, and what `above` says goes before what `below` says."""
    joined = dict(below)
    for key, value in above.items():
        there = joined.get(key)
        joined[key] = _merged(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return joined


def _environment() -> dict[str, Any]:
    chosen = {k: v for k, v in os.environ.items() if k.startswith(PREFIX) and k not in NOT_CONFIG}
    return {k.removeprefix(PREFIX).lower().replace("__", "."): _value(v) for k, v in sorted(chosen.items())}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    table = data
    for i, key in enumerate(path[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise BadConfig(f"{'.'.join(path[: i + 1])} is not a table, so {'.'.join(path)} cannot be set")
    table[path[-1]] = value


def _explain(model: type[BaseModel], error: ValidationError, at: str) -> str:
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"]]
    path = ".".join(([at] if at else []) + loc)
    if first["type"] != "extra_forbidden":
        return f"{path}: {first['msg']}"
    known = _keys_at(model, loc[:-1])
    near = nearest(loc[-1], known)
    return f"unknown key {path}; " + (f"did you mean {near!r}?" if near else f"known: {', '.join(known)}")


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for key in path:
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _table(data: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {k: v for k, v in data.items() if v is not None and not _is_table(v)}
    if path:
        lines.append(f"\n[{_header(path)}]")
    lines.extend(f"{_key(key)} = {_literal(value)}" for key, value in plain.items())
    for key, value in data.items():
        if isinstance(value, Mapping):
            _table(value, (*path, key), lines)
        elif _is_table(value):
            for item in value:
                lines.append(f"\n[[{_header((*path, key))}]]")
                _table(item, (), lines)


def _header(path: tuple[str, ...]) -> str:
    return ".".join(_key(key) for key in path)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _literal(key)


def _literal(value: Any) -> str:
    """A value in TOML: as in JSON, but for infinity and the one character that JSON leaves as it is and TOML forbids."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)
    )
