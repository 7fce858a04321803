"""CDML: translation against discriminators, and fusion by weights, at toy size."""

import torch
from test_sentiment_models import WIDTHS, build, table
from torch.nn import functional

from elmd.sentiment.base import Prediction, Shape
from elmd.sentiment.models import cdml
from elmd.sentiment.target import Target
from elmd.types import MODALITIES


def test_a_reversed_gradient_changes_its_sign_only():
    values = torch.randn(3, 4, requires_grad=True)
    turned = cdml.reversed_gradient(values)
    assert torch.equal(turned, values)
    weights = torch.randn(3, 4)
    (turned * weights).sum().backward()
    assert torch.equal(values.grad, -weights)


def adversarial(model, batch) -> torch.Tensor:
    return model.adversarial_loss(batch, model(batch))


def test_discriminators_lower_the_loss_that_translators_raise():
    batch = table().batch(range(8))
    for part, lower in (("discriminators", True), ("translators", False)):
        model = build("cdml").eval()
        before = adversarial(model, batch)
        before.backward()
        with torch.no_grad():
            for parameter in getattr(model, part).parameters():
                parameter -= 0.05 * parameter.grad
        assert (adversarial(model, batch) < before) == lower, part


def test_the_adversarial_loss_is_that_of_two_classes():
    model, batch = build("cdml").eval(), table().batch(range(6))
    extras = model(batch).extras
    errors = []
    for m in MODALITIES:
        real = model.discriminators[m](extras[f"vector.{m}"])
        for i, source in enumerate(o for o in MODALITIES if o != m):
            translated = model.translators[f"{source}_{m}"](extras[f"vector.{source}"])
            assert torch.equal(translated, extras[f"translations.{m}"][:, i])
            false = model.discriminators[m](translated)
            errors.append(
                functional.binary_cross_entropy_with_logits(real, torch.ones_like(real))
                + functional.binary_cross_entropy_with_logits(false, torch.zeros_like(false))
            )
    torch.testing.assert_close(adversarial(model, batch), torch.stack(errors).mean())


def test_pairs_that_are_not_there_are_no_part_of_it():
    model, batch = build("cdml").eval(), table().batch(range(6))
    gone = torch.ones(6, dtype=torch.bool)
    assert adversarial(model, batch.without({"audio": gone, "vision": gone})) == 0
    assert adversarial(model, batch.without({"audio": gone})) > 0
    half = batch.without({"audio": torch.arange(6) < 3})
    parts = torch.stack([adversarial(model, table().batch([i]).without({"audio": gone[:1]})) for i in range(3)])
    others = torch.stack([adversarial(model, table().batch([i])) for i in range(3, 6)])
    torch.testing.assert_close(adversarial(model, half), (2 * parts.sum() + 6 * others.sum()) / 24)


def test_the_vector_to_imitate_stands_still():
    model, batch = build("cdml").eval(), table().batch(range(6))
    extras = model(batch).extras
    vectors = [extras[f"vector.{m}"] for m in MODALITIES]
    cut = {name: value.detach() if name.startswith("translations") else value for name, value in extras.items()}
    loss = model.adversarial_loss(batch, Prediction(extras["fused"], cut))
    assert torch.autograd.grad(loss, vectors, retain_graph=True, allow_unused=True) == (None, None, None)
    loss = model.adversarial_loss(batch, Prediction(extras["fused"], extras))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, vectors))


def test_weights_over_modalities_sum_to_one_and_follow_the_input():
    model, batch = build("cdml").eval(), table().batch(range(8))
    weights = model(batch).extras["weights"]
    assert weights.shape == (8, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(8))
    assert weights.std(0).min() > 0


def test_the_way_there_and_back_counts_when_asked():
    losses, batch = [], table().batch(range(6))
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        model = cdml.Model(cdml.Config(width=16, layers=1, cycle_weight=weight), Shape(WIDTHS, Target())).eval()
        prediction = model(batch)
        losses.append(model.loss(batch, prediction))
    cycle = model.cycle_loss(prediction)
    assert cycle > 0
    torch.testing.assert_close(losses[1] - losses[0], 2 * cycle)
