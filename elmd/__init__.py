"""elmd: an empathetic digital human.

The public names load on first use, so that `import elmd` stays fast and brings no heavy library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME_OF = {
    "Agent": "elmd.agent",
    "Demonstration": "elmd.types",
    "Dialogue": "elmd.types",
    "ElmdError": "elmd.errors",
    "EmotionState": "elmd.types",
    "Reply": "elmd.types",
    "Utterance": "elmd.types",
}
__all__ = ["Agent", "Demonstration", "Dialogue", "ElmdError", "EmotionState", "Reply", "Utterance"]

if TYPE_CHECKING:
    from elmd.agent import Agent
    from elmd.errors import ElmdError
    from elmd.types import Demonstration, Dialogue, EmotionState, Reply, Utterance


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'elmd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
