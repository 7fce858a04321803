"""What there is to choose from."""

import json
from typing import Annotated

import typer

from elmd.cli._options import JsonOption, results


def command(
    zoo: Annotated[
        str | None,
        typer.Argument(help="datasets, embedders, backends, metrics, sentiment, recipes or sets; all when none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what there is: data sets, embedders, backends, metrics, sentiment models, recipes, and the sets these take."""
    from elmd.config import recipe_names, recipe_summary, set_names
    from elmd.errors import UnknownName
    from elmd.zoo import ZOOS

    found = {word: [(name, z.summary(name)) for name in z.names()] for word, z in ZOOS.items()}
    found["recipes"] = [(name, recipe_summary(name)) for name in recipe_names()]
    found["sets"] = [(name, recipe_summary(f"sets/{name}")) for name in set_names()]
    if zoo is not None and zoo not in found:
        raise UnknownName("zoo", zoo, found)
    chosen = found if zoo is None else {zoo: found[zoo]}
    if as_json:
        rows = [{"name": name, "summary": summary} for entries in chosen.values() for name, summary in entries]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for word, entries in chosen.items():
        results().print(f"[bold]{word}[/bold]")
        for name, summary in entries:
            results().print(f"  {name:<14} {summary}", markup=False)
