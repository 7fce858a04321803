"""AdaFN-AG: the normalisation towards the text, and the attention gate, at toy size."""

import pytest
import torch
from test_sentiment_models import build, table

from elmd.sentiment.batch import Frames
from elmd.sentiment.models.adafn import AdaFN, AttentionGate


def frames(rows: int = 3, length: int = 5, width: int = 8, seed: int = 0) -> Frames:
    torch.manual_seed(seed)
    return Frames(torch.randn(rows, length, width), torch.tensor([length, 2, 1])[:rows])


def shared(share: float, given: Frames, text: torch.Tensor) -> torch.Tensor:
    layer = AdaFN()
    torch.nn.init.constant_(layer.share, share)
    return layer(given, text).values


def test_frames_take_the_mean_and_deviation_of_the_text():
    given, text = frames(), 3 * torch.randn(3, 8) + 5
    adapted = shared(50.0, given, text)
    torch.testing.assert_close(adapted.mean(-1), text.mean(-1)[:, None].expand(3, 5), atol=1e-4, rtol=1e-4)
    wanted = text.std(-1, correction=0)[:, None].expand(3, 5)
    torch.testing.assert_close(adapted.std(-1, correction=0), wanted, atol=1e-3, rtol=1e-3)
    normal = (given.values - given.values.mean(-1, keepdim=True)) / given.values.std(-1, correction=0, keepdim=True)
    back = (adapted - text.mean(-1)[:, None, None]) / wanted[..., None]
    torch.testing.assert_close(back, normal, atol=1e-3, rtol=1e-3)


def test_the_share_mixes_with_the_frames_as_they_were():
    given, text = frames(), torch.randn(3, 8)
    torch.testing.assert_close(shared(-50.0, given, text), given.values)
    whole = shared(50.0, given, text)
    torch.testing.assert_close(shared(0.0, given, text), (given.values + whole) / 2)


def test_frames_without_deviation_have_a_finite_gradient():
    values = torch.ones(1, 2, 8, requires_grad=True)
    AdaFN()(Frames(values, torch.tensor([2])), torch.zeros(1, 8)).values.sum().backward()
    assert values.grad.isfinite().all()


def gate(choose: float = 0.0, forget: float = 0.0) -> AttentionGate:
    torch.manual_seed(1)
    made = AttentionGate(8, 2, 0.0).eval()
    for layer, bias in ((made.choose, choose), (made.forget, forget)):
        torch.nn.init.constant_(layer.bias, bias)
    return made


@pytest.mark.parametrize(
    ("choose", "hears_other", "hears_itself"), [(-99, False, True), (0, True, True), (99, True, False)]
)
def test_the_first_gate_chooses_between_the_text_and_what_is_said_to_it(choose, hears_other, hears_itself):
    text = frames(length=6)
    said = gate(choose)(text, frames(seed=2))
    assert torch.allclose(said, gate(choose)(text, frames(seed=3)), atol=1e-6) != hears_other
    other = gate(choose)
    torch.nn.init.zeros_(other.self_attention.out.weight)
    assert torch.allclose(said, other(text, frames(seed=2)), atol=1e-6) != hears_itself


def test_the_second_gate_lets_nothing_or_everything_through():
    text, other = frames(length=6), frames(seed=2)
    assert gate(forget=-99)(text, other).abs().max() < 1e-6
    opened, half = gate(forget=99), gate()
    torch.nn.init.zeros_(half.forget.weight)
    torch.testing.assert_close(opened(text, other), 2 * half(text, other))


def test_the_gate_does_not_see_padding():
    text, other = frames(length=6), frames(seed=2)
    before = gate()(text, other)
    for given in (text, other):
        given.values.masked_fill_(~given.mask[..., None], 7.0)
    torch.testing.assert_close(gate()(text, other), before)


def test_audio_is_read_in_the_light_of_the_text():
    model, batch = build("adafn").eval(), table().batch([0, 1])
    before = model(batch).extras
    batch.frames["text"].values.mul_(2.0)
    assert not torch.equal(model(batch).extras["audio"], before["audio"])
    batch = table().batch([0, 1])
    batch.frames["vision"].values.mul_(2.0)
    after = model(batch).extras
    assert torch.equal(after["audio"], before["audio"])
    assert not torch.equal(after["fused"], before["fused"])
