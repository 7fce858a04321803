"""DJMF: the pyramid, the two tasks and the sign of its estimates of information."""

import pytest
import torch
from test_sentiment_models import WIDTHS, table

from elmd.sentiment.base import MAIN, Shape
from elmd.sentiment.batch import Frames
from elmd.sentiment.models.djmf import BLOCKS, ESTIMATE, IRRELEVANCES, REDUNDANCIES, Config, Model, halved
from elmd.sentiment.target import Target


def small(target="sentiment", **settings):
    torch.manual_seed(0)
    config = Config(**{"width": 16, "heads": 4, "feed": 32, "layers": 2, **settings})
    return Model(config, Shape(WIDTHS, Target(target), 24)).eval()


def test_halving_takes_the_maxima_of_pairs_and_ignores_padding():
    values = torch.tensor([[[1.0], [3.0], [-2.0], [9.0]], [[-5.0], [-4.0], [-3.0], [-1.0]]])
    found = halved(Frames(values, torch.tensor([3, 4])))
    assert found.values[..., 0].tolist() == [[3, -2], [-4, -1]]
    assert found.lengths.tolist() == [2, 2]
    single = halved(Frames(values[:, :1], torch.tensor([1, 1])))
    assert single.values[..., 0].tolist() == [[1], [-5]]


def test_each_layer_has_half_the_frames_of_the_one_below():
    model, seen = small(layers=3, stride=1), []
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, paths: seen.append({b: paths[b].lengths for b in BLOCKS}))
    batch = table(longest=40).batch(range(5))
    model(batch)
    expected = {b: batch.frames[asking].lengths.clamp(min=1) for b, (asking, _) in BLOCKS.items()}
    for paths in seen:
        expected = {b: (lengths + 1) // 2 for b, lengths in expected.items()}
        assert all(torch.equal(paths[b], expected[b]) for b in BLOCKS)


def test_the_second_layer_asks_the_opposite_direction():
    model, batch = small(stride=1), table().batch([0, 1])
    taken = []
    model.layers[1].blocks["ta"].register_forward_hook(lambda _, args, __: taken.append(args))
    below = []
    model.layers[0].register_forward_hook(lambda _, __, paths: below.append(paths))
    model(batch)
    asking, mask, asked = taken[0]
    assert torch.equal(asking, below[0]["ta"].values)
    assert torch.equal(asked, below[0]["at"].values)
    assert torch.equal(mask, below[0]["at"].mask)


def test_the_way_down_adds_the_level_above_stretched_by_two():
    model = small()
    task = model.tasks[0]
    laterals = task.laterals["ta"]
    for lateral in laterals:
        torch.nn.init.eye_(lateral.weight)
        torch.nn.init.zeros_(lateral.bias)
    low = Frames(torch.randn(1, 3, 16), torch.tensor([3]))
    high = Frames(torch.randn(1, 2, 16), torch.tensor([2]))
    found = task._down(laterals, [low, high])
    stretched = high.values[:, [0, 0, 1]]
    torch.testing.assert_close(found, torch.cat([high.values.amax(1), (low.values + stretched).amax(1)], -1))


@pytest.mark.parametrize(
    ("target", "outputs"), [("sentiment", 3), ("valence_arousal", 3), ("polarity", 1), ("emotion", 1)]
)
def test_one_task_has_numbers_and_the_other_classes(target, outputs):
    model, batch = small(target), table(target).batch(range(4))
    assert model(batch).extras["second"].shape == (4, outputs)
    assert bool(model.second.labels) != bool(model.target.labels)


def test_the_second_task_learns_the_polarity_of_the_label():
    model, rows = small(second=1.0, redundancy=0.0, irrelevance=0.0), table()
    rows.labels[:3] = torch.tensor([[-1.5], [0.0], [float("nan")]])
    batch = rows.batch(range(3))
    said = model(batch)
    logs = said.extras["second"].log_softmax(-1)
    wanted = (said.output[:2, 0] - batch.labels[:2, 0]).abs().mean() - (logs[0, 0] + logs[1, 1]) / 2
    assert model.loss(batch, said).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_tasks_share_the_way_up_and_not_the_way_down():
    model, batch = small(), table().batch([0, 1])
    said = model(batch)
    said.output.sum().backward()
    assert all(p.grad is None for p in model.tasks[1].parameters())
    assert all(p.grad is not None for p in model.layers.parameters())


def information(model, batch, pairs=REDUNDANCIES + IRRELEVANCES):
    return model._information(batch, model(batch).extras, pairs)


@pytest.mark.parametrize(("mode", "falls"), [("minimise", True), ("maximise", False)])
def test_the_sign_of_the_estimates(mode, falls):
    """A step down the regulariser lowers the upper bound, or raises the lower one."""
    model, batch = small(information=mode), table().batch(range(24))
    fit = torch.optim.Adam(model.parameter_groups()[ESTIMATE], lr=1e-2)
    for _ in range(30):
        fit.zero_grad()
        model.loss(batch, model(batch), ESTIMATE).backward()
        fit.step()
    before = information(model, batch)
    assert (before > 0) == falls
    groups = model.parameter_groups()
    move = torch.optim.SGD(groups[MAIN], lr=0.05)
    for _ in range(5):
        model.zero_grad()
        information(model, batch).backward()
        move.step()
    assert information(model, batch) < before


def test_an_upper_bound_below_zero_moves_nothing():
    model = small()
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    bound = model._bound(scores, torch.ones(2, dtype=torch.bool))
    bound.backward()
    assert bound == 0
    assert not scores.grad.any()


def test_the_estimate_phase_fits_q_alone():
    model, batch = small(), table().batch(range(12))
    model.loss(batch, model(batch), ESTIMATE).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith("likelihoods.")}


def test_rows_without_one_of_the_modalities_have_no_part_in_its_information():
    model, rows = small(), table()
    batch = rows.batch(range(6))
    half = torch.tensor([False, False, False, False, True, True])
    there = batch.without({"audio": half})
    parts = dict(model(there).extras)
    before = model._information(there, parts, [("ta", "at")])
    parts["at"] = parts["at"] + 5 * half[:, None]
    assert model._information(there, parts, [("ta", "at")]) == before
    assert model._information(batch, parts, [("ta", "at")]) != before
