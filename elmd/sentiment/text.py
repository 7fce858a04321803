"""The text branch: words or BERT ids to one vector a token, by a transformers encoder that is frozen or learns along."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elmd import assets
from elmd.quiet import quiet
from elmd.sentiment.batch import Frames
from elmd.sentiment.config import EncoderConfig
from elmd.types import Modality, Sample

LORA_TARGETS = ["query", "key", "value", "dense"]
_BATCH = 64


class TextEncoder(nn.Module):
    """A transformers encoder from its local folder (safetensors only).

    Args:
        config: Which model, and what of it learns.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        from transformers import AutoModel

        quiet()
        self.config = config
        self.folder = assets.locate(config.model)
        network = AutoModel.from_pretrained(
            str(self.folder), dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        self.width: int = network.config.hidden_size
        self.limit = min(config.max_tokens, network.config.max_position_embeddings - 2)
        self.vocabulary: int = network.config.vocab_size
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # its output is not used, so it would be a parameter without gradient
        self.network = _tuned(network, config)

    def forward(self, tokens: Frames) -> Frames:
        """Return the vectors (B, L, width) of token ids (B, L, 1); a row without tokens has none."""
        mask = tokens.mask
        # A row without words would have nothing to attend to; its first place is made visible and then dropped.
        seen = mask.clone()
        seen[:, 0] = True
        found = self.network(input_ids=tokens.values[..., 0], attention_mask=seen.long()).last_hidden_state
        return Frames(found * mask[..., None], tokens.lengths)

    def tokenize(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples with the token ids of their words; one without words gets none."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
        texts = [self.config.prefix + sample.text for sample in samples]
        ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=self.limit)["input_ids"] if texts else []
        return [
            replace(sample, tokens=np.array(row, np.int64) if sample.text.strip() else None)
            for sample, row in zip(samples, ids, strict=True)
        ]

    @torch.inference_mode()
    def vectors(self, samples: Sequence[Sample], device: torch.device) -> Iterator[Sample]:
        """Yield the samples, which carry tokens, with the vectors of their text, in order."""
        self.eval()
        made: dict[int, np.ndarray] = {}
        there = [i for i, sample in enumerate(samples) if sample.tokens is not None]
        there.sort(key=lambda i: len(_ids(samples[i])))
        for start in range(0, len(there), _BATCH):
            rows = there[start : start + _BATCH]
            found = self(_padded([_ids(samples[i])[: self.limit] for i in rows], device))
            for i, values, length in zip(rows, found.values.cpu().numpy(), found.lengths.tolist(), strict=True):
                made[i] = values[:length].copy()
        for i, sample in enumerate(samples):
            features: dict[Modality, np.ndarray] = {m: v for m, v in sample.features.items() if m != "text"}
            if i in made:
                features["text"] = made[i]
            yield replace(sample, features=features, tokens=None)

    def learning(self) -> dict[str, nn.Parameter]:
        """Return the parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def _tuned(network: Any, config: EncoderConfig) -> nn.Module:
    if config.tune == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=config.rank, lora_alpha=2 * config.rank, lora_dropout=0.1, target_modules=LORA_TARGETS)
        adapted: nn.Module = get_peft_model(network, lora)
        return adapted
    learns = config.tune == "full"
    for parameter in network.parameters():
        parameter.requires_grad_(learns)
    for parameter in network.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    return network  # type: ignore[no-any-return]


def _ids(sample: Sample) -> np.ndarray:
    return np.zeros(0, np.int64) if sample.tokens is None else sample.tokens


def _padded(rows: Iterable[np.ndarray], device: torch.device) -> Frames:
    ids = [torch.from_numpy(np.ascontiguousarray(row)) for row in rows]
    values: Tensor = nn.utils.rnn.pad_sequence(ids, batch_first=True)[..., None]
    return Frames(values.to(device), torch.tensor([len(row) for row in ids], device=device))
