"""TFN: the contractions are the linear map of the tensor product."""

import pytest
import torch
from test_sentiment_models import WIDTHS, table
from torch.nn import functional

from elmd.sentiment.base import Shape
from elmd.sentiment.models.tfn import Config, Model, TensorFusion
from elmd.sentiment.target import Target


@pytest.mark.parametrize("widths", [(3, 4, 6), (6, 4, 3), (4, 6, 3)])
def test_the_contractions_are_the_map_of_the_tensor_product(widths):
    torch.manual_seed(0)
    fusion = TensorFusion(widths, 5, dropout=0.0)
    vectors = [torch.randn(7, width) for width in widths]
    order = sorted(range(3), key=lambda i: -widths[i])
    product = torch.einsum("bi,bj,bk->bijk", *[functional.pad(vectors[i], (0, 1), value=1.0) for i in order])
    weight = torch.cat([fusion.map.weight.T, fusion.map.bias[None]]).view(*product.shape[1:], 5)
    torch.testing.assert_close(fusion(vectors), torch.einsum("bijk,ijko->bo", product, weight))


def test_the_map_begins_as_one_layer_over_the_whole_tensor_would():
    torch.manual_seed(0)
    fusion = TensorFusion((32, 16, 64), 8, dropout=0.0)
    whole = torch.nn.Linear(33 * 17 * 65, 8)
    assert sum(p.numel() for p in fusion.parameters()) == whole.weight.numel()
    assert fusion.map.weight.std().item() == pytest.approx(whole.weight.std().item(), rel=0.02)


def test_dropout_keeps_as_many_products_of_all_three_and_never_the_constant():
    torch.manual_seed(0)
    fusion = TensorFusion((40, 30, 50), 1, dropout=0.5)
    kept = [fusion.dropout(torch.ones(200, width)).ne(0).float() for width in fusion.widths]
    share = torch.einsum("bi,bj,bk->bijk", *kept).mean()
    assert share.item() == pytest.approx(0.5, abs=0.02)
    torch.nn.init.zeros_(fusion.map.weight)
    torch.nn.init.zeros_(fusion.map.bias)
    fusion.map.bias.data[-1] = 3.0
    assert torch.equal(fusion([torch.ones(9, width) for width in fusion.widths]), torch.full((9, 1), 3.0))


@pytest.mark.parametrize(("scale", "limit"), [("mosi", 3.0), ("sims", 1.0)])
def test_numbers_stay_on_the_scale(scale, limit):
    torch.manual_seed(0)
    model = Model(Config(text=4, audio=4, vision=4), Shape(WIDTHS, Target("sentiment", scale))).eval()
    batch = table().batch(range(8))
    with torch.no_grad():
        model.head[-1].weight.mul_(1e4)
        found = model(batch).output.abs()
    assert found.max() <= limit
    assert found.max() > 0.99 * limit
