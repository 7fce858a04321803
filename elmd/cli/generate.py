"""Batch replies."""

from pathlib import Path
from typing import Annotated

import typer

from elmd.cli._options import RecipeOption, SetOption, SkipBadOption, talk


def command(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Dialogue JSONL.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Where the replies go; existing lines are kept.")],
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    batch: Annotated[int, typer.Option(min=1, help="How many dialogues are answered at once.")] = 16,
    skip_bad: SkipBadOption = False,
) -> None:
    """Reply to the last turn of every dialogue. Started again, it goes on where it was stopped."""
    from elmd.generate import generate

    done, total = generate(source, out, recipe, set_ or (), batch, skip_bad, talk())
    talk().print(f"{done} replies written, {total} in {out}", markup=False)
