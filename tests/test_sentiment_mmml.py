"""MMML: its losses by hand, its three fusions, and what two modalities leave out."""

import pytest
import torch

from elmd.sentiment.base import Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models.mmml import Config, Model
from elmd.sentiment.target import Target

WIDTHS = {"text": 6, "audio": 3, "vision": 4}
FUSIONS = ["concat", "pooled", "transformer"]


def small(target: str = "sentiment", **changes) -> Model:
    torch.manual_seed(0)
    settings = {"width": 8, "heads": 2, "layers": 2, "fusion_layers": 2, **changes}
    return Model(Config(**settings), Shape(WIDTHS, Target(target), 3))


def batch(unimodal: dict | None = None, longest: int = 5) -> Batch:
    torch.manual_seed(1)
    lengths = torch.tensor([5, 1, 3])
    there = (torch.arange(longest) < lengths[:, None])[..., None]
    values = {m: torch.randn(3, 5, width) for m, width in WIDTHS.items()}
    values = {m: torch.nn.functional.pad(v, (0, 0, 0, longest - 5)) * there for m, v in values.items()}
    frames = {m: Frames(v, lengths) for m, v in values.items()}
    return Batch(torch.arange(3), frames, torch.tensor([[1.0], [-2.0], [0.5]]), unimodal or {})


@pytest.mark.parametrize("fusion", FUSIONS)
def test_two_modalities_train_all_their_parameters_and_never_see_the_third(fusion):
    model, rows = small(fusion=fusion), batch()
    for gone in (torch.tensor([True, False, False]), torch.zeros(3, dtype=torch.bool)):
        missing = rows.without({"text": gone, "audio": gone})
        model.loss(missing, model(missing)).backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n for n, _ in model.named_parameters()} - trained == {"absent.vision"}
    model.eval()
    before = model(rows).output
    rows.frames["vision"].values.normal_()
    assert torch.equal(model(rows).output, before)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("modalities", [["text", "audio"], ["vision", "audio", "text"]])
def test_padding_does_not_matter_to_any_fusion(fusion, modalities):
    model = small(fusion=fusion, modalities=modalities).eval()
    torch.testing.assert_close(model(batch()).output, model(batch(longest=9)).output, atol=1e-6, rtol=1e-5)


def test_the_loss_adds_the_error_of_each_modality_by_its_own_labels():
    own = torch.tensor([[0.0], [float("nan")], [2.0]])
    model, rows = small(weight=0.5).eval(), batch({"audio": own})
    said = model(rows)
    label = rows.labels
    text = (said.extras["text"] - label).abs().mean()
    audio = (said.extras["audio"] - own)[[0, 2]].abs().mean()
    expected = (said.output - label).abs().mean() + 0.5 * (text + audio)
    torch.testing.assert_close(model.loss(rows, said), expected)


def test_a_modality_predicts_for_itself_alone():
    model, rows = small().eval(), batch()
    before = model(rows)
    rows.frames["audio"].values[0] += 1
    after = model(rows)
    torch.testing.assert_close(before.extras["text"], after.extras["text"])
    assert not torch.allclose(before.extras["audio"][0], after.extras["audio"][0])
    assert not torch.allclose(before.output[0], after.output[0])


def test_each_stream_attends_over_the_others_and_then_over_itself():
    model, rows = small(modalities=["text", "audio", "vision"], layers=1).eval(), batch()
    layer, seen = model.encoder[0], {}
    for part in ("cross", "own"):
        for m, module in getattr(layer, part).items():
            module.register_forward_pre_hook(lambda _, given, key=(part, m): seen.update({key: given}))
    states = {m: torch.randn(3, 6, 8) for m in WIDTHS}
    masks = {m: torch.ones(3, 6, dtype=torch.bool) for m in WIDTHS}
    layer(states, masks)
    torch.testing.assert_close(seen["cross", "audio"][1], torch.cat([states["text"], states["vision"]], 1))
    assert seen["own", "audio"][0] is seen["own", "audio"][1]
    assert rows.frames["text"].values.shape[1] + 1 == 6


def test_the_transformer_fusion_reads_its_class_token():
    model, rows = small(fusion="transformer").eval(), batch()
    made = []
    blocks = model.fuse.blocks["audio"]
    blocks[0].register_forward_hook(lambda _, given, out: made.append((given, out)))
    blocks[1].register_forward_hook(lambda _, given, out: made.append((given, out)))
    model(rows)
    (_, values), ((query, mask, memory), token) = made
    assert memory is values
    torch.testing.assert_close(token, blocks[1](values, mask)[:, :1])
    assert query.shape == (3, 1, 16)
