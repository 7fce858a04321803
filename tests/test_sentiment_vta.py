"""VTA: correlations by hand, ordered classes, and which modality plays the picture's part."""

import numpy as np
import pytest
import torch

from elmd.config import validate
from elmd.sentiment.base import Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models.vta import Config, Correlation, Model, Pool
from elmd.sentiment.target import Target

WIDTHS = {"text": 6, "audio": 3, "vision": 4}
LENGTHS = {"text": [4, 2], "audio": [3, 5], "vision": [6, 1]}


def build(target: Target | None = None, **settings) -> Model:
    torch.manual_seed(0)
    small = {"width": 8, "heads": 2, "hidden": (8, 8), **settings}
    return Model(validate(Config, small), Shape(WIDTHS, target or Target()))


def batch(labels: torch.Tensor) -> Batch:
    torch.manual_seed(0)
    frames = {m: Frames(torch.randn(2, max(n), WIDTHS[m]), torch.tensor(n)) for m, n in LENGTHS.items()}
    return Batch(torch.arange(2), frames, labels, {})


def test_correlations_are_those_of_the_equations():
    torch.manual_seed(0)
    part = Correlation(4)
    words, regions = torch.randn(1, 5, 4), torch.randn(1, 7, 4)
    words[:, 3:], regions[:, 2:] = 0, 0
    text, picture = part(Frames(words, torch.tensor([3])), Frames(regions, torch.tensor([2])))
    w = {k: v.detach().numpy() for k, v in part.state_dict().items()}
    t, p = words[0, :3].numpy(), regions[0, :2].numpy()
    c = np.tanh(t @ w["bilinear.weight"].T @ p.T / 2)
    of_t, of_p = t @ w["text.weight"].T + w["text.bias"], p @ w["regions.weight"].T + w["regions.bias"]
    np.testing.assert_allclose(text.values[0, :3].detach(), t + np.tanh(of_t + c @ of_p / 2), rtol=1e-5)
    np.testing.assert_allclose(picture.values[0, :2].detach(), p + np.tanh(of_p + c.T @ of_t / 3), rtol=1e-5)


def test_a_pool_gives_no_weight_to_padding():
    torch.manual_seed(0)
    pool, values = Pool(4), torch.randn(1, 5, 4)
    expected = pool(Frames(values[:, :2], torch.tensor([2])))
    torch.testing.assert_close(pool(Frames(values, torch.tensor([2]))), expected)
    assert not torch.allclose(expected, values[:, :2].mean(1))


def test_a_number_is_shared_by_the_two_classes_around_it():
    found = build().soft_label(torch.tensor([[1.25], [-3.0], [0.0], [4.0]]))[:, 0]
    expected = torch.tensor(
        [[0, 0, 0, 0, 0.75, 0.25, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0]]
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("target", [Target(), Target(scale="sims"), Target("valence_arousal")])
def test_the_expectation_of_a_label_is_the_label_and_a_prediction_is_in_range(target):
    model = build(target, bins=11)
    labels = target.limit * torch.rand(9, target.outputs) * torch.tensor([-1.0, 1.0] * 5)[:9, None]
    torch.testing.assert_close((model.soft_label(labels) * model.centers).sum(-1), labels)
    rows = batch(torch.zeros(2, target.width))
    for f in rows.frames.values():
        f.values.mul_(1000)
    assert model(rows).output.abs().max() <= target.limit


def test_the_loss_of_numbers_is_cross_entropy_and_absolute_error():
    model = build().eval()
    rows = batch(torch.tensor([[1.5], [float("nan")]]))
    said = model(rows)
    chances = said.extras["logits"][0, 0].softmax(-1).detach().numpy()
    by_hand = -0.5 * np.log(chances[4] * chances[5]) + abs(chances @ np.arange(-3, 4) - 1.5)
    assert model.loss(rows, said).item() == pytest.approx(by_hand, rel=1e-5)


def test_classes_have_a_plain_softmax():
    model = build(Target("polarity")).eval()
    rows = batch(torch.tensor([[0.0], [2.0]]))
    said = model(rows)
    assert said.output.shape == (2, 3)
    assert model.loss(rows, said) == torch.nn.functional.cross_entropy(said.output, torch.tensor([0, 2]))


@pytest.mark.parametrize("regions", ["vision", "audio"])
def test_either_modality_can_be_the_picture(regions):
    model = build(regions=regions).eval()
    seen = []
    model.correlate.register_forward_hook(lambda _, args, __: seen.extend(args))
    model(batch(torch.zeros(2, 1)))
    assert seen[0].lengths.tolist() == LENGTHS["text"]
    assert seen[1].lengths.tolist() == LENGTHS[regions]
