"""Assessment of trained parts on data sets: what `elmd test` runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from elmd import datasets
from elmd.agent import Agent, cleaned
from elmd.data import statements
from elmd.errors import UsageError
from elmd.evaluate import Report, evaluate
from elmd.labels import EKMAN
from elmd.types import Dialogue, Judged, Utterance

STATEMENTS = "statements"
"""The name of our own hand-written test statements, which need no root."""


def read_dialogues(name: str, root: Path | None, split: str) -> list[Dialogue]:
    """Read a split of a data set, or our test statements as dialogues of one turn."""
    if name == STATEMENTS:
        return [
            Dialogue(row.id, (Utterance("user", row.text, row.emotion),), language=row.language) for row in statements()
        ]
    if root is None:
        raise UsageError(f"--root: name the folder of {name}")
    return list(datasets.read_dialogues(name, root, split))


def assess_emotion(agent: Agent, dialogues: Iterable[Dialogue], say: Callable[[str], None]) -> Report:
    """Score the text reader on every labelled utterance; intervals are over dialogues."""
    labelled = [(d, i, turn) for d in dialogues for i, turn in enumerate(d.turns) if turn.emotion and turn.text]
    say(f"reading {len(labelled)} utterances")
    read = agent.reader.read_many([turn.text for _, _, turn in labelled])
    rows = [
        Judged(
            id=f"{dialogue.id}#{i}",
            origin=dialogue.origin,
            language=dialogue.language or "zh",
            hypothesis="",
            reference="",
            user_emotion=state.label,
            given_user_emotion=turn.emotion,
        )
        for (dialogue, i, turn), state in zip(labelled, read, strict=True)
    ]
    return _report(rows, {})


def assess_predictor(agent: Agent, dialogues: Iterable[Dialogue], say: Callable[[str], None]) -> Report:
    """Score the reply-emotion predictor at every change of speaker, beside copying the emotion read of the last turn.

    Emotions of the context are read from the words, not taken from the annotation (but for `perception.annotated`, an
    oracle). The majority label is scored beside it as well.
    """
    items = [item for dialogue in dialogues for item in dialogue.replies() if item.reference_emotion]
    say(f"predicting {len(items)} replies")
    foreseen = [agent.foresee(cleaned(item)) for item in items]
    predicted = [_judged(item, reply.label) for item, (_, reply) in zip(items, foreseen, strict=True)]
    copied = [_judged(item, user.label) for item, (user, _) in zip(items, foreseen, strict=True)]
    return _report(predicted, {"copy_last": copied})


def _judged(item: Dialogue, label: str) -> Judged:
    return Judged(
        id=item.id,
        origin=item.origin,
        language=item.language or "zh",
        hypothesis="",
        reference=item.reference or "",
        emotion=label,
        reference_emotion=item.reference_emotion,
    )


def _report(rows: Sequence[Judged], baselines: Mapping[str, Sequence[Judged]]) -> Report:
    if not rows:
        raise UsageError(f"nothing to score: no utterance of this split is labelled with one of {', '.join(EKMAN)}")
    others = {name: tuple(evaluate(said, ["emotion"])) for name, said in baselines.items()}
    return Report(len(rows), tuple(evaluate(rows, ["emotion"])), others)
