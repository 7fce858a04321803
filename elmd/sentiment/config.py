"""The configuration of a sentiment training run: what a recipe `sentiment-<model>-<set>` holds."""

from typing import Annotated, Any, Literal

from pydantic import Field

from elmd.config import Strict
from elmd.sentiment.target import TargetName
from elmd.types import MODALITIES, Modality


class ModelConfig(Strict):
    """Which model, and its settings."""

    name: str
    """An entry of `elmd list sentiment`."""
    settings: dict[str, Any] = {}
    """Keys of the entry's `Config`; the paper's sizes where none are given."""


class DataConfig(Strict):
    """What is learned from."""

    name: str
    """A data set, as `elmd data list` names it."""
    root: str | None = None
    """Its folder, or its file."""
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1, strict=False)] = MODALITIES
    """Those to use; the others are missing everywhere."""
    text: Literal["vectors", "ids", "words"] = "vectors"
    """The text comes as vectors of the data set, as its BERT ids, or as words; ids and words go through the encoder."""
    target: TargetName = "sentiment"


class EncoderConfig(Strict):
    """The encoder that turns words or ids into vectors; used only when `data.text` asks for it."""

    model: str = "multilingual-e5-small"
    """An asset, a folder or a hub id; for ids, one with the vocabulary that made them (bert-base-uncased for MMSA's files)."""
    tune: Literal["frozen", "lora", "full"] = "frozen"
    """Frozen: vectors are made once, before training. Full leaves the word embeddings as they are."""
    rank: Annotated[int, Field(ge=1)] = 8
    """Of LoRA."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    max_tokens: Annotated[int, Field(ge=4)] = 96
    prefix: str = "query: "
    """Put before words; the e5 family was trained with it."""


class GroupConfig(Strict):
    """What one named parameter group of a model has for itself."""

    learning_rate: Annotated[float | None, Field(gt=0)] = None
    weight_decay: Annotated[float | None, Field(ge=0)] = None


class TrainConfig(Strict):
    """How it is learned."""

    epochs: Annotated[int, Field(ge=1)] = 60
    patience: Annotated[int, Field(ge=1)] = 10
    """Stop after this many epochs without a better valid score."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches to one step of the optimizer."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    """Of the learning rate; plateau halves it after half of `patience` without a better valid score."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps in which the rate rises from 0."""
    precision: Literal["fp32", "bf16"] = "fp32"
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a modality of a sample is hidden from the model in training; one modality always stays."""
    groups: dict[str, GroupConfig] = {}
    """By the names that the model's `parameter_groups` gives."""


class Config(Strict):
    """One training run: a model on a data set, from several seeds."""

    model: ModelConfig
    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    train: TrainConfig = TrainConfig()
    seeds: Annotated[tuple[int, ...], Field(min_length=1, strict=False)] = (1111, 1112, 1113, 1114, 1115)
