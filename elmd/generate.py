"""Batch replies: a file of dialogues to a file of replies, in order, resumable by id, safe against kill -9."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd.agent import Agent, emotion_json
from elmd.errors import BadData, UsageError
from elmd.files import JsonlAppender, read_dialogues, read_jsonl, stop
from elmd.retrieval.index import as_json
from elmd.runs import write_run
from elmd.types import Dialogue, Reply

if TYPE_CHECKING:
    from rich.console import Console


def generate(
    source: Path, out: Path, recipe: str, overrides: Sequence[str], batch: int, skip_bad: bool, console: "Console"
) -> tuple[int, int]:
    """Answer every dialogue of `source` into `out`; return how many were written now and how many lie there.

    Lines that are there already are kept, and their ids not answered again. The dialogues are read as a whole first,
    so that a bad line stops the run before any work; with `skip_bad` it is reported and passed over.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if source.resolve() == out.resolve():
        raise UsageError(f"{out}: the replies cannot go into the file of dialogues")
    agent = Agent.from_recipe(recipe, overrides)
    on_bad = (lambda problem: console.print(f"skipped {problem}", markup=False)) if skip_bad else stop
    dialogues = list(read_dialogues(source, on_bad))
    with JsonlAppender(out, "id") as appender:
        done = _ids(out)
        _check_order(done, dialogues, out)
        kept = set(done)
        todo = [dialogue for dialogue in dialogues if dialogue.id not in kept]
        written = 0
        if todo:
            agent.warm()  # what is wrong with a model or an index must not look like a bad dialogue
            write_run(out.with_suffix(".run"), "generate", agent.config, [source])
        columns = (TextColumn("replies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=len(dialogues), completed=len(done))
            for group in _groups(todo, batch):
                rows = _answer(agent, group, source, on_bad)
                appender.append(rows)
                written += len(rows)
                bar.update(task, advance=len(group))
    return written, len(done) + written


def _answer(agent: Agent, group: list[Dialogue], source: Path, on_bad: Any) -> list[dict[str, Any]]:
    """Answer a group; a dialogue that cannot be answered is a bad row, the others of its group are still answered."""
    try:
        return [row(d, reply) for d, reply in zip(group, agent.reply_many(group), strict=True)]
    except UsageError as error:
        if len(group) == 1:
            on_bad(BadData(source, None, f"dialogue {group[0].id}: {error}"))
            return []
    return [line for dialogue in group for line in _answer(agent, [dialogue], source, on_bad)]


def row(dialogue: Dialogue, reply: Reply) -> dict[str, Any]:
    """Return the output line of one reply."""
    line: dict[str, Any] = {
        "id": dialogue.id,
        "reply": reply.text,
        "emotion": emotion_json(reply.emotion),
        "user_emotion": emotion_json(reply.user_emotion),
        "demonstrations": [as_json(item) for item in reply.demonstrations],
        "reference": dialogue.reference,
        "reference_emotion": dialogue.reference_emotion,
        "given_user_emotion": dialogue.last.emotion,
        "language": dialogue.language,
        "origin": dialogue.origin,
        "seconds": {stage: round(seconds, 4) for stage, seconds in reply.seconds.items()},
        "tokens": reply.completion.tokens,
        "backend": reply.backend,
    }
    return {key: value for key, value in line.items() if value is not None}


def _ids(out: Path) -> list[str]:
    found = [line.get("id") for _, line in read_jsonl(out)]
    if any(not isinstance(name, str) for name in found):
        raise UsageError(f"{out} holds lines that are not replies; name another output file")
    return [str(name) for name in found]


def _check_order(done: list[str], dialogues: list[Dialogue], out: Path) -> None:
    """Refuse to append to the replies of other dialogues: what is there must be the beginning of this run."""
    expected = [dialogue.id for dialogue in dialogues]
    missing = iter(expected)
    if not all(name in missing for name in done):
        raise UsageError(f"{out} holds replies to other dialogues; name another output file")


def _groups(dialogues: list[Dialogue], size: int) -> Iterator[list[Dialogue]]:
    rest = iter(dialogues)
    while group := list(islice(rest, size)):
        yield group
