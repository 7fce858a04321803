"""MulT: what its shortcuts leave out does not matter, and its attention stays in the fused kernel."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from elmd.sentiment.base import Shape
from elmd.sentiment.batch import Batch, Frames
from elmd.sentiment.models._blocks import Attention
from elmd.sentiment.models.mult import Config, Memory, Model
from elmd.types import MODALITIES

WIDTHS = {"text": 6, "audio": 3, "vision": 4}


def frames(rows: int = 3, length: int = 5, width: int = 10) -> Frames:
    lengths = torch.tensor([length, 1, 3][:rows])
    values = torch.randn(rows, length, width)
    return Frames(values * (torch.arange(length) < lengths[:, None])[..., None], lengths)


def small(**changes) -> Model:
    torch.manual_seed(0)
    return Model(Config(width=10, layers=2, memory_layers=2, **changes), Shape(WIDTHS))


def test_the_last_frame_is_what_all_frames_would_give():
    torch.manual_seed(0)
    transformer, given = Memory(10, 3, Config()).eval(), frames()
    values = transformer.embedded(given)
    for block in transformer.blocks:
        values = block(values, values, given.mask)
    expected = transformer.norm(values)[torch.arange(3), given.lengths - 1]
    torch.testing.assert_close(transformer(given), expected, atol=1e-6, rtol=1e-5)


def test_each_target_reads_the_lowest_level_of_its_source_in_every_block():
    model = small().eval()
    seen = []
    for block in model.cross["text_from_audio"].blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    model(Batch(torch.arange(3), {m: frames(width=WIDTHS[m]) for m in MODALITIES}, torch.zeros(3, 1), {}))
    assert len(seen) == 2
    assert seen[0] is seen[1]
    assert sorted(model.cross) == sorted(f"{t}_from_{s}" for t in MODALITIES for s in MODALITIES if s != t)


def test_order_matters_and_the_convolution_sees_neighbours():
    model = small().eval()
    batch = Batch(torch.arange(3), {m: frames(width=WIDTHS[m]) for m in MODALITIES}, torch.zeros(3, 1), {})
    before = model(batch).output
    audio = batch.frames["audio"]
    # All but the last frame change places: what is pooled is the same frame.
    audio.values[0, :4] = audio.values[0, :4].flip(0)
    after = model(batch).output
    assert (before[0] - after[0]).abs() > 1e-5
    torch.testing.assert_close(before[1:], after[1:])


def test_attention_trains_in_the_fused_kernel_with_mask_and_dropout():
    attention = Attention(10, 5, dropout=0.3).train()
    given = frames()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        attention(given.values, given.values, given.mask).sum().backward()
    assert attention.query.weight.grad.isfinite().all()


def test_attention_dropout_keeps_the_mean_and_drops_a_key_for_all_queries():
    torch.manual_seed(0)
    attention, given = Attention(10, 5, dropout=0.5), frames()
    query = given.values[:, :1].expand(-1, 2, -1)
    expected = attention.eval()(query, given.values, given.mask)
    attention.train()
    drawn = torch.stack([attention(query, given.values, given.mask) for _ in range(4000)])
    torch.testing.assert_close(drawn[:, :, 0], drawn[:, :, 1])
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.03, rtol=0)
    assert drawn.std(0).min() > 0.01


def test_attention_dropout_is_to_one_query_what_dropped_weights_are():
    """The second moment about the mean, computed by hand: sum over keys of (weight × value)² × p / (1 - p)."""
    torch.manual_seed(0)
    attention, memory = Attention(4, 1, dropout=0.25).train(), torch.randn(1, 6, 4)
    attention.out = torch.nn.Identity()
    key, value = attention.key_value(memory).chunk(2, -1)
    weights = (attention.query(memory[:, :1]) @ key.transpose(1, 2) / 2).softmax(-1)
    expected = ((weights[..., None] * value[:, None]) ** 2).sum(2) * 0.25 / 0.75
    drawn = torch.stack([attention(memory[:, :1], memory) for _ in range(8000)])
    torch.testing.assert_close(drawn.var(0), expected, rtol=0.1, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 5])
def test_a_convolution_of_any_size_keeps_the_frames(kernel):
    model = small(kernel=kernel).eval()
    given = frames(width=WIDTHS["vision"])
    assert model._projected("vision", given).values.shape == (3, 5, 10)
