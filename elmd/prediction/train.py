"""Training the reply-emotion predictor: logistic regression with class weights (scikit-learn), or a transformer.

The logistic regression learns from the replies of our own demonstrations and, weighted down, of a dialogue data set; the
strength of the regularisation and the weight of the data set are chosen by macro-F1 on the valid part of our own replies.
The transformer (`elmd.prediction.fit`) learns from either or both, and from how people look.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from elmd.config import Strict, validate
from elmd.data import demonstration_files, shipped_demonstrations
from elmd.datasets import read_dialogues
from elmd.errors import UsageError
from elmd.files import write_text
from elmd.labels import EKMAN
from elmd.prediction.fit import FitConfig, Fitted, Lesson, fit
from elmd.prediction.network import NetworkConfig
from elmd.prediction.predictor import COURSE, FACTS, course_features
from elmd.prediction.scenes import Encode, Read, gather
from elmd.runs import Card, data_files, draw, write_card, write_metrics, write_run
from elmd.types import ASSISTANT, Dialogue, EmotionState, context_text
from elmd.zoo import DATASETS, EMBEDDERS

Save = Callable[[Path], None]

CERTAINTY = 0.8
"""Probability given to an annotated emotion in training, as a reader is never certain."""


class DataConfig(Strict):
    """A dialogue data set with emotion labels, beside our own demonstrations."""

    name: str | None = None
    root: str | None = None
    weights: list[float] = [0.0, 0.03, 0.1, 0.3]
    """Weights of one of its replies that the logistic regression tries; ours weigh 1."""
    weight: float = 1.0
    """Weight of one of its replies when the transformer learns; ours weigh 1."""
    own: bool = True
    """Learn from the replies of our own demonstrations as well; the logistic regression always does."""


class Config(Strict):
    """How the predictor is trained."""

    model: Literal["linear", "transformer"] = "linear"
    seed: int = 0
    embedder: str = "e5"
    encoder: dict[str, Any] = {}
    data: DataConfig = DataConfig()
    strengths: list[float] = [0.1, 0.3, 1.0, 3.0, 10.0]
    """Inverse regularisation strengths (scikit-learn's C) that are tried."""
    valid_share: float = 0.2
    network: NetworkConfig = NetworkConfig()
    fit: FitConfig = FitConfig()


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


def train(config: Config, out: Path, say: Callable[[str], None], read: Read) -> dict[str, Any]:
    """Train, write weights, run.toml and metrics.json into `out`, return the metrics.

    Args:
        config: What is trained on what.
        out: A folder.
        say: Takes a line on how far it is.
        read: Reads the emotion of words; the transformer learns from what it reads.
    """
    module = EMBEDDERS.load(config.embedder)
    embedder = module.Embedder(validate(module.Config, config.encoder, "encoder"))
    own = demonstration_files() if config.model == "linear" or config.data.own else []
    files = [*own, *(data_files(Path(config.data.root)) if config.data.root else [])]
    metrics, save = (_linear if config.model == "linear" else _transformer)(config, embedder, say, read)
    out.mkdir(parents=True, exist_ok=True)
    write_run(out, "predictor", config, files)
    save(out)
    write_metrics(out, metrics)
    write_card(out, card(config), metrics)
    return metrics


def _linear(config: Config, embedder: Any, say: Callable[[str], None], read: Read) -> tuple[dict[str, Any], Save]:
    def encode(items: Sequence[Dialogue]) -> np.ndarray:
        return np.asarray(embedder.encode([context_text(item.turns) for item in items]))

    own = [item for dialogue in shipped_demonstrations() for item in own_replies(dialogue)]
    learn = Rows.of([item for item in own if draw(item.origin) >= config.valid_share], encode)
    valid = Rows.of([item for item in own if draw(item.origin) < config.valid_share], encode)
    other = _other(config.data)
    say(f"{len(learn.labels)} own replies, {len(valid.labels)} to select on, {len(other)} of {config.data.name}")
    extra = Rows.of(other, encode) if other else None
    best, chosen = _select(config, learn, valid, extra, say)

    def save(out: Path) -> None:
        from safetensors.numpy import save_file

        weight, bias = _aligned(best)
        save_file({"weight": weight, "bias": bias}, out / "predictor.safetensors")
        facts = {"encoder": embedder.name, "revision": embedder.revision, **chosen}
        write_text(out / FACTS, json.dumps(facts) + "\n")

    valid_scores = {"n": len(valid.labels), **table(best.predict(valid.features), valid.labels, valid.answered)}
    return {"chosen": chosen, "valid": valid_scores}, save


def _transformer(config: Config, embedder: Any, say: Callable[[str], None], read: Read) -> tuple[dict[str, Any], Save]:
    own = [item for dialogue in shipped_demonstrations() for item in own_replies(dialogue)] if config.data.own else []
    learn = [item for item in own if draw(item.origin) >= config.valid_share]
    valid = [item for item in own if draw(item.origin) < config.valid_share]
    other, other_valid = _other(config.data), _other(config.data, "valid")
    say(f"{len(learn)} own replies, {len(other)} of {config.data.name}; tested on {len(valid)} and {len(other_valid)}")
    root = Path(config.data.root or ".")
    taught = lesson(config, learn, other, embedder.encode, read, root)
    fitted = fit(taught, config.fit, config.network, config.seed, say)
    metrics: dict[str, Any] = {"unseen_folds": _both(fitted.unseen, [*learn, *other], taught.own)}
    for name, items in (("own_valid", valid), ("valid", other_valid)):
        if items:
            metrics[name] = tested(fitted, items, config, embedder.encode, read, root)

    def save(out: Path) -> None:
        from elmd.prediction.network import save as save_weights
        from elmd.runs import plot_runs

        facts = {"encoder": embedder.name, "revision": embedder.revision, "modalities": config.fit.modalities}
        save_weights(fitted.ensemble, out, facts)
        plot_runs(out / "curves.png", {f"fold {i}": rows for i, rows in enumerate(fitted.history, 1)}, "predictor")

    return metrics, save


def lesson(
    config: Config, own: Sequence[Dialogue], other: Sequence[Dialogue], encode: Encode, read: Read, root: Path
) -> Lesson:
    """Return what the transformer learns from: our own replies, which choose if there are any, and those of a data set."""
    items = [*own, *other]
    if not items:
        raise UsageError("nothing to learn from: set data.name and data.root, or data.own")
    scenes, given = gather(items, config.network.turns, encode, read, root)
    ours = np.arange(len(items)) < len(own)
    return Lesson(
        scenes,
        given,
        labels=np.array([EKMAN.index(item.reference_emotion or "neutral") for item in items]),
        groups=[item.origin if mine else show_of(item) for item, mine in zip(items, ours, strict=True)],
        weights=np.where(ours, 1.0, config.data.weight),
        own=ours if len(own) else ~ours,
    )


def tested(
    fitted: Fitted, items: Sequence[Dialogue], config: Config, encode: Encode, read: Read, root: Path
) -> dict[str, Any]:
    """Return the scores of an ensemble on replies it did not learn from, with emotions read and given."""
    scenes, given = gather(items, config.network.turns, encode, read, root)
    found = {}
    for kind, emotions in (("read", scenes.emotions), ("given", given)):
        inputs = fitted.ensemble.inputs(replace(scenes, emotions=emotions), config.fit.modalities)
        found[kind] = fitted.ensemble.probabilities(inputs)
    return _both(found, items, np.ones(len(items), bool))


def _both(found: dict[str, np.ndarray], items: Sequence[Dialogue], rows: np.ndarray) -> dict[str, Any]:
    """The scores with emotions read and given, beside the baselines once."""
    both = {f"emotions_{kind}": told(shares, items, rows) for kind, shares in found.items()}
    baselines = {name: value for name, value in both["emotions_read"].items() if name != "predictor"}
    return baselines | {name: measured["predictor"] for name, measured in both.items()}


def told(shares: np.ndarray, items: Sequence[Dialogue], rows: np.ndarray) -> dict[str, Any]:
    """Return the scores of probabilities (n, 7) on those of the replies that `rows` marks, beside the baselines."""
    chosen = [item for item, wanted in zip(items, rows, strict=True) if wanted]
    said = np.array(EKMAN)[shares[rows].argmax(1)]
    labels = np.array([item.reference_emotion for item in chosen])
    answered = np.array([item.last.emotion or "neutral" for item in chosen])
    return {"n": len(chosen), **table(said, labels, answered)}


def show_of(item: Dialogue) -> str:
    """Return what is held out together: the show where an id is "<set>:<show>_<number>", else the dialogue."""
    name, _, number = item.origin.rpartition("_")
    return name if name and number.isdecimal() and not name.endswith((":train", ":valid")) else item.origin


def card(config: Config) -> Card:
    """What the model card of a run says."""
    return _card_linear(config) if config.model == "linear" else _card_transformer(config)


def _card_linear(config: Config) -> Card:
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


def _card_transformer(config: Config) -> Card:
    own = ["elmd's own demonstrations (CC0-1.0)"] if config.data.own else []
    name = config.data.name
    other = [f"the train split of {name} ({DATASETS.load(name).CARD.license})"] if name else []
    return Card(
        title="Reply-emotion predictor: transformer",
        summary=f"An ensemble of {config.fit.folds} small transformers over the last {config.network.turns} turns: "
        f"{', '.join(config.fit.modalities)}.",
        data=f"The replies of {' and '.join([*own, *other])}. Each member chose its epoch on a fold of shows (or "
        "dialogues) that it did not learn from: `unseen_folds`. `valid` chose nothing. `copy_last` answers with the "
        "annotated emotion of the last turn; `emotions_read` sees the emotions that the text reader read, "
        "`emotions_given` the annotated ones.",
        license="That of the data set: weights learned from research data may not be published under a free licence.",
        command="elmd train predictor --recipe run.toml --out DIR",
        limits="It knows how the people of its data set answer, which need not be how a caring partner should.",
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


def table(said: np.ndarray, given: np.ndarray, answered: np.ndarray) -> dict[str, dict[str, float]]:
    """Return accuracy, macro-F1 and weighted-F1 of predictions beside majority and copying the last emotion."""
    labels, counts = np.unique(given, return_counts=True)
    majority = np.full(len(given), labels[counts.argmax()])
    systems = {"predictor": said, "majority": majority, "copy_last": answered}
    return {name: scores(given, found) for name, found in systems.items()}


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


def _other(data: DataConfig, split: str = "train") -> list[Dialogue]:
    if data.name is None or split not in DATASETS.load(data.name).CARD.splits:
        return []
    if data.root is None:
        raise UsageError("data.root: name the folder of the data set, --set data.root=DIR")
    dialogues = read_dialogues(data.name, Path(data.root), split)
    return [item for dialogue in dialogues for item in dialogue.replies() if item.reference_emotion]
