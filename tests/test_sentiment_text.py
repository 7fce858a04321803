"""The text branch: words and ids through an encoder, frozen or learning along, on disk and off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_sentiment import config, data, run  # noqa: F401 - `data` is a fixture

from elmd.errors import UsageError
from elmd.sentiment.config import EncoderConfig
from elmd.sentiment.predict import judge, sample_of
from elmd.sentiment.system import Predictor
from elmd.sentiment.text import TextEncoder
from elmd.types import Sample

WORDS = ["我很好", "good", "", "这个电影真的很好看"]
CPU = torch.device("cpu")


@pytest.fixture
def spoken(data):  # noqa: F811
    """The toy set, its samples with words in place of text vectors."""
    for split, rows in data.items():
        data[split] = [
            replace(s, text="好" * (1 + i % 5) if (s.sentiment or 0) > 0 else "坏了", features=without_text(s))
            for i, s in enumerate(rows)
        ]
    return data


def without_text(sample: Sample) -> dict:
    return {m: v for m, v in sample.features.items() if m != "text"}


def words(tmp_path, folder, **tables):
    chosen = {"model": str(folder), "prefix": "", **tables.pop("encoder", {})}
    return config(tmp_path, data={"text": "words"}, encoder=chosen, seeds=[1], **tables)


def said(texts) -> list[Sample]:
    return [Sample(str(i), "v", text) for i, text in enumerate(texts)]


def test_vectors_do_not_depend_on_company(tiny_encoder):
    encoder = TextEncoder(EncoderConfig(model=str(tiny_encoder)))
    whole = list(encoder.vectors(encoder.tokenize(said(WORDS)), CPU))
    assert [sample.id for sample in whole] == ["0", "1", "2", "3"]
    assert "text" not in whole[2].features
    for text, sample in zip(WORDS, whole, strict=True):
        if text:
            (alone,) = encoder.vectors(encoder.tokenize(said([text])), CPU)
            np.testing.assert_allclose(alone.features["text"], sample.features["text"], atol=1e-5)


def test_long_words_are_cut(tiny_encoder):
    encoder = TextEncoder(EncoderConfig(model=str(tiny_encoder), max_tokens=10))
    (sample,) = encoder.vectors(encoder.tokenize(said(["很" * 500])), CPU)
    assert sample.features["text"].shape == (10, encoder.width)


@pytest.mark.parametrize("tune", ["frozen", "lora", "full"])
def test_words_train_and_are_judged(spoken, tmp_path, tiny_encoder, tune):
    settings = words(tmp_path, tiny_encoder, encoder={"tune": tune, "rank": 2})
    metrics, _, _ = run(settings, tmp_path / "out")
    predictor = Predictor(tmp_path / "out/seed-1")
    again = predictor.outputs(spoken["valid"])[:, 0]
    label = torch.tensor([s.sentiment for s in spoken["valid"]])
    assert float((again - label).abs().mean()) == pytest.approx(metrics["valid"]["seeds"]["1"]["mae"], abs=1e-4)
    rows = judge(tmp_path / "out", [sample_of("好好好"), sample_of("坏了")])
    assert rows[0]["sentiment"] != rows[1]["sentiment"]


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_an_encoder_that_learns_along_changes_and_its_embeddings_do_not(spoken, tmp_path, tiny_encoder, tune):
    before = TextEncoder(EncoderConfig(model=str(tiny_encoder))).network.state_dict()
    run(words(tmp_path, tiny_encoder, encoder={"tune": tune, "learning_rate": 1e-2}), tmp_path / "out")
    system = Predictor(tmp_path / "out/seed-1").system
    learned = {name for name in system.learned() if name.startswith("encoder.")}
    assert learned
    assert not any("word_embeddings" in name for name in learned)
    if tune == "full":
        after = system.encoder.network.state_dict()
        changed = {n for n in before if not torch.equal(before[n], after[n])}
        assert changed
        assert not any("word_embeddings" in name for name in changed)


def test_a_seed_gets_the_encoder_as_it_came(spoken, tmp_path, tiny_encoder):
    """The second seed of a run does not go on from what the first has learned."""
    tuned = {"tune": "full", "learning_rate": 1e-2}
    both = words(tmp_path, tiny_encoder, encoder=tuned).model_copy(update={"seeds": (1, 2)})
    alone = both.model_copy(update={"seeds": (2,)})
    one, _, _ = run(both, tmp_path / "both")
    two, _, _ = run(alone, tmp_path / "alone")
    assert one["valid"]["seeds"]["2"] == two["valid"]["seeds"]["2"]


def test_ids_go_through_the_encoder(spoken, tmp_path, tiny_encoder):
    for split, rows in spoken.items():
        spoken[split] = [replace(s, text="", tokens=np.arange(2, 5 + i % 3)) for i, s in enumerate(rows)]
    settings = words(tmp_path, tiny_encoder).model_copy(update={"data": config(tmp_path, data={"text": "ids"}).data})
    metrics, _, _ = run(settings, tmp_path / "out")
    assert np.isfinite(metrics["valid"]["seeds"]["1"]["mae"])


def test_ids_of_another_vocabulary_are_refused(spoken, tmp_path, tiny_encoder):
    spoken["train"] = [replace(s, tokens=np.array([99_999])) for s in spoken["train"]]
    settings = words(tmp_path, tiny_encoder).model_copy(update={"data": config(tmp_path, data={"text": "ids"}).data})
    with pytest.raises(UsageError, match="do not fit the vocabulary"):
        run(settings, tmp_path / "out")


def test_ids_that_are_not_there_are_said(spoken, tmp_path, tiny_encoder):
    settings = words(tmp_path, tiny_encoder).model_copy(update={"data": config(tmp_path, data={"text": "ids"}).data})
    with pytest.raises(UsageError, match="carry no token ids"):
        run(settings, tmp_path / "out")
