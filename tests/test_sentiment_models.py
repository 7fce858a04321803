"""The contract of every sentiment model, at toy size."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch

from elmd.config import validate
from elmd.sentiment.base import MAIN, Shape
from elmd.sentiment.batch import Table
from elmd.sentiment.target import Target
from elmd.types import MODALITIES, Sample
from elmd.zoo import SENTIMENT

NAMES = SENTIMENT.names()
WIDTHS = {"text": 12, "audio": 5, "vision": 7}
TOY: dict[str, dict] = {
    "djmf": {"width": 16, "heads": 4, "feed": 32, "layers": 2},
    "misa": {"hidden": 32, "feed": 64},
    "tfn": {"text_hidden": 16, "text": 8, "audio": 8, "vision": 8, "hidden": 16},
    "self_mm": {"from_epoch": 1},  # Else the unimodal heads learn from the third epoch on.
    "cdml": {"from_epoch": 1, "width": 16, "layers": 1},
    "adafn": {"from_epoch": 1, "width": 16},
    "almt": {"width": 16, "heads": 4, "hidden": 32},
    "mmml": {"modalities": ["text", "audio", "vision"], "width": 16, "heads": 4, "layers": 2},
    "mult": {"width": 10, "layers": 2, "memory_layers": 2},
    "umdf": {"width": 16},
}
"""Settings that make a model small; the others are quick enough as they are."""
SUBSETS = list(chain.from_iterable(combinations(MODALITIES, n) for n in (1, 2, 3)))
TARGETS = ["sentiment", "polarity", "emotion", "valence_arousal"]
EMOTIONS = ("anger", "happiness", "neutral", "sadness")


def samples(count: int = 24, seed: int = 0, longest: int = 9) -> list[Sample]:
    """Samples of ragged lengths whose vectors carry their label; every seventh lacks a modality."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        label = float(random.uniform(-3, 3))
        features = {}
        for m in MODALITIES:
            noise = random.normal(size=(random.integers(1, longest), WIDTHS[m]))
            features[m] = (0.5 * noise + label * np.linspace(-1, 1, WIDTHS[m])).astype(np.float32)
        if i % 7 == 6:
            del features[MODALITIES[i % 3]]
        emotion = EMOTIONS[int(random.integers(len(EMOTIONS)))]
        made.append(Sample(f"v{i // 4}_{i}", f"v{i // 4}", "", "en", features, sentiment=label, emotion=emotion))
    return made


def table(target: str = "sentiment", modalities=MODALITIES, **kwargs) -> Table:
    return Table(samples(**kwargs), modalities, Target(target))


def build(name: str, target: str = "sentiment", seed: int = 0, samples: int = 24):
    module = SENTIMENT.load(name)
    torch.manual_seed(seed)
    return module.Model(validate(module.Config, TOY.get(name, {})), Shape(WIDTHS, Target(target), samples))


def optimizers(model) -> dict:
    groups = model.parameter_groups()
    named = {group for names in model.PHASES.values() for group in names or ()}
    return {
        phase: torch.optim.AdamW(chain.from_iterable(groups[g] for g in (names or set(groups) - named)), lr=3e-3)
        for phase, names in model.PHASES.items()
    }


def learn(model, rows: Table, epochs: int, size: int = 8) -> None:
    """What the trainer does, without its comforts."""
    model.train()
    steppers = optimizers(model)
    model.training_started(rows.labels)
    for epoch in range(1, epochs + 1):
        model.epoch_started(epoch)
        for phase, stepper in steppers.items():
            for batch in rows.batches(size, seed=epoch):
                model.zero_grad(set_to_none=True)
                prediction = model(batch)
                model.loss(batch, prediction, phase).backward()
                if phase == MAIN:
                    model.batch_ended(batch, prediction)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                stepper.step()


def error(model, rows: Table) -> float:
    model.eval()
    with torch.no_grad():
        batch = rows.batch(range(len(rows)))
        return float(model.target.loss(model(batch).output, batch.labels))


def outputs(model, rows: Table, chosen) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(rows.batch(chosen)).output


@pytest.mark.parametrize("name", NAMES)
def test_the_error_falls(name):
    model, rows = build(name), table()
    before = error(model, rows)
    learn(model, rows, epochs=12)
    assert error(model, rows) < 0.7 * before


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_group_and_gets_a_gradient(name):
    model, rows = build(name), table()
    grouped = [id(p) for group in model.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    seen = {n: False for n, _ in model.named_parameters()}
    model.train()
    model.training_started(rows.labels)
    for epoch in (1, 2):
        model.epoch_started(epoch)
        for phase in model.PHASES:
            for batch in rows.batches(12, seed=epoch):
                model.zero_grad(set_to_none=True)
                prediction = model(batch)
                model.loss(batch, prediction, phase).backward()
                if phase == MAIN:
                    model.batch_ended(batch, prediction)
                for n, p in model.named_parameters():
                    assert p.grad is None or p.grad.isfinite().all(), n
                    seen[n] |= p.grad is not None and bool(p.grad.abs().sum() > 0)
    assert [n for n, found in seen.items() if not found] == []


@pytest.mark.parametrize("name", NAMES)
def test_weights_carry_everything_a_prediction_needs(name):
    model, rows = build(name), table()
    learn(model, rows, epochs=2)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("bank.")}
    other = build(name, seed=1, samples=0)
    lacking = other.load_state_dict(kept, strict=False)
    assert not [k for k in (*lacking.missing_keys, *lacking.unexpected_keys) if not k.startswith("bank.")]
    assert torch.equal(outputs(model, rows, range(9)), outputs(other, rows, range(9)))


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_each_other_or_on_padding(name):
    model, rows = build(name), table()
    learn(model, rows, epochs=1)
    order = list(range(24))
    whole = outputs(model, rows, order)
    torch.testing.assert_close(outputs(model, rows, order[::-1]).flip(0), whole, atol=2e-5, rtol=1e-4)
    alone = torch.cat([outputs(model, rows, [i]) for i in order])
    torch.testing.assert_close(alone, whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_any_subset_of_modalities_works(name):
    model, rows = build(name), table()
    model.train()
    model.training_started(rows.labels)
    model.epoch_started(1)
    batch = rows.batch(range(6))
    said = {}
    for subset in SUBSETS:
        gone = {m: torch.ones(6, dtype=torch.bool) for m in MODALITIES if m not in subset}
        left = batch.without(gone)
        for phase in model.PHASES:
            assert model.loss(left, model(left), phase).isfinite()
        said[subset] = outputs_of(model, left)
        assert said[subset].isfinite().all()
    assert not torch.allclose(said[("text",)], said[MODALITIES])


def outputs_of(model, batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found = model(batch).output
    model.train()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_a_missing_modality_held_does_not_matter_and_is_not_taken_for_zeros(name):
    model = build(name)
    rows = table()
    batch = rows.batch([0, 1])
    gone = torch.tensor([True, True])
    for m in MODALITIES:
        missing = batch.without({m: gone})
        zeros = batch.without({})
        zeros.frames[m].values.zero_()
        assert not torch.equal(outputs_of(model, missing), outputs_of(model, zeros)), m
        batch = rows.batch([0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_set_without_a_modality_and_a_batch_of_one_can_be_learned_from(name):
    module = SENTIMENT.load(name)
    rows = table(modalities=("text",), count=5)
    model = module.Model(validate(module.Config, TOY.get(name, {})), Shape(rows.widths, Target(), 5))
    learn(model, rows, epochs=2, size=1)
    assert outputs(model, rows, range(5)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_learned(name, target):
    model, rows = build(name, target), table(target)
    rows.labels[3] = float("nan")
    learn(model, rows, epochs=3)
    found = outputs(model, rows, range(24))
    assert found.shape == (24, model.target.outputs)
    assert found.isfinite().all()
    assert len(model.target.decode(found)) == 24


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_a_run(name):
    runs = []
    for _ in range(2):
        model, rows = build(name, seed=3), table()
        torch.manual_seed(5)
        learn(model, rows, epochs=2)
        runs.append(outputs(model, rows, range(24)))
    assert torch.equal(*runs)


def test_batches_hold_every_row_once_and_like_lengths():
    rows = table(count=50, longest=30)
    drawn = [batch.index.tolist() for batch in rows.batches(8, seed=1)]
    assert sorted(chain.from_iterable(drawn)) == list(range(50))
    assert drawn == [batch.index.tolist() for batch in rows.batches(8, seed=1)]
    assert drawn != [batch.index.tolist() for batch in rows.batches(8, seed=2)]
    spread = [np.ptp(rows.lengths[batch].numpy()) for batch in drawn]
    assert np.mean(spread) < np.ptp(rows.lengths.numpy()) / 2


def test_a_batch_is_cropped_to_its_longest_row():
    rows = table()
    batch = rows.batch([0, 1, 6])
    for m in MODALITIES:
        frames = batch.frames[m]
        assert frames.values.shape[1] == max(1, int(frames.lengths.max()))
        assert frames.values.masked_select(~frames.mask[..., None]).abs().sum() == 0
    assert not batch.frames["text"].present[2]
