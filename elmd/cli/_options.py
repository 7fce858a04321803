"""Options and consoles that several verbs share."""

import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="A shipped recipe, or a TOML file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: a.b=value. May be given several times.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Report bad lines and go on.")]


@cache
def talk() -> "Console":
    """The console for talk and progress: stderr, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@cache
def results() -> "Console":
    """The console for results that people read: stdout; what is piped has room for a wide table."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
