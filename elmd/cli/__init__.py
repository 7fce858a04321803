"""The command line: one file a verb, named as the verb; `elmd --help` loads none of the heavy libraries.

A verb's file defines `command` (a function with typer annotations) or `app` (a typer.Typer with sub-commands).
"""

import os
import sys
from importlib import import_module
from typing import Annotated

import typer
from typer.exceptions import TyperException

from elmd import __version__
from elmd.errors import ElmdError
from elmd.zoo import Zoo

VERBS = Zoo("elmd.cli", "verb", ())


def main() -> None:
    """Run the command line; an ElmdError becomes one line on stderr and its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        raise SystemExit(build_app()(standalone_mode=False) or 0)
    except ElmdError as error:
        _end(f"elmd: {' '.join(str(error).split())}", error.exit_code)
    except TyperException as error:  # wrong options; empty when the help was shown instead
        message = " ".join(error.format_message().split())
        _end(f"elmd: {message}" if message else "", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _end("elmd: stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a file that may not be read, a full disk: the person's to mend, so no traceback
        _end(f"elmd: {error.filename or 'the system'}: {error.strerror or error}", 1)


def build_app() -> typer.Typer:
    """Collect the verbs."""
    app = typer.Typer(
        name="elmd",
        help="An empathetic digital human: reads how a person feels and answers from the heart.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for name in VERBS.names():
        module = import_module(f"elmd.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the verb."""


def _end(line: str, code: int) -> None:
    if line:
        print(line, file=sys.stderr)  # noqa: T201
    raise SystemExit(code)
