"""REP on M3ED and MELD: what words, the course of emotions and vision add, beside majority and copying, as a table.

Run: python benchmarks/reply_emotion.py --data m3ed --root DIR --cache DIR [--seeds 3] [--markdown FILE] [--set key=value]

Every system is trained from several seeds on the train split, as `elmd train predictor --recipe predictor-<data>` does,
and scored on the valid split, which chooses nothing. "unseen folds" are train dialogues, each scored by the member of the
ensemble that did not learn from its show; that member chose its epoch there. Every system is trained once and tested
with emotions read from the words and with annotated ones. "shuffled vision" is trained and tested on vectors that were
dealt to the utterances at random; "vision, shuffled in the test" is the system with vision, tested on such.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from elmd.config import load, validate
from elmd.datasets import read_dialogues
from elmd.files import write_text
from elmd.labels import EKMAN
from elmd.perception.text import TextReader
from elmd.prediction.fit import Fitted, Lesson, fit
from elmd.prediction.scenes import ANSWERER, Scenes, gather, scores
from elmd.prediction.train import Config, lesson
from elmd.prediction.train import scores as f1_of
from elmd.types import Dialogue, EmotionState
from elmd.zoo import EMBEDDERS

SYSTEMS = {
    "text": ["text"],
    "text + emotions": ["text", "emotions"],
    "text + emotions + vision": ["text", "emotions", "vision"],
    "text + emotions + shuffled vision": ["text", "emotions", "vision"],
}
KNOWN = ("read", "given")
VERSION = 1
"""Raised when the code of the predictor changes, so that kept scores are not used."""
CHUNK = 1000
"""Texts encoded between two writes, so that a stopped run goes on."""
Scored = dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Vectors of texts, kept in a file so that a text is encoded once."""

    path: Path
    compute: Callable[[Sequence[str]], np.ndarray]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return one row a text."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        known = {}
        if self.path.is_file():
            with np.load(self.path) as file:
                known = dict(zip(file["keys"].tolist(), file["values"], strict=True))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for start in range(0, len(new), CHUNK):
            some = [*new][start : start + CHUNK]
            known |= dict(zip(some, self.compute([new[key] for key in some]), strict=True))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self.path, keys=np.array([*known]), values=np.array([*known.values()]))
        return np.array([known[key] for key in keys], np.float32)


@dataclass(frozen=True)
class Part:
    """The replies of a split: contexts, annotated emotions, labels."""

    scenes: Scenes
    given: np.ndarray
    labels: np.ndarray

    def known(self, kind: str) -> Scenes:
        """Return the contexts with emotions that are "read" or "given"."""
        return self.scenes if kind == "read" else replace(self.scenes, emotions=self.given)


def main(
    data: Annotated[str, typer.Option(help="m3ed or meld.")],
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    cache: Annotated[Path, typer.Option(help="Folder for sentence vectors and read emotions.")],
    seeds: int = 3,
    markdown: Annotated[Path | None, typer.Option(help="Write the table there as well.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Some of the systems.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key of the recipe.")] = None,
) -> None:
    """Train and test every system, print the table."""
    console = Console(stderr=True)
    config = load(Config, f"predictor-{data}", [f"data.root={json.dumps(str(root))}", *(set_ or ())])
    encode, read = memories(config, cache)
    taught = lesson(config, [], replies(data, root, "train"), encode, read, root)
    items = replies(data, root, "valid")
    scenes, given = gather(items, config.network.turns, encode, read, root)
    valid = Part(scenes, given, np.array([EKMAN.index(item.reference_emotion or "") for item in items]))
    train = Part(taught.scenes, taught.given, taught.labels)
    rows = dict(baselines(valid, train))
    for name in only or SYSTEMS:
        for seed in range(seeds):
            for label, found in kept(cache, name, config, taught, valid, seed):
                rows.setdefault(label, []).append(found)
                console.print(label, " ".join(f"{key} {value:.3f}" for key, value in found.items()), markup=False)
    text = as_markdown(
        rows, f"{data}: {len(valid.labels)} replies of valid, {len(train.labels)} of train, {seeds} seeds"
    )
    print(text)
    if markdown:
        markdown.write_text(text + "\n", encoding="utf-8")


def memories(config: Config, cache: Path) -> tuple[Memory, Callable[[Sequence[str]], Sequence[EmotionState]]]:
    """Return the encoder and the reader, with what they said before kept in files."""
    module = EMBEDDERS.load(config.embedder)
    embedder = module.Embedder(validate(module.Config, config.encoder, "encoder"))
    reader = TextReader()
    felt = Memory(cache / "read.npz", lambda texts: scores(reader.read_many(texts)))

    def read(texts: Sequence[str]) -> list[EmotionState]:
        return [EmotionState.from_scores(dict(zip(EKMAN, row.tolist(), strict=True))) for row in felt(texts)]

    return Memory(cache / f"{embedder.name}.npz", embedder.encode), read


def replies(name: str, root: Path, split: str) -> list[Dialogue]:
    """Return the labelled replies of a split."""
    dialogues = read_dialogues(name, root, split)
    return [item for dialogue in dialogues for item in dialogue.replies() if item.reference_emotion]


def baselines(valid: Part, train: Part) -> Iterator[tuple[str, list[Scored]]]:
    """Yield what needs no training: majority, the emotion of the last turn, that of the answerer's last turn."""
    counts = np.bincount(train.labels, minlength=len(EKMAN))
    yield "majority", [scored(valid.labels, np.full(len(valid.labels), counts.argmax()))]
    for kind in KNOWN:
        felt = valid.known(kind).emotions.argmax(1)
        last = felt[valid.scenes.turns[:, 0]]
        said = valid.scenes.roles == ANSWERER
        own = felt[valid.scenes.turns[np.arange(len(said)), said.argmax(1)]]
        yield f"copy the last emotion | {kind}", [scored(valid.labels, last)]
        yield f"copy the answerer's last emotion | {kind}", [scored(valid.labels, np.where(said.any(1), own, last))]


def kept(cache: Path, name: str, config: Config, taught: Lesson, valid: Part, seed: int) -> list[tuple[str, Scored]]:
    """Return the scores of a system and seed, from a file if it was done before with the same settings."""
    settings = f"{VERSION}/{config.model_dump_json()}/{name}/{seed}"
    path = cache / f"scores-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        write_text(path, json.dumps([*trained(name, config, taught, valid, seed)]) + "\n")
    return [(label, found) for label, found in json.loads(path.read_text(encoding="utf-8"))]


def trained(name: str, config: Config, taught: Lesson, valid: Part, seed: int) -> Iterator[tuple[str, Scored]]:
    """Train a system from one seed and yield its scores by the emotions it is tested with."""
    modalities = SYSTEMS[name]
    shuffled = "shuffled" in name
    settings = config.fit.model_copy(update={"modalities": modalities})
    if shuffled:
        taught = replace(taught, scenes=dealt(taught.scenes, seed))
    fitted = fit(taught, settings, config.network, seed, lambda line: None)
    tests = {name: dealt(valid.scenes, seed) if shuffled else valid.scenes}
    if "vision" in modalities and not shuffled:
        tests[f"{name}, shuffled in the test"] = dealt(valid.scenes, seed)
    for label, scenes in tests.items():
        for kind in KNOWN if "emotions" in modalities else ("read",):
            part = replace(valid, scenes=scenes).known(kind)
            found = fitted.ensemble.probabilities(fitted.ensemble.inputs(part, modalities)).argmax(1)
            row = scored(valid.labels, found)
            if label == name:
                row |= unseen(fitted, taught, kind)
            yield (f"{label} | {kind}" if "emotions" in modalities else label), row


def unseen(fitted: Fitted, taught: Lesson, kind: str) -> Scored:
    """Return the scores on the folds that members did not learn from."""
    found = scored(taught.labels, fitted.unseen[kind].argmax(1))
    return {f"unseen {key}": value for key, value in found.items()}


def dealt(scenes: Scenes, seed: int) -> Scenes:
    """Return the contexts with the visual vectors of utterances exchanged at random."""
    there = np.flatnonzero(scenes.seen)
    vision = scenes.vision.copy()
    vision[there] = vision[np.random.default_rng(seed).permutation(there)]
    return replace(scenes, vision=vision)


def scored(labels: np.ndarray, said: np.ndarray) -> Scored:
    """Return accuracy, weighted F1 and macro F1."""
    return f1_of(np.array(EKMAN)[labels], np.array(EKMAN)[said])


def as_markdown(rows: dict[str, list[Scored]], title: str) -> str:
    """Return the table: mean (standard deviation) over seeds, in percent."""
    names = ("accuracy", "weighted_f1", "macro_f1", "unseen weighted_f1", "unseen macro_f1")
    lines = [title, "", "| system | emotions | accuracy | weighted F1 | macro F1 | unseen folds wF1 | mF1 |"]
    lines.append("|---|---|---|---|---|---|---|")
    for label, found in rows.items():
        system, _, kind = label.partition(" | ")
        lines.append(f"| {system} | {kind or '–'} | " + " | ".join(cell(found, name) for name in names) + " |")
    return "\n".join(lines)


def cell(found: list[Scored], name: str) -> str:
    """Return "mean (sd)"."""
    values = [100 * row[name] for row in found if name in row]
    if not values:
        return "–"
    return f"{statistics.mean(values):.1f}" + (f" ({statistics.stdev(values):.1f})" if len(values) > 1 else "")


if __name__ == "__main__":
    typer.run(main)
