"""ViT-Diff: the difference of two attention maps, the round of the modalities, and the ablations."""

import pytest
import torch

from elmd.config import validate
from elmd.sentiment.base import Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models.vit_diff import Balance, Between, Config, Model, Within
from elmd.sentiment.target import Target

WIDTHS = {"text": 6, "audio": 3, "vision": 4}
LENGTHS = {"text": [4, 2], "audio": [3, 5], "vision": [6, 1]}


def build(widths: dict | None = None, **settings) -> Model:
    torch.manual_seed(0)
    small = {"width": 8, "hidden": 16, "dropout": 0.0, **settings}
    return Model(validate(Config, small), Shape(widths or WIDTHS, Target()))


def batch(widths: dict = WIDTHS, lengths: dict = LENGTHS) -> Batch:
    torch.manual_seed(0)
    frames = {m: Frames(torch.randn(2, max(n), widths[m]), torch.tensor(n)) for m, n in lengths.items()}
    return Batch(torch.arange(2), frames, torch.ones(2, 1), {})


def heads(values: torch.Tensor, parts: int) -> list[torch.Tensor]:
    """The parts of one row's projection, each (2 heads, L, 4)."""
    return [part.unflatten(-1, (2, 4)).transpose(0, 1) for part in values.chunk(parts, -1)]


def weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(1, 2) / 2).softmax(-1)


def normed(values: torch.Tensor, start: float) -> torch.Tensor:
    scaled = (1 - start) * values / (values.pow(2).mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    return scaled.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("factor", [0.0, 0.6])
def test_attention_within_is_the_difference_of_two_maps(factor):
    torch.manual_seed(0)
    part, x = Within(8, 2, differential=True), torch.randn(1, 5, 8)
    found = part(Frames(x, torch.tensor([3])), torch.tensor([factor, 0.2]))[0, :3]
    v, q1, k1, q2, k2 = heads(part.project(x[0, :3]), 5)
    expected = part.out(normed((weights(q1, k1) - factor * weights(q2, k2)) @ v, 0.2))
    torch.testing.assert_close(found, expected)


def test_attention_between_takes_the_second_set_from_the_first():
    torch.manual_seed(0)
    part, x, t, a = Between(8, 2, differential=True), *(torch.randn(1, n, 8) for n in (4, 5, 6))
    found = part(x, Frames(t, torch.tensor([5])), Frames(a, torch.tensor([2])), torch.tensor([0.7, 0.2]))[0]
    (q,), (kt, vt), (ka, va) = (
        heads(m(s), n) for m, s, n in ((part.query, x[0], 1), (part.kept, t[0], 2), (part.cancelled, a[0, :2], 2))
    )
    signed = torch.cat([weights(q, kt), -0.7 * weights(q, ka)], -1)
    torch.testing.assert_close(found, part.out(normed(signed @ torch.cat([vt, va], 1), 0.2)))


def test_equal_maps_cancel():
    torch.manual_seed(0)
    part, x = Within(8, 2, differential=True), torch.randn(1, 5, 8)
    with torch.no_grad():
        part.project.weight[24:] = part.project.weight[8:24]
    tokens = Frames(x, torch.tensor([5]))
    assert (
        part(tokens, torch.tensor([1.0, 0.2])).abs().max() < 1e-2 < part(tokens, torch.tensor([0.5, 0.2])).abs().max()
    )


def test_lambda_starts_as_in_the_paper():
    balance = Balance(3, 4)
    with torch.no_grad():
        balance.vectors.zero_()
    expected = torch.tensor([0.2, 0.8 - 0.6 * 0.740818, 0.8 - 0.6 * 0.548812])
    torch.testing.assert_close(balance()[:, 0, 0], expected)
    with torch.no_grad():
        balance.vectors[1, 0] = torch.tensor([1.0, 0.5, 0.5, 0.0])[:, None]
    assert balance()[1, 0, 0].item() == pytest.approx(expected[1].item() + 2.718282**2 - 1, rel=1e-5)
    assert balance()[1, 1, 0].item() == pytest.approx(expected[1].item())


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_modalities_go_round(steps):
    model, seen = build(steps=steps), []
    model.blocks[0].register_forward_hook(lambda _, args, __: seen.append([f.lengths.tolist() for f in args[:3]]))
    model(batch())
    rounds = ["vision text audio", "audio vision text", "text audio vision", "vision text audio"]
    assert seen == [[LENGTHS[m] for m in places.split()] for places in rounds[:steps]]


def test_only_lambda_grows_with_tied_steps():
    sizes = {steps: sum(p.numel() for p in build(steps=steps).parameters()) for steps in (1, 3)}
    assert sizes[3] - sizes[1] == 2 * 2 * 4 * 4
    block = sum(p.numel() for p in build().blocks[0].parameters())
    assert sum(p.numel() for p in build(tied=False).parameters()) == sizes[3] + 2 * block


@pytest.mark.parametrize("settings", [{"differential": False}, {"tied": False}, {"steps": 1}, {"steps": 4}])
def test_every_ablation_learns_with_all_its_parameters(settings):
    model, rows = build(**settings), batch()
    rows = rows.without({"text": torch.tensor([True, False]), "audio": torch.tensor([True, False])})
    for left in (rows, rows.without({"vision": torch.tensor([True, False])})):
        model.loss(left, model(left)).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_without_the_difference_no_second_map_is_there():
    model = build(differential=False)
    assert model.balance is None
    part = model.blocks[0].between
    q, one, two = torch.randn(1, 4, 8), Frames(torch.randn(1, 5, 8), torch.tensor([5])), torch.randn(2, 1, 3, 8)
    said = [part(q, one, Frames(other, torch.tensor([3])), None) for other in two]
    assert torch.equal(*said)


def test_patches_of_a_vit_are_read():
    widths = {**WIDTHS, "vision": 768}
    said = build(widths).eval()(batch(widths, {**LENGTHS, "vision": [196, 196]}))
    assert said.output.shape == (2, 1)
    assert said.output.isfinite().all()
