"""MMIM: its estimates of mutual information against closed forms, its memory and its two passes."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from test_sentiment_models import WIDTHS, build, table

from elmd.sentiment.base import MAIN, Shape
from elmd.sentiment.models import _mutual_information as mi
from elmd.sentiment.models.mmim import ESTIMATE, PAIRED, Config, Model
from elmd.sentiment.target import Target


def every(count):
    return torch.ones(count, dtype=torch.bool)


def test_the_likelihood_is_that_of_a_gaussian():
    torch.manual_seed(0)
    q, x, y = mi.Likelihood(3, 4), torch.randn(5, 3), torch.randn(5, 4)
    with torch.no_grad():
        scores = q(x, y)
        mean, deviation = q.mean(x).numpy(), q.log_variance(x).exp().sqrt().numpy()
    # The constant is left out.
    wanted = np.array([[norm(mean[i], deviation[i]).logpdf(y[j]).sum() for j in range(5)] for i in range(5)])
    np.testing.assert_allclose(scores.numpy(), wanted + 2 * np.log(2 * np.pi), rtol=1e-4)
    assert mi.log_likelihood(scores, every(5)).item() == pytest.approx(scores.diagonal().mean().item())


def test_the_bounds_enclose_the_information_of_a_gaussian_pair():
    torch.manual_seed(0)
    rho, count = 0.8, 2000
    deviation = (1 - rho**2) ** 0.5
    x = torch.randn(count, 1)
    y = rho * x + deviation * torch.randn(count, 1)
    information = (norm(rho * x, deviation).logpdf(y) - norm().logpdf(y)).mean()
    scores = -((y.T - rho * x) ** 2) / (2 * deviation**2)
    assert mi.info_nce(scores, every(count)).item() == pytest.approx(information, abs=5e-3)
    # vCLUB's closed form for this pair.
    assert mi.vclub(scores, every(count)).item() == pytest.approx(rho**2 / deviation**2, abs=0.2)
    alone = torch.randn(count, 1)
    free = -((alone.T - rho * x) ** 2) / (2 * deviation**2)
    assert abs(mi.vclub(free, every(count)).item()) < 0.2
    assert mi.info_nce(free, every(count)) < 0


@pytest.mark.parametrize("bound", [mi.vclub, mi.info_nce, mi.log_likelihood])
def test_rows_that_do_not_count_do_not_matter(bound):
    torch.manual_seed(0)
    scores, mask = torch.randn(5, 5), torch.tensor([True, True, False, True, False])
    counted = scores[mask][:, mask]
    torch.testing.assert_close(bound(scores, mask), bound(counted, every(3)))
    assert bound(scores, ~every(5)) == 0
    single = torch.randn(1, 1)
    assert bound is mi.log_likelihood or bound(single, every(1)).item() == pytest.approx(0, abs=1e-6)


def test_the_entropy_is_that_of_the_fitted_gaussian():
    torch.manual_seed(0)
    points = torch.randn(50, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.7]])
    mask = torch.arange(50) < 40
    covariance = np.cov(points[:40].double().numpy().T, bias=True) + 1e-3 * np.eye(3)
    wanted = multivariate_normal(np.zeros(3), covariance).entropy()
    assert mi.gaussian_entropy(points, mask).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_the_entropy_needs_more_points_than_dimensions_and_has_no_endless_gradient(count):
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).mul(1e-4).requires_grad_()
    entropy = mi.gaussian_entropy(points, torch.arange(6) < count)
    assert (entropy != 0) == (count == 4)
    entropy.backward()
    assert points.grad.isfinite().all()
    assert points.grad.abs().max() < 1


def test_cpc_prefers_the_rows_own_vector():
    torch.manual_seed(0)
    cpc, fused = mi.CPC(4, 4), torch.nn.functional.normalize(torch.randn(6, 4), dim=-1)
    torch.nn.init.eye_(cpc.predict.weight)
    torch.nn.init.zeros_(cpc.predict.bias)
    cosines = (fused @ fused.T).double().numpy()
    wanted = np.mean(np.diag(cosines) - np.log(np.exp(cosines).mean(1)))
    assert cpc(3 * fused, fused, every(6)).item() == pytest.approx(wanted, rel=1e-4)
    assert cpc(fused.roll(1, 0), fused, every(6)) < wanted


def test_signs_of_labels():
    nan = float("nan")
    number = mi.signs(Target(), torch.tensor([[-2.0], [0.0], [1.0], [nan]]))
    polarity = mi.signs(Target("polarity"), torch.tensor([[0.0], [1.0], [2.0], [nan]]))
    emotion = mi.signs(Target("emotion"), torch.tensor([[5.0], [4.0], [3.0], [nan]]))
    plane = mi.signs(Target("valence_arousal"), torch.tensor([[-0.5, 1.0], [0.0, 1.0], [0.5, -1.0], [nan, nan]]))
    for found in (number, polarity, emotion, plane):
        assert found[:3].tolist() == [-1, 0, 1]
        assert found[3].isnan()


def test_the_estimate_phase_fits_q_alone_and_main_moves_the_vectors():
    model, rows = build("mmim"), table()
    batch = rows.batch(range(12))
    model.loss(batch, model(batch), ESTIMATE).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith("likelihoods.")}
    assert {id(p) for p in model.parameter_groups()[ESTIMATE]} == {id(p) for p in model.likelihoods.parameters()}


def test_fitting_raises_the_likelihood():
    torch.manual_seed(0)
    model, rows = build("mmim"), table()
    batch = rows.batch(range(24))
    model.eval()
    stepper = torch.optim.Adam(model.parameter_groups()[ESTIMATE], lr=1e-2)
    before = model.loss(batch, model(batch), ESTIMATE)
    for _ in range(20):
        stepper.zero_grad()
        model.loss(batch, model(batch), ESTIMATE).backward()
        stepper.step()
    assert model.loss(batch, model(batch), ESTIMATE) < before


def test_the_memory_holds_the_latest_rows_of_the_epoch():
    torch.manual_seed(0)
    model, rows = Model(Config(memory=10), Shape(WIDTHS, samples=24)), table()
    model.epoch_started(1)
    seen = []
    for start in (0, 6):
        batch = rows.batch(range(start, start + 6))
        said = model(batch)
        model.batch_ended(batch, said)
        seen.insert(0, (model.bank.project(torch.stack([said.extras[m] for m in PAIRED])), model._signs(batch)))
    points, signs = (torch.cat(part, 1)[:, :10] for part in zip(*seen, strict=True))
    assert torch.equal(model.bank.points, points)
    assert torch.equal(model.bank.signs, signs)
    assert model.bank.signs.any()
    model.epoch_started(2)
    assert not model.bank.signs.any()


def test_the_memory_counts_in_the_entropy_without_a_gradient():
    torch.manual_seed(0)
    model, rows = Model(Config(alpha=0.0, beta=1.0), Shape(WIDTHS, samples=24)).eval(), table()
    few, many = rows.batch([0, 1]), rows.batch(range(24))
    without = model.loss(few, model(few), MAIN).item()
    model.batch_ended(many, model(many))
    loss = model.loss(few, model(few), MAIN)
    assert loss.item() != pytest.approx(without, abs=1e-3)
    assert not model.bank.points.requires_grad
    loss.backward()


def test_unknown_labels_and_missing_modalities_are_not_counted_in_the_entropy():
    model, rows = build("mmim"), table()
    rows.labels[2] = float("nan")
    signs = model._signs(rows.batch(range(24)))
    assert signs[:, 2].tolist() == [0, 0]
    missing = [i for i in range(24) if i % 7 == 6 and i % 3 == 2]
    assert missing and not signs[PAIRED.index("vision"), missing].any()
    assert signs[PAIRED.index("audio"), missing].all()


def test_a_prediction_needs_no_memory():
    assert Model(Config(), Shape(WIDTHS, samples=0)).bank.points.shape[1] == 0
