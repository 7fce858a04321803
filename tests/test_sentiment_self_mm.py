"""Self-MM: what generates the labels of its unimodal tasks, by hand and at toy size."""

import numpy as np
import pytest
import torch
from test_sentiment_models import WIDTHS, build, learn, table

from elmd.sentiment.base import Prediction, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models import self_mm
from elmd.sentiment.models._ulgm import FUSED, TASKS, Ulgm, pooled
from elmd.sentiment.target import Target
from elmd.types import MODALITIES

SIZE = {FUSED: 6, "text": 4, "audio": 3, "vision": 5}


def there(rows: int, missing=()) -> dict:
    return {m: torch.full((rows,), m not in missing) for m in MODALITIES}


def by_the_paper(labels: np.ndarray, epochs: list, limit: float) -> dict[str, np.ndarray]:
    """The labels of one axis after batches of (index, features), centres anew from the whole set after each."""
    own = {task: labels.astype(float).copy() for task in TASKS}
    bank = {task: np.full((len(labels), SIZE[task]), np.nan) for task in TASKS}

    def leaning(task: str, features: np.ndarray) -> np.ndarray:
        above = np.linalg.norm(features - bank[task][own[task] > 0].mean(0), axis=1)
        below = np.linalg.norm(features - bank[task][own[task] < 0].mean(0), axis=1)
        return (below - above) / (above + 1e-8)

    for n, batches in enumerate(epochs, 1):
        for index, features in batches:
            for m in MODALITIES if n > 1 else ():
                s, f, y = leaning(m, features[m]), leaning(FUSED, features[FUSED]), labels[index]
                new = np.clip((s / (f + 1e-8) * y + y + s - f) / 2, -limit, limit)
                own[m][index] = (n - 1) / (n + 1) * own[m][index] + 2 / (n + 1) * new
            for task in TASKS:
                bank[task][index] = features[task]
    return own


@pytest.mark.parametrize("axes", [1, 2])
def test_labels_are_generated_as_in_the_paper(axes):
    random = np.random.default_rng(0)
    labels = random.integers(-3, 4, (12, axes)).astype(np.float32)
    assert (labels == 0).any()
    epochs = []
    for _ in range(4):
        order = random.permutation(12).reshape(3, 4)
        epochs.append([(i, {t: random.normal(size=(4, w)).astype(np.float32) for t, w in SIZE.items()}) for i in order])
    bank = Ulgm(SIZE, 12, axes, 3.0)
    bank.start(torch.tensor(labels))
    for n, batches in enumerate(epochs, 1):
        for index, features in batches:
            rows, found = torch.tensor(index), {t: torch.tensor(f) for t, f in features.items()}
            if n > 1:
                bank.relabel(rows, torch.tensor(labels[index]), found, there(4), n)
            bank.store(rows, found, there(4))
    for axis in range(axes):
        wanted = by_the_paper(labels[:, axis], epochs, 3.0)
        for task in TASKS:
            np.testing.assert_allclose(bank[task].labels[:, axis].numpy(), wanted[task], atol=1e-3)
    assert not np.allclose(bank["text"].labels.numpy(), labels, atol=0.1)


def test_running_centres_are_the_means_of_what_is_remembered():
    model, rows = build("self_mm"), table()
    learn(model, rows, epochs=4)
    for task in TASKS:
        memory = model.bank[task]
        seen = rows.batch(range(24)).frames[task].present if task != FUSED else torch.ones(24, dtype=torch.bool)
        assert seen.all() == (task == FUSED)
        for side, chosen in enumerate([memory.labels[:, 0] > 0, memory.labels[:, 0] < 0]):
            assert memory.counts[side] == (chosen & seen).sum()
            centre = memory.sums[side] / memory.counts[side]
            torch.testing.assert_close(centre, memory.features[chosen & seen].mean(0), atol=1e-5, rtol=1e-4)


def test_a_missing_modality_keeps_its_label_and_leaves_its_centre():
    labels = torch.tensor([[2.0], [-2.0], [1.0], [-1.0]])
    bank = Ulgm(SIZE, 4, 1, 3.0)
    bank.start(labels)
    torch.manual_seed(0)
    features = {t: torch.randn(4, w) for t, w in SIZE.items()}
    bank.store(torch.arange(4), features, there(4))
    gone, later = torch.tensor([2, 3]), {t: f[2:] + 0.3 for t, f in features.items()}
    bank.relabel(gone, labels[2:], later, there(2, missing=("audio",)), 2)
    bank.store(gone, later, there(2, missing=("audio",)))
    assert torch.equal(bank["audio"].labels, labels)
    assert bank["audio"].counts.tolist() == [1, 1]
    torch.testing.assert_close(bank["audio"].sums[0], features["audio"][0])
    assert not torch.equal(bank["text"].labels[2:], labels[2:])
    assert bank["text"].counts.tolist() == [2, 2]


def test_without_samples_on_both_sides_labels_stay():
    labels = torch.tensor([[2.0], [1.0], [float("nan")]])
    bank, index = Ulgm(SIZE, 3, 1, 3.0), torch.arange(3)
    bank.start(labels)
    features = {t: torch.randn(3, w) for t, w in SIZE.items()}
    for epoch in (1, 2, 3):
        bank.relabel(index, labels, features, there(3), epoch)
        bank.store(index, features, there(3))
    assert torch.equal(bank["text"].labels[:2], labels[:2])
    assert bank["text"].labels[2].isnan()


def test_a_sample_counts_by_how_far_its_label_moved():
    model, rows = build("self_mm", "valence_arousal"), table("valence_arousal")
    model.training_started(rows.labels)
    batch = rows.batch([0, 1])
    moved = torch.tensor([[0.4, 0.0], [-0.2, 0.1]])
    model.bank["text"].labels[:2] = batch.labels + moved
    output = torch.randn(2, 2)
    off = (output - batch.labels - moved).abs()
    torch.testing.assert_close(model.unimodal_loss(batch, "text", output), (moved.abs().tanh() * off).mean())
    assert model.unimodal_loss(batch, "audio", output) == 0
    model.eval()
    assert model.unimodal_loss(batch, "text", output) == 0


def test_labels_move_from_the_epoch_that_is_set():
    for first in (2, 3):
        model = self_mm.Model(self_mm.Config(from_epoch=first), Shape(WIDTHS, Target(), 24))
        rows = table()
        learn(model, rows, epochs=first - 1)
        assert torch.equal(model.bank["text"].labels, rows.labels)
        learn(model, rows, epochs=first)
        assert not torch.equal(model.bank["text"].labels, rows.labels)
        assert torch.equal(model.bank[FUSED].labels, rows.labels)


def test_classes_are_learned_as_they_are_by_every_head():
    model, rows = build("self_mm", "emotion"), table("emotion")
    model.training_started(rows.labels)
    batch = rows.batch(range(8, 16))
    prediction = model(batch)
    seen = batch.frames["audio"].present
    wanted = (model.target.error(prediction.extras["audio"], batch.labels) * seen).sum() / 8
    assert not seen.all()
    torch.testing.assert_close(model.unimodal_loss(batch, "audio", prediction.extras["audio"]), wanted)
    assert len(model.bank["text"].labels) == 0


def test_labels_given_from_one_modality_are_used_when_asked():
    rows = table()
    plain = rows.batch([0, 1])
    given = torch.tensor([[1.5], [float("nan")]])
    batch = Batch(plain.index, plain.frames, plain.labels, {"text": given})
    output = torch.zeros(2, 1)
    losses = []
    for wanted in (False, True):
        model = self_mm.Model(self_mm.Config(given_labels=wanted), Shape(WIDTHS, Target(), 24))
        model.training_started(rows.labels)
        losses.append(float(model.unimodal_loss(batch, "text", output).detach()))
    assert losses == [0.0, pytest.approx(1.5 / 2)]


def test_a_resumed_run_goes_on_with_its_labels():
    model, rows = build("self_mm"), table()
    learn(model, rows, epochs=3)
    other = build("self_mm", seed=1)
    other.load_state_dict(model.state_dict())
    other.training_started(rows.labels)
    for task in TASKS:
        assert torch.equal(other.bank[task].labels, model.bank[task].labels)


def test_a_text_that_came_as_words_has_its_labels():
    model, rows = build("self_mm"), table()
    model.training_started(rows.labels)
    model.epoch_started(1)
    for _ in range(2):
        for batch in rows.batches(12):
            # The trainer's own batch has no vectors of a text whose encoder learns.
            words = batch.without({"text": torch.ones(len(batch), dtype=torch.bool)})
            model.batch_ended(words, model(batch))
    assert not torch.equal(model.bank["text"].labels, rows.labels)


def test_batches_of_other_sets_are_no_part_of_the_memory():
    model, rows = build("self_mm", samples=4), table()
    model.eval()
    batch = rows.batch([20, 21])
    prediction = model(batch)
    assert model.loss(batch, prediction).isfinite()
    model.batch_ended(batch, prediction)
    assert model.bank["text"].counts.sum() == 0


def test_a_text_is_its_mean_or_its_first_vector():
    frames = Frames(torch.tensor([[[1.0], [3.0], [99.0]], [[5.0], [0.0], [0.0]]]), torch.tensor([2, 1]))
    assert pooled(frames, "mean").tolist() == [[2.0], [5.0]]
    assert pooled(frames, "first").tolist() == [[1.0], [5.0]]


def test_a_unimodal_head_sees_its_modality_only():
    model, rows = build("self_mm").eval(), table()
    batch = rows.batch([0, 1])
    before: Prediction = model(batch)
    batch.frames["audio"].values.add_(1.0)
    after = model(batch)
    assert torch.equal(before.extras["text"], after.extras["text"])
    assert not torch.equal(before.extras["audio"], after.extras["audio"])
    assert not torch.equal(before.output, after.output)
