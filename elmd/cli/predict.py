"""A trained part on one input."""

import json
from pathlib import Path
from typing import Annotated

import typer

from elmd.cli._options import JsonOption

app = typer.Typer(help="Use a trained part on one input: sentiment.", no_args_is_help=True)

_VECTORS = "Its vectors, (frames, width): .npy, or .safetensors with one tensor."


@app.callback()
def _main() -> None:
    """Keep `sentiment` a sub-command though it is the only one."""


@app.command()
def sentiment(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", "-c", help="A folder of `elmd train sentiment`.")],
    text: Annotated[str, typer.Option("--text", "-t", help="The words.")] = "",
    words: Annotated[Path | None, typer.Option("--text-vectors", help=_VECTORS)] = None,
    audio: Annotated[Path | None, typer.Option("--audio", help=_VECTORS)] = None,
    vision: Annotated[Path | None, typer.Option("--vision", help=_VECTORS)] = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="Or many samples: sample JSONL.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge one utterance from whatever is there of words, voice and face; what is not there is treated as missing."""
    from elmd.datasets import read_samples
    from elmd.errors import UsageError
    from elmd.sentiment.predict import judge, sample_of

    if (source is None) == (not text and not (words or audio or vision)):
        raise UsageError("give one utterance (--text, --audio, --vision), or many (--input FILE.jsonl)")
    samples = list(read_samples("jsonl", source, "test")) if source else [sample_of(text, words, audio, vision)]
    for row in judge(checkpoint, samples):
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else _line(row))


def _line(row: dict[str, object]) -> str:
    return "  ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )
