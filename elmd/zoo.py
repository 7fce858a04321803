"""A folder is a registry: each file of a zoo's package is an entry, named as the file; a leading "_" is shared code."""

import ast
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from elmd.errors import MissingExtra, UnknownName


class Zoo:
    """The entries of one package folder, listed without importing them.

    Args:
        package: Dotted package, such as "elmd.llms".
        word: What an entry is called in messages.
        exports: Names that every entry must define.
    """

    def __init__(self, package: str, word: str, exports: tuple[str, ...]) -> None:
        self.package, self.word, self.exports = package, word, exports

    @property
    def folder(self) -> Path:
        """The folder that holds the entries."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(self.package)
        return Path(next(iter(spec.submodule_search_locations)))

    def names(self) -> tuple[str, ...]:
        """The names of the entries, sorted; imports none of them."""
        return tuple(sorted(m.name for m in pkgutil.iter_modules([str(self.folder)]) if not m.name.startswith("_")))

    def summary(self, name: str) -> str:
        """The first line of an entry's docstring, read without importing it."""
        name = self._checked(name)
        path = self.folder / f"{name}.py"
        source = path if path.exists() else self.folder / name / "__init__.py"
        doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        return doc.splitlines()[0] if doc else ""

    def load(self, name: str) -> ModuleType:
        """Import one entry and check what it exports; "-" and "_" in a name are the same.

        Raises UnknownName, and MissingExtra when a library named in the entry's `REQUIRES`
        (a dict of top-level module → extra) is not installed; any other import error passes through.
        """
        name = self._checked(name)
        module = importlib.import_module(f"{self.package}.{name}")
        for library, extra in getattr(module, "REQUIRES", {}).items():
            if find_spec(library) is None:
                raise MissingExtra(f"the {self.word} {name!r}", extra)
        missing = [export for export in self.exports if not hasattr(module, export)]
        if missing:
            raise TypeError(f"{module.__name__} must define {', '.join(missing)}")
        return module

    def _checked(self, name: str) -> str:
        plain = name.replace("-", "_")
        if plain not in self.names():
            raise UnknownName(self.word, name, self.names())
        return plain


DATASETS = Zoo("elmd.datasets", "data set", ("CARD",))
EMBEDDERS = Zoo("elmd.embedders", "embedder", ("Config", "Embedder"))
LLMS = Zoo("elmd.llms", "backend", ("Config", "Backend"))
METRICS = Zoo("elmd.metrics", "metric", ("NAMES", "scorer"))
EXTRACTORS = Zoo("elmd.extractors", "extractor", ("Config", "Extractor"))
ASR = Zoo("elmd.asr", "speech recogniser", ("Config", "Recogniser"))
SENTIMENT = Zoo("elmd.sentiment.models", "sentiment model", ("Config", "Model"))
ZOOS: dict[str, Zoo] = {
    "datasets": DATASETS,
    "extractors": EXTRACTORS,
    "asr": ASR,
    "embedders": EMBEDDERS,
    "backends": LLMS,
    "metrics": METRICS,
    "sentiment": SENTIMENT,
}
"""The zoos by the word that `elmd list` takes."""
