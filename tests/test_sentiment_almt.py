"""ALMT: the hyper-modality by hand, what the language reaches, and the tokens that stand for a modality."""

import pytest
import torch

from elmd.sentiment.batch import Frames
from elmd.sentiment.models.almt import Config, Embedding, Fusion, HyperLayer


def config(**changes) -> Config:
    return Config(**{"width": 8, "heads": 2, "hidden": 12, "tokens": 3, **changes})


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Give the norms, too, weights that are not ones and zeros."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_hyper_layer_adds_what_the_language_finds_in_audio_and_vision(normalize):
    layer = randomise(HyperLayer(config(normalize_hyper=normalize)))
    text, audio, vision, hyper = torch.randn(4, 2, 3, 8).unbind()
    found = torch.zeros(2, 3, 8)
    for head in (slice(0, 4), slice(4, 8)):
        query = layer.query(layer.norms["text"](text))[..., head]
        for name, values in (("audio", audio), ("vision", vision)):
            key, value = layer.key_value[name](layer.norms[name](values)).chunk(2, -1)
            weights = (query @ key[..., head].transpose(1, 2) / 4**0.5).softmax(-1)
            found[..., head] += weights @ value[..., head]
    base = layer.hyper_norm(hyper) if normalize else hyper
    torch.testing.assert_close(layer(text, audio, vision, hyper), base + layer.out(found))
    assert isinstance(layer.hyper_norm, torch.nn.LayerNorm) == normalize


@pytest.mark.parametrize("layers", [1, 2])
def test_the_tokens_are_what_the_whole_sequence_would_give(layers):
    embedding = randomise(Embedding(5, config(embed_layers=layers)))
    frames = Frames(torch.randn(2, 6, 5), torch.tensor([6, 2]))
    whole = []
    for block in embedding.blocks[:-1]:
        block.register_forward_hook(lambda _, given, made: whole.append(made))
    embedding.blocks[-1].register_forward_pre_hook(lambda _, given: whole.append(given[2]))
    kept = embedding(frames)
    mask = torch.cat([torch.ones(2, 3, dtype=torch.bool), frames.mask], 1)
    torch.testing.assert_close(kept, embedding.blocks[-1](whole[-1], mask, whole[-1])[:, :3])
    assert kept.shape == (2, 3, 8)


@pytest.mark.parametrize("readout", ["class", "mean"])
def test_the_language_reaches_the_readout_only_as_a_mean(readout):
    fusion = randomise(Fusion(config(readout=readout)))
    hyper, language = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    same = torch.allclose(fusion(hyper, language), fusion(hyper, language + 1))
    assert same == (readout == "class")
    assert not torch.allclose(fusion(hyper, language), fusion(hyper + torch.randn(8), language))


def test_the_class_token_is_what_all_target_tokens_would_give():
    fusion, all_tokens = randomise(Fusion(config())), randomise(Fusion(config(readout="mean")))
    shared = {k: v for k, v in fusion.state_dict().items() if k != "target_positions"}
    all_tokens.load_state_dict(shared, strict=False)
    all_tokens.target_positions.data[:, :1] = fusion.target_positions.data
    made = []
    all_tokens.blocks[-1].register_forward_hook(lambda _, given, target: made.append(target))
    hyper, language = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    all_tokens(hyper, language)
    torch.testing.assert_close(fusion(hyper, language), made[0][:, 0])
