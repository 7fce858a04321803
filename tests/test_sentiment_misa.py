"""MISA: the losses of its representations, against numpy and by what they must do."""

import numpy as np
import pytest
import torch
from test_sentiment_models import WIDTHS, table

from elmd.sentiment.base import Shape
from elmd.sentiment.models.misa import Config, Model, difference_loss, similarity_loss

ALL = torch.ones(6, 3, dtype=torch.bool)


def test_the_similarity_is_the_central_moment_discrepancy():
    torch.manual_seed(0)
    shared = torch.rand(6, 3, 4)
    x = shared.double().numpy()
    wanted = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = x[:, i], x[:, j]
        wanted += np.linalg.norm(a.mean(0) - b.mean(0))
        for k in range(2, 6):
            wanted += np.linalg.norm(((a - a.mean(0)) ** k).mean(0) - ((b - b.mean(0)) ** k).mean(0))
    assert similarity_loss(shared, ALL, 5).item() == pytest.approx(wanted / 3, rel=1e-5)


def test_like_distributions_are_similar_whatever_the_order_of_their_rows():
    torch.manual_seed(0)
    rows = torch.rand(6, 4)
    same = torch.stack([rows, rows.flip(0), rows], 1)
    assert similarity_loss(same, ALL, 5).item() == pytest.approx(0, abs=1e-6)
    assert similarity_loss(same * torch.tensor([1.0, 2.0, 1.0])[:, None], ALL, 5) > 0.1


def test_the_difference_is_the_mean_square_of_products_of_centred_directions():
    torch.manual_seed(0)
    private, shared = torch.rand(6, 3, 4), torch.rand(6, 3, 4)

    def directions(values):
        centred = values.double().numpy() - values.double().numpy().mean(0)
        return centred / (np.linalg.norm(centred, axis=-1, keepdims=True) + 1e-6)

    p, s = directions(private), directions(shared)
    pairs = [(p[:, i], s[:, i]) for i in range(3)] + [(p[:, i], p[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    wanted = sum(((a.T @ b) ** 2).mean() for a, b in pairs)
    assert difference_loss(private, shared, ALL).item() == pytest.approx(wanted, rel=1e-5)


def test_features_that_never_vary_together_are_different():
    own = torch.zeros(4, 3, 2)
    own[:, 0, 0] = torch.tensor([1.0, -1.0, 0.0, 0.0])
    common = torch.zeros(4, 3, 2)
    common[:, 0, 1] = torch.tensor([0.0, 0.0, 1.0, -1.0])
    assert difference_loss(own, common, ALL[:4]) == 0
    common[:, 0, 1] = torch.tensor([1.0, -1.0, 0.0, 0.0])
    assert difference_loss(own, common, ALL[:4]) > 0.5


def test_rows_without_a_modality_have_no_part_in_its_losses():
    torch.manual_seed(0)
    private, shared = torch.rand(6, 3, 4), torch.rand(6, 3, 4)
    there = ALL.clone()
    there[4:, 1] = False
    changed = shared.clone()
    changed[4:, 1] += 9.0
    for found in (lambda s: similarity_loss(s, there, 5), lambda s: difference_loss(private, s, there)):
        assert found(shared) == found(changed)
    assert similarity_loss(shared, ALL, 5) != similarity_loss(changed, ALL, 5)


def test_one_row_has_finite_gradients():
    shared = torch.rand(1, 3, 4).requires_grad_()
    (similarity_loss(shared, ALL[:1], 5) + difference_loss(shared, shared, ALL[:1])).backward()
    assert shared.grad.isfinite().all()
    alike = torch.full((2, 3, 4), 0.5).requires_grad_()
    similarity_loss(alike, ALL[:2], 5).backward()
    assert alike.grad.isfinite().all()


def test_the_shared_encoder_is_one_and_the_private_ones_are_three():
    torch.manual_seed(0)
    model = Model(Config(hidden=16, feed=16), Shape(WIDTHS)).eval()
    batch = table().batch([0, 1])
    with torch.no_grad():
        before = model(batch).extras
        model.private["audio"][0].weight.mul_(2)
        private = model(batch).extras
        model.shared[0].weight.mul_(2)
        shared = model(batch).extras
    assert [bool((before["private"][:, i] != private["private"][:, i]).any()) for i in range(3)] == [False, True, False]
    assert torch.equal(before["shared"], private["shared"])
    assert all((before["shared"][:, i] != shared["shared"][:, i]).any() for i in range(3))


def test_the_loss_falls_to_the_error_alone_without_the_weights():
    torch.manual_seed(0)
    batch = table().batch(range(8))
    model = Model(Config(hidden=16, feed=16, difference=0, similarity=0, reconstruction=0), Shape(WIDTHS)).eval()
    said = model(batch)
    squared = ((said.output - batch.labels) ** 2).mean()
    assert model.loss(batch, said).item() == pytest.approx(squared.item(), rel=1e-5)
    weighed = Model(Config(hidden=16, feed=16), Shape(WIDTHS)).eval()
    weighed.load_state_dict(model.state_dict())
    assert weighed.loss(batch, weighed(batch)) > squared
