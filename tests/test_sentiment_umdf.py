"""UMDF: random views, the gates, and what self-distillation adds."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from elmd.config import validate
from elmd.sentiment.base import Prediction, Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models.umdf import Config, Integration, Model, random_pattern
from elmd.sentiment.target import Target
from elmd.types import MODALITIES

WIDTHS = {"text": 6, "audio": 3, "vision": 4}


def batch(rows: int = 8, gone: dict | None = None, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    lengths = {m: torch.randint(1, 6, (rows,)).masked_fill(torch.arange(rows) == 0, 6) for m in MODALITIES}
    frames = {m: Frames(torch.randn(rows, 6, WIDTHS[m]), lengths[m]) for m in MODALITIES}
    frames = {m: Frames(f.values.masked_fill(~f.mask[..., None], 0), f.lengths) for m, f in frames.items()}
    made = Batch(torch.arange(rows), frames, torch.linspace(-3, 3, rows)[:, None], {})
    return made.without(gone or {})


def build(target: str = "sentiment", **settings) -> Model:
    torch.manual_seed(0)
    small = {"width": 8, "dropout": 0.0, **settings}
    return Model(validate(Config, small), Shape(WIDTHS, Target(target)))


def kept(rows: Batch, missing: float, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    pattern = random_pattern(rows, missing)
    return torch.stack([~pattern[m] for m in MODALITIES], 1).numpy()


def test_every_set_of_modalities_is_equally_likely_at_one_half():
    found = kept(batch(7000), 0.5) @ [4, 2, 1]
    counts = np.bincount(found, minlength=8)
    assert counts[0] == 0
    assert (abs(counts[1:] - 1000) < 150).all()


def test_nothing_is_left_out_at_zero_and_mostly_one_stays_near_one():
    assert kept(batch(50), 0.0).all()
    assert kept(batch(50), 0.999).sum(1).mean() < 1.1


def test_a_view_keeps_the_only_modality_of_a_row():
    gone = torch.ones(64, dtype=torch.bool)
    found = kept(batch(64, {"audio": gone, "vision": gone}), 0.5)
    assert found[:, 0].all()
    assert not found[:, 1:].any()


def test_views_differ_in_training_and_nothing_is_random_otherwise():
    model, rows = build(), batch()
    assert not torch.equal(model(rows).output, model(rows).output)
    model.eval()
    said = model(rows)
    assert torch.equal(said.output, model(rows).output)
    assert model.loss(rows, said) == model.target.loss(said.output, rows.labels)


def test_views_that_miss_nothing_agree():
    model, rows = build(missing=0.0), batch()
    said = model(rows)
    torch.testing.assert_close(model.loss(rows, said), 2 * model.target.loss(said.output, rows.labels))


@pytest.mark.parametrize("target", ["sentiment", "polarity"])
def test_the_switch_leaves_out_only_the_agreement(target):
    rows = batch()
    rows.labels.copy_(torch.arange(8).remainder(3)[:, None])
    losses, views = {}, []
    for distil in (True, False):
        model = build(target, distil=distil)
        torch.manual_seed(1)
        said = model(rows)
        losses[distil] = model.loss(rows, said)
        torch.manual_seed(1)
        views.append([model(rows), model(rows)])
    for with_it, without in zip(*views, strict=True):
        assert torch.equal(with_it.output, without.output)
    apart = build(target).disagreement(*views[0])
    assert apart > 0
    torch.testing.assert_close(losses[True] - losses[False], apart)


def test_classes_agree_by_a_softened_divergence_both_ways():
    one, two, feature = torch.randn(5, 3), torch.randn(5, 3), torch.randn(5, 24)
    said = build("polarity", temperature=4.0, logit_weight=0.5).disagreement(
        Prediction(one, {"feature": feature}), Prediction(two, {"feature": feature})
    )
    p, q = (np.exp(x.numpy() / 4) / np.exp(x.numpy() / 4).sum(1, keepdims=True) for x in (one, two))
    by_hand = 0.5 * 16 * ((p * np.log(p / q)).sum(1) + (q * np.log(q / p)).sum(1)).mean()
    np.testing.assert_allclose(said.item(), by_hand, rtol=1e-4)


def test_teaching_pulls_the_views_together():
    features = [torch.randn(5, 24, requires_grad=True) for _ in range(2)]
    outputs = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    model = build("polarity")
    views = [Prediction(o, {"feature": f}) for o, f in zip(outputs, features, strict=True)]
    before = model.disagreement(*views)
    before.backward()
    moved = [(x - 0.1 * x.grad).detach() for x in (*outputs, *features)]
    after = model.disagreement(Prediction(moved[0], {"feature": moved[2]}), Prediction(moved[1], {"feature": moved[3]}))
    assert after < before


def test_integration_is_what_its_gates_say():
    torch.manual_seed(0)
    part, values = Integration(4), torch.randn(1, 5, 4)
    got = part(Frames(values, torch.tensor([3])))[0].detach().numpy()
    w = {k: v.detach().numpy() for k, v in part.state_dict().items()}
    h = values[0, :3].numpy()
    enhanced = h * (1 + _sigmoid(h @ w["enhance.weight"].T + w["enhance.bias"]))
    both = np.concatenate([enhanced, np.broadcast_to(enhanced.mean(0), h.shape)], 1)
    weight = np.concatenate([w["select.weight"], w["context.weight"]], 1)
    np.testing.assert_allclose(got, (enhanced * _sigmoid(both @ weight.T + w["select.bias"])).mean(0), rtol=1e-5)


def test_numbers_agree_by_a_smooth_error():
    model, feature = build(logit_weight=2.0, feature_weight=0.0), torch.zeros(3, 24)
    one, two = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.5], [1.0], [5.0]])
    said = model.disagreement(Prediction(one, {"feature": feature}), Prediction(two, {"feature": feature}))
    assert said == 2 * functional.smooth_l1_loss(one, two) == pytest.approx(2 * (0.125 + 2.5) / 3)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
