"""Training the reply-emotion predictor: multinomial logistic regression with class weights (scikit-learn).

Learned from the replies of our own demonstrations and, weighted down, of a dialogue data set. The strength of the
regularisation and the weight of the data set are chosen by macro-F1 on the valid part of our own replies.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from elmd.config import Strict, validate
from elmd.data import demonstration_files, shipped_demonstrations
from elmd.datasets import read_dialogues
from elmd.errors import UsageError
from elmd.files import write_text
from elmd.labels import EKMAN
from elmd.prediction.predictor import COURSE, course_features
from elmd.runs import Card, data_files, draw, write_card, write_metrics, write_run
from elmd.types import ASSISTANT, Dialogue, EmotionState, context_text
from elmd.zoo import EMBEDDERS

CERTAINTY = 0.8
"""Probability given to an annotated emotion in training, as a reader is never certain."""


class DataConfig(Strict):
    """A dialogue data set with emotion labels, beside our own demonstrations."""

    name: str | None = None
    root: str | None = None
    weights: list[float] = [0.0, 0.03, 0.1, 0.3]
    """Weights of one of its replies that are tried; ours weigh 1."""


class Config(Strict):
    """How the predictor is trained."""

    seed: int = 0
    embedder: str = "e5"
    encoder: dict[str, Any] = {}
    data: DataConfig = DataConfig()
    strengths: list[float] = [0.1, 0.3, 1.0, 3.0, 10.0]
    """Inverse regularisation strengths (scikit-learn's C) that are tried."""
    valid_share: float = 0.2


@dataclass(frozen=True, slots=True)
class Rows:
    """Replies to learn or to score: features (n, dimension + course), labels (n,), the emotion answered to (n,)."""

    features: np.ndarray
    labels: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, items: Sequence[Dialogue], encode: Callable[[Sequence[Dialogue]], np.ndarray]) -> "Rows":
        """Compute the features of replies from what was before them."""
        course = [course_features(item, [_state(turn.emotion) for turn in item.turns[-COURSE:]]) for item in items]
        labels = np.array([item.reference_emotion for item in items])
        answered = np.array([item.last.emotion or "neutral" for item in items])
        return cls(np.hstack([encode(items), np.array(course)]), labels, answered)


def train(config: Config, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, write weights, run.toml and metrics.json into `out`, return the metrics."""
    from safetensors.numpy import save_file

    module = EMBEDDERS.load(config.embedder)
    embedder = module.Embedder(validate(module.Config, config.encoder, "encoder"))

    def encode(items: Sequence[Dialogue]) -> np.ndarray:
        return np.asarray(embedder.encode([context_text(item.turns) for item in items]))

    own = [item for dialogue in shipped_demonstrations() for item in own_replies(dialogue)]
    learn = Rows.of([item for item in own if draw(item.origin) >= config.valid_share], encode)
    valid = Rows.of([item for item in own if draw(item.origin) < config.valid_share], encode)
    other = _other(config.data)
    say(f"{len(learn.labels)} own replies, {len(valid.labels)} to select on, {len(other)} of {config.data.name}")
    extra = Rows.of(other, encode) if other else None
    best, chosen = _select(config, learn, valid, extra, say)
    out.mkdir(parents=True, exist_ok=True)
    files = [*demonstration_files(), *(data_files(Path(config.data.root)) if config.data.root else [])]
    write_run(out, "predictor", config, files)
    weight, bias = _aligned(best)
    save_file({"weight": weight, "bias": bias}, out / "predictor.safetensors")
    facts = {"encoder": embedder.name, "revision": embedder.revision, **chosen}
    write_text(out / "predictor.json", json.dumps(facts) + "\n")
    metrics = {"chosen": chosen, "valid": {"n": len(valid.labels), **table(best.predict(valid.features), valid)}}
    write_metrics(out, metrics)
    write_card(out, card(config), metrics)
    return metrics


def card(config: Config) -> Card:
    """What the model card of a run says."""
    other = f" and {config.data.name}, weighted down" if config.data.name else ""
    return Card(
        title="Reply-emotion predictor",
        summary="Logistic regression over the context's sentence vector and the course of emotions of the last turns.",
        data=f"The replies of elmd's own demonstrations (CC0-1.0, written for this project){other}. `valid` are our own "
        "replies that chose the regularisation; `copy_last` answers with the emotion of the last turn.",
        license="Apache-2.0; the encoder is MIT. Data sets that forbid it must not be trained on for weights you publish.",
        command="elmd train predictor --recipe predictor-cped --set data.root=DIR --out runs/reply-emotion",
        limits="Learned and scored here with annotated emotions of the context; live, they are read from the words and "
        "may be wrong. It knows how a caring partner answers, not how characters of a television drama do.",
    )


def own_replies(dialogue: Dialogue) -> Iterator[Dialogue]:
    """Every reply of elmd in one of our demonstrations: the last one and those in the middle."""
    yield dialogue
    for i, turn in enumerate(dialogue.turns):
        if i and turn.speaker == ASSISTANT:
            yield replace(
                dialogue,
                id=f"{dialogue.id}#{i}",
                turns=dialogue.turns[:i],
                reference=turn.text,
                reference_emotion=turn.emotion,
            )


def table(said: np.ndarray, rows: Rows) -> dict[str, dict[str, float]]:
    """Return accuracy, macro-F1 and weighted-F1 of predictions beside majority and copying the last emotion."""
    labels, counts = np.unique(rows.labels, return_counts=True)
    majority = np.full(len(rows.labels), labels[counts.argmax()])
    systems = {"predictor": said, "majority": majority, "copy_last": rows.answered}
    return {name: scores(rows.labels, found) for name, found in systems.items()}


def scores(given: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Return accuracy, macro-F1 and weighted-F1 over EKMAN."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(given, said)),
        "macro_f1": float(f1_score(given, said, labels=EKMAN, average="macro", zero_division=0.0)),
        "weighted_f1": float(f1_score(given, said, labels=EKMAN, average="weighted", zero_division=0.0)),
    }


def _select(
    config: Config, learn: Rows, valid: Rows, extra: Rows | None, say: Callable[[str], None]
) -> tuple[Any, dict[str, float]]:
    from sklearn.linear_model import LogisticRegression

    best, best_macro, chosen = None, -1.0, {}
    for strength, weight in product(config.strengths, config.data.weights if extra else [0.0]):
        features, labels, weights = learn.features, learn.labels, np.ones(len(learn.labels))
        if extra is not None and weight:
            features = np.vstack([features, extra.features])
            labels = np.concatenate([labels, extra.labels])
            weights = np.concatenate([weights, np.full(len(extra.labels), weight)])
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
        model.fit(features, labels, sample_weight=weights)
        macro = scores(valid.labels, model.predict(valid.features))["macro_f1"]
        say(f"C {strength} data weight {weight}: valid macro-F1 {macro:.3f}")
        if macro > best_macro:
            best, best_macro, chosen = model, macro, {"strength": strength, "data_weight": weight}
    return best, chosen


def _aligned(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients in the order of EKMAN, (7, features) and (7,); a label that never occurred can never win."""
    weight = np.zeros((len(EKMAN), model.coef_.shape[1]), np.float32)
    bias = np.full(len(EKMAN), -1e4, np.float32)
    for row, label in enumerate(model.classes_):
        weight[EKMAN.index(label)], bias[EKMAN.index(label)] = model.coef_[row], model.intercept_[row]
    return weight, bias


def _state(label: str | None) -> EmotionState:
    rest = (1 - CERTAINTY) / (len(EKMAN) - 1)
    return EmotionState.from_scores({name: CERTAINTY if name == (label or "neutral") else rest for name in EKMAN})


def _other(data: DataConfig) -> list[Dialogue]:
    if data.name is None:
        return []
    if data.root is None:
        raise UsageError("data.root: name the folder of the data set, --set data.root=DIR")
    dialogues = read_dialogues(data.name, Path(data.root), "train")
    return [item for dialogue in dialogues for item in dialogue.replies() if item.reference_emotion]
