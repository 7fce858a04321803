"""Training of the transformer that predicts the reply's emotion: cross-fitted over the train split.

The train dialogues are cut into folds by show. Each member of the ensemble learns from all folds but one, and that one
says which epoch is kept. So no other split is needed to choose anything, every dialogue is learned from, and what the
members say about the folds they did not learn from is an honest score of the train split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from elmd.config import Strict
from elmd.labels import EKMAN
from elmd.prediction.network import KINDS, Ensemble, Inputs, Network, NetworkConfig, Table
from elmd.prediction.scenes import NOBODY, Scenes
from elmd.runs import draw

Kind = Literal["text", "emotions", "vision"]


class FitConfig(Strict):
    """How the transformer learns."""

    folds: int = 4
    epochs: int = 10
    patience: int = 4
    """Epochs without a gain before a member stops."""
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    balance: float = 0.5
    """Share of the logit adjustment for rare labels: 0 leaves the classes as they are, 1 balances them."""
    label_smoothing: float = 0.1
    turn_loss: float = 0.5
    """Weight of naming each turn's own annotated emotion, which is learned beside the reply's."""
    modalities: list[Kind] = ["text", "emotions", "vision"]
    modality_dropout: dict[str, float] = {"text": 0.2, "emotions": 0.2, "vision": 0.5}
    """How often a context is learned without one of them."""
    emotions: Literal["read", "given", "both"] = "both"
    """Emotions of the context in training: read from the words, annotated, or either by a toss for each context."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What is learned from.

    Attributes:
        scenes: Contexts, with emotions as they are read.
        given: Annotated emotions of the same utterances, (u, 7).
        labels: Index into EKMAN of each reply's emotion, (n,).
        groups: What each row must not be separated from, (n,): its show or dialogue.
        weights: Weight of each row in the loss, (n,).
        own: Rows that choose the epoch, (n,) bool.
    """

    scenes: Scenes
    given: np.ndarray
    labels: np.ndarray
    groups: Sequence[str]
    weights: np.ndarray
    own: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """An ensemble and how it came about.

    Attributes:
        ensemble: One member a fold.
        unseen: Probabilities that members gave to the rows they did not learn from, (n, 7), with emotions "read" and
            "given".
        history: The epochs of each member.
    """

    ensemble: Ensemble
    unseen: dict[str, np.ndarray]
    history: list[list[dict[str, float]]]


def fit(lesson: Lesson, config: FitConfig, network: NetworkConfig, seed: int, say: Callable[[str], None]) -> Fitted:
    """Learn one member a fold."""
    torch.manual_seed(seed)
    scenes = lesson.scenes
    vision = scenes.vision.shape[1] if "vision" in config.modalities and scenes.seen.any() else 0
    ensemble = Ensemble(network, scenes.text.shape[1], vision, config.folds)
    ensemble.learn_components(scenes)
    learner = _Learner(lesson, config, ensemble)
    folds = fold_of(lesson.groups, config.folds, seed)
    unseen = {known: np.zeros((len(scenes), len(EKMAN)), np.float32) for known in learner.tables}
    history = []
    for fold, member in enumerate(ensemble.networks):
        inside, outside = (torch.from_numpy(np.flatnonzero(rows)) for rows in (folds != fold, folds == fold))
        history.append(learner.learn(member, inside, outside))
        for known, shares in unseen.items():
            shares[outside] = learner.probabilities(member, outside, known)
        say(f"fold {fold + 1}/{config.folds}: " + _told(max(history[-1], key=lambda row: row["valid"]), history[-1]))
    return Fitted(ensemble.eval(), unseen, history)


def fold_of(groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, (n,): groups in an order drawn by `seed`, each to the smallest fold so far."""
    counts = dict.fromkeys(sorted(set(groups), key=lambda group: draw(f"{seed}/{group}")), 0)
    for group in groups:
        counts[group] += 1
    sizes, home = [0] * folds, {}
    for group, count in counts.items():
        home[group] = sizes.index(min(sizes))
        sizes[home[group]] += count
    return np.array([home[group] for group in groups], np.int64)


class _Learner:
    """One pass of training after another over a member of the ensemble."""

    def __init__(self, lesson: Lesson, config: FitConfig, ensemble: Ensemble) -> None:
        self.config, self.lesson = config, lesson
        read = ensemble.inputs(lesson.scenes, config.modalities)
        given = ensemble.inputs(replace(lesson.scenes, emotions=lesson.given), config.modalities)
        self.tables: dict[str, Table] = {"read": read, "given": given}
        self.labels = torch.from_numpy(lesson.labels)
        self.weights = torch.from_numpy(lesson.weights).float()
        certain = torch.from_numpy(lesson.given.max(1) > 1 - 1e-6)
        self.turn_labels = torch.where(certain, torch.from_numpy(lesson.given.argmax(1)), -100)

    def learn(self, member: Network, inside: Tensor, outside: Tensor) -> list[dict[str, float]]:
        """Train on the rows `inside`, keep the epoch that scores best on those `outside`, return what each scored."""
        config = self.config
        optimizer = torch.optim.AdamW(member.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        counts = torch.bincount(self.labels[inside], self.weights[inside], len(EKMAN)) + 1
        adjustment = config.balance * (counts / counts.sum()).log()
        steps = -(-len(inside) // config.batch_size) * config.epochs
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
        history: list[dict[str, float]] = []
        best = {name: value.clone() for name, value in member.state_dict().items()}
        for epoch in range(1, config.epochs + 1):
            member.train()
            losses = []
            for rows in torch.split(inside[torch.randperm(len(inside))], config.batch_size):
                loss = self._loss(member, rows, adjustment)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(member.parameters(), 1.0)
                optimizer.step()
                rate.step()
                losses.append(float(loss.detach()))
            found = self._valid(member, outside)
            if found > max((row["valid"] for row in history), default=-1.0):
                best = {name: value.clone() for name, value in member.state_dict().items()}
            history.append({"epoch": epoch, "loss": float(np.mean(losses)), "valid": found})
            if epoch - max(history, key=lambda row: row["valid"])["epoch"] >= config.patience:
                break
        member.load_state_dict(best)
        return history

    @torch.inference_mode()
    def probabilities(self, member: Network, rows: Tensor, known: str) -> np.ndarray:
        """Return (len(rows), 7), with the emotions that are "read" or "given"."""
        member.eval()
        found: np.ndarray = member(self.tables[known].rows(rows))[0].softmax(-1).numpy()
        return found

    def _valid(self, member: Network, rows: Tensor) -> float:
        """The mean of macro-F1 and weighted F1, over the ways in which emotions are known."""
        from sklearn.metrics import f1_score

        rows = rows[torch.from_numpy(self.lesson.own)[rows]]
        given = self.labels[rows].numpy()
        kinds = ("read", "given") if self.config.emotions == "both" else (self.config.emotions,)
        said = [self.probabilities(member, rows, kind).argmax(1) for kind in kinds]
        ways = ("macro", "weighted")
        return float(np.mean([f1_score(given, one, average=way, zero_division=0.0) for one in said for way in ways]))

    def _loss(self, member: Network, rows: Tensor, adjustment: Tensor) -> Tensor:
        logits, turns = member(self._hidden(self._batch(rows)))
        smoothing = self.config.label_smoothing
        weights = self.weights[rows]
        each = nn.functional.cross_entropy(
            logits + adjustment, self.labels[rows], reduction="none", label_smoothing=smoothing
        )
        table = self.tables["read"]
        own = torch.where(table.roles[rows] == NOBODY, -100, self.turn_labels[table.turns[rows]])
        loss = (each * weights).sum() / weights.sum()
        if self.config.turn_loss and bool((own >= 0).any()):
            loss = loss + self.config.turn_loss * nn.functional.cross_entropy(
                turns.flatten(0, 1), own.flatten(), ignore_index=-100, label_smoothing=smoothing
            )
        return loss

    def _batch(self, rows: Tensor) -> Inputs:
        if self.config.emotions != "both":
            return self.tables[self.config.emotions].rows(rows)
        read, given = (self.tables[kind].rows(rows) for kind in ("read", "given"))
        toss = torch.rand(len(rows), 1, 1) < 0.5
        text, emotions, vision = read.values
        return replace(read, values=(text, torch.where(toss, emotions, given.values[1]), vision))

    def _hidden(self, inputs: Inputs) -> Inputs:
        """Hide modalities of whole contexts at random."""
        chances = torch.tensor([self.config.modality_dropout.get(kind, 0.0) for kind in KINDS])
        kept = torch.rand(3, inputs.roles.shape[0], 1) >= chances[:, None, None]
        return replace(inputs, there=inputs.there & kept)


def _rate(done: float) -> float:
    """Return the factor on the learning rate: up over a tenth of the steps, then down to nothing."""
    return min(1.0, 10 * done + 0.01) * max(0.0, 1 - done)


def _told(best: dict[str, float], history: list[dict[str, float]]) -> str:
    return (
        f"best of {len(history)} epochs {best['epoch']:.0f}, mean F1 {best['valid']:.3f} on shows it did not learn from"
    )
