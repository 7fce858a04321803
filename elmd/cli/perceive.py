"""How a person in a recording or a picture feels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elmd.cli._options import JsonOption, RecipeOption, SetOption, results, talk

if TYPE_CHECKING:
    from elmd.types import EmotionState, Perceived


def command(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A video, audio or picture file, or a folder of them.")
    ],
    recipe: RecipeOption = "agent-small",
    set_: SetOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the timeline: .png, .svg or .pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read words, voice and face of a recording: the emotion over time, of each utterance and as a whole.

    Of a folder every file is read, one JSON line each; a file that cannot be read is reported and passed over.
    """
    from elmd.agent import Agent
    from elmd.errors import UsageError
    from elmd.media import Clip
    from elmd.perception import timeline
    from elmd.perception.clip import to_json
    from elmd.plots import check_plot_path

    if plot:
        check_plot_path(plot)
    reader = Agent.from_recipe(recipe, set_ or ()).clips
    if source.is_dir():
        if plot:
            raise UsageError("--plot draws one file; name it instead of a folder")
        raise typer.Exit(_folder(source, lambda path: to_json(reader.perceive(Clip(path)))))
    perceived = reader.perceive(Clip(source))
    if plot:
        timeline.plot(perceived, plot)
    if as_json:
        typer.echo(json.dumps(to_json(perceived), ensure_ascii=False))
    else:
        _show(perceived)


def _folder(folder: Path, read: Callable[[Path], dict[str, Any]]) -> int:
    """Print a line for every file that can be read; return the exit code."""
    from rich.progress import track

    from elmd.errors import ElmdError

    failed = 0
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in track(files, "clips", console=talk(), transient=True, disable=not talk().is_terminal):
        try:
            typer.echo(json.dumps({"file": str(path.relative_to(folder)), **read(path)}, ensure_ascii=False))
        except ElmdError as error:
            failed += 1
            talk().print(f"skipped {error}", markup=False)
    talk().print(f"{len(files) - failed} of {len(files)} files read", markup=False)
    return 1 if failed else 0


def _show(perceived: "Perceived") -> None:
    from rich.table import Table

    table = Table("seconds", "fused", "words", "voice", "face", "said")
    rows = perceived.utterances or perceived.timeline
    for moment in rows:
        cells = [_state(moment.modalities.get(m)) for m in ("text", "audio", "vision")]
        table.add_row(f"{moment.start:.1f}-{moment.end:.1f}", _state(moment.emotion), *cells, moment.text)
    if perceived.emotion:
        cells = [_state(perceived.modalities.get(m)) for m in ("text", "audio", "vision")]
        table.add_row("all", _state(perceived.emotion), *cells, "")
    results().print(table)
    for line in perceived.missing:
        talk().print(f"missing: {line}", markup=False)


def _state(state: "EmotionState | None") -> str:
    return f"{state.label} {state.scores[state.label]:.0%}" if state else "-"
