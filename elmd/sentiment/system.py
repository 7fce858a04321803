"""A sentiment model with what stands before it — normalisation, and the text encoder if it learns along — on disk and off.

On disk a trained system is a folder: `model.safetensors` (what was learned, and the normalisation) and `system.json`
(the configuration and the shapes). The parts of an encoder that did not learn are its own asset and are not copied.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elmd.config import validate
from elmd.errors import BadData, UsageError
from elmd.files import write_text
from elmd.sentiment.base import MAIN, Prediction, SentimentModel, Shape
from elmd.sentiment.batch import Batch, Frames, Table
from elmd.sentiment.config import Config
from elmd.sentiment.target import Target
from elmd.sentiment.text import TextEncoder
from elmd.types import MODALITIES, Modality, Sample, Scale
from elmd.zoo import SENTIMENT

WEIGHTS, FACTS = "model.safetensors", "system.json"
ENCODER = "text_encoder"
"""The name of the encoder's parameter group."""


class Answer(NamedTuple):
    """What a training pass gives back, with the batch as the model saw it."""

    batch: Batch
    prediction: Prediction
    loss: Tensor


class System(nn.Module):
    """Normalisation, text encoder (only if it learns) and model, as one module.

    Args:
        model: The sentiment model.
        encoder: Makes the text's vectors from `batch.tokens`.
    """

    def __init__(self, model: SentimentModel, encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder
        for m, width in model.shape.widths.items():
            self.register_buffer(f"mean_{m}", torch.zeros(width))
            self.register_buffer(f"scale_{m}", torch.ones(width))

    def normalise_by(self, statistics: Mapping[Modality, tuple[Tensor, Tensor]]) -> None:
        """Take the mean and standard deviation of each modality that inputs are scaled by."""
        for m, (mean, deviation) in statistics.items():
            getattr(self, f"mean_{m}").copy_(mean)
            getattr(self, f"scale_{m}").copy_(deviation)

    def forward(self, batch: Batch, phase: str = MAIN) -> Answer:
        """Return prediction and loss of a training batch; several processes need both from one call."""
        ready = self.prepared(batch)
        prediction = self.model(ready)
        return Answer(ready, prediction, self.model.loss(ready, prediction, phase))

    def outputs(self, batch: Batch) -> Tensor:
        """Return the model's output rows (B, target.outputs)."""
        prediction: Prediction = self.model(self.prepared(batch))
        return prediction.output.float()

    def prepared(self, batch: Batch) -> Batch:
        """Return the batch with the vectors of its text made, and every modality scaled."""
        frames = dict(batch.frames)
        if self.encoder is not None and batch.tokens is not None:
            frames["text"] = self.encoder(batch.tokens)
        scaled = {m: self._scaled(m, f) for m, f in frames.items()}
        return Batch(batch.index, scaled, batch.labels, batch.unimodal)

    def learned(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps: everything but the encoder's frozen parts and the memory of the run."""
        frozen = (
            {f"encoder.{name}" for name, p in self.encoder.named_parameters() if not p.requires_grad}
            if self.encoder
            else set()
        )
        return {
            name: value.detach().contiguous()
            for name, value in self.state_dict().items()
            if name not in frozen and not name.startswith("model.bank.")
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the model's groups, and the encoder's."""
        groups = self.model.parameter_groups()
        return groups | ({ENCODER: list(self.encoder.learning().values())} if self.encoder else {})

    def _scaled(self, modality: Modality, frames: Frames) -> Frames:
        values = (frames.values - getattr(self, f"mean_{modality}")) / getattr(self, f"scale_{modality}")
        return Frames(values * frames.mask[..., None], frames.lengths)


class Loader:
    """Turns samples into tables as a configuration wants them: modalities, target, and the text's vectors or tokens.

    Args:
        config: Of the run.
        scale: Of the sentiment labels.
        device: Where the text encoder runs.
    """

    def __init__(self, config: Config, scale: Scale, device: torch.device) -> None:
        self.config, self.data, self.device = config, config.data, device
        self.target = Target(config.data.target, scale)
        self.encodes = config.data.text != "vectors" and "text" in config.data.modalities
        self.tuned = self.encodes and config.encoder.tune != "frozen"

    @cached_property
    def encoder(self) -> TextEncoder | None:
        """The text encoder, loaded when it is first asked for; None if the text comes as vectors."""
        return self.fresh_encoder() if self.encodes else None

    def forget_encoder(self) -> None:
        """Free the encoder's memory; it is loaded again when it is asked for."""
        self.__dict__.pop("encoder", None)

    def trimmed(self, samples: Iterable[Sample]) -> list[Sample]:
        """Return samples with copies of what is used of them only, so that the padded arrays of a file can be freed."""
        wanted = [m for m in self.data.modalities if m != "text" or not self.encodes]
        return [
            replace(sample, features={m: sample.features[m].copy() for m in wanted if m in sample.features})
            for sample in samples
        ]

    def table(self, samples: Sequence[Sample]) -> Table:
        """Return samples laid out for batching."""
        if self.encoder is not None:
            samples = self.encoder.tokenize(samples) if self.data.text == "words" else _checked(samples, self.encoder)
            if not self.tuned:
                samples = list(self.encoder.vectors(samples, self.device))
        return Table(samples, self.data.modalities, self.target, tokens=self.tuned)

    def statistics(self, samples: Sequence[Sample], table: Table) -> dict[Modality, tuple[Tensor, Tensor]]:
        """Return what to scale by: mean and deviation over the frames of the training set, the encoder being as it came."""
        if not self.tuned or self.encoder is None:
            return table.statistics()
        tokenized = self.encoder.tokenize(samples) if self.data.text == "words" else list(samples)
        made = Table(list(self.encoder.vectors(tokenized, self.device)), self.data.modalities, self.target)
        return made.statistics()

    def fresh_encoder(self) -> TextEncoder:
        """Return a new encoder that learns along, as it came."""
        return TextEncoder(self.config.encoder).to(self.device)

    def widths(self, table: Table) -> dict[Modality, int]:
        """Return the width of every modality's vectors as the model sees them."""
        return table.widths | ({"text": self.encoder.width} if self.tuned and self.encoder else {})


def build(config: Config, shape: Shape, encoder: TextEncoder | None) -> System:
    """Return a new system of a configuration; `encoder` is the one that learns along, if any does."""
    module = SENTIMENT.load(config.model.name)
    settings = validate(module.Config, config.model.settings, "model.settings")
    return System(module.Model(settings, shape), encoder)


def save(system: System, config: Config, folder: Path) -> None:
    """Write a system to a folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(system.learned(), folder / WEIGHTS)
    shape = system.model.shape
    facts = {
        "config": config.model_dump(mode="json", exclude_none=True),
        "widths": shape.widths,
        "scale": shape.target.scale,
    }
    write_text(folder / FACTS, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


class Predictor:
    """A trained system, ready to judge samples.

    Args:
        folder: Written by `elmd train sentiment`, one seed's (`seed-…`).
        device: Where it runs.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from safetensors.torch import load_file

        self.folder, self.device = folder, torch.device(device)
        facts = _facts(folder)
        self.config = validate(Config, facts["config"], f"{folder / FACTS}: config")
        self.scale: Scale = facts["scale"]
        self.loader = Loader(self.config, self.scale, self.device)
        self.target = self.loader.target
        shape = Shape({m: int(facts["widths"][m]) for m in MODALITIES}, self.target)
        encoder = self.loader.encoder if self.loader.tuned else None
        self.system = build(self.config, shape, encoder).to(self.device)
        self._fill(load_file(folder / WEIGHTS))
        self.system.eval()

    @torch.inference_mode()
    def outputs(self, samples: Sequence[Sample], batch_size: int = 64) -> Tensor:
        """Return the output row of every sample, (n, target.outputs), in order."""
        self._check(samples)
        return outputs(self.system, self.loader.table(samples), self.device, batch_size)

    def predict(self, samples: Sequence[Sample]) -> list[float | str | tuple[float, float]]:
        """Return what is said of every sample: the sentiment, the class, or (valence, arousal)."""
        return list(self.target.decode(self.outputs(samples))) if samples else []

    def reads(self, sample: Sample) -> bool:
        """Return whether a sample has anything of what the system reads."""
        text = {
            "words": bool(sample.text.strip()),
            "ids": sample.tokens is not None,
            "vectors": "text" in sample.features,
        }
        there = {m for m in sample.features if m != "text"} | ({"text"} if text[self.config.data.text] else set())
        return bool(there & set(self.config.data.modalities))

    def _fill(self, weights: dict[str, Tensor]) -> None:
        there = self.system.learned()
        wrong = [
            n for n in {*there, *weights} if n not in there or n not in weights or there[n].shape != weights[n].shape
        ]
        if wrong:
            raise BadData(
                self.folder / WEIGHTS, None, f"does not fit {FACTS} ({sorted(wrong)[0]}, {len(wrong)} in all)"
            )
        self.system.load_state_dict(weights, strict=False)

    def _check(self, samples: Sequence[Sample]) -> None:
        widths = self.system.model.shape.widths
        vectors = [m for m in self.config.data.modalities if m != "text" or self.loader.encoder is None]
        for sample in samples:
            for m in vectors:
                values = sample.features.get(m)
                if values is not None and (values.ndim != 2 or values.shape[1] != widths[m]):
                    raise UsageError(f"{sample.id}: {m} must be (frames, {widths[m]}), not {tuple(values.shape)}")


@torch.inference_mode()
def outputs(system: System, table: Table, device: torch.device, batch_size: int = 64) -> Tensor:
    """Return the output row of every sample of a table, (n, target.outputs), in order, on the CPU."""
    system.eval()
    found = torch.zeros(len(table), system.model.target.outputs)
    for batch in table.batches(batch_size):
        found[batch.index] = system.outputs(batch.to(device)).cpu()
    return found


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise UsageError(
            f"{folder} holds no trained sentiment model ({FACTS}, {WEIGHTS}); train one: elmd train sentiment"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(facts["config"], dict) and {*facts["widths"]} == {*MODALITIES} and facts["scale"]):
            raise ValueError("config, widths or scale")
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(path, None, f"not what elmd writes ({error})") from error
    return dict(facts)


def _checked(samples: Sequence[Sample], encoder: TextEncoder) -> Sequence[Sample]:
    """Refuse ids that the encoder's vocabulary does not have, and data without ids."""
    known = [sample.tokens for sample in samples if sample.tokens is not None]
    if not known:
        raise UsageError('data.text = "ids", but these samples carry no token ids; use "words" or "vectors"')
    if max(int(ids.max(initial=0)) for ids in known) >= encoder.vocabulary:
        raise UsageError(f"the data's ids do not fit the vocabulary of {encoder.config.model}; set encoder.model")
    return samples
