"""The text reader: words to an EmotionState, by a sentence encoder with a LoRA adapter and a linear head.

Weights on disk: a PEFT adapter folder with `head.safetensors` (weight (7, dimension), bias (7,)) and `reader.json`.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmd import assets
from elmd.config import Strict
from elmd.errors import AssetError
from elmd.labels import EKMAN
from elmd.quiet import quiet
from elmd.text import clean
from elmd.types import EmotionState

if TYPE_CHECKING:
    import torch

PREFIX = "query: "
MAX_TOKENS = 96
SHIPPED = "weights/emotion-text"


class Config(Strict):
    """Which weights read the emotion of words."""

    weights: str | None = None
    """A folder written by `elmd train emotion`; the shipped weights when None."""
    batch_size: int = 64
    annotated: bool = False
    """Take a turn's annotated emotion instead of reading it: an oracle, for experiments."""


class TextReader:
    """Reads the emotion of utterances; loads on first use."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()

    @cached_property
    def folder(self) -> Path:
        """Where the weights lie."""
        folder = Path(self.config.weights) if self.config.weights else Path(str(resources.files("elmd") / SHIPPED))
        if not (folder / "head.safetensors").is_file():
            raise AssetError(f"{folder} holds no emotion reader (head.safetensors); train one: elmd train emotion")
        return folder

    def read(self, text: str) -> EmotionState:
        """Return the emotion of one utterance; text without a letter, digit or emoji reads as neutral."""
        return self.read_many([text])[0]

    def read_many(self, texts: Sequence[str]) -> list[EmotionState]:
        """Return the emotion of each utterance, in order."""
        import torch

        states = [EmotionState.of("neutral", "text")] * len(texts)
        cleaned = [(i, clean(text)) for i, text in enumerate(texts)]
        spoken = [(i, text) for i, text in cleaned if text]
        for start in range(0, len(spoken), self.config.batch_size):
            rows = spoken[start : start + self.config.batch_size]
            with torch.inference_mode():
                logits = self._network([text for _, text in rows])
            for (i, _), shares in zip(rows, logits.softmax(-1).tolist(), strict=True):
                states[i] = EmotionState.from_scores(dict(zip(EKMAN, shares, strict=True)), "text")
        return states

    @cached_property
    def _network(self) -> "EmotionNetwork":
        from peft import PeftModel
        from safetensors.torch import load_file

        facts = json.loads((self.folder / "reader.json").read_text(encoding="utf-8"))
        network = EmotionNetwork(facts["encoder"])
        network.encoder = PeftModel.from_pretrained(network.encoder, str(self.folder)).merge_and_unload().eval()
        network.load_head(load_file(self.folder / "head.safetensors"))
        return network


class EmotionNetwork:
    """A sentence encoder (mean pooling) with a linear head over EKMAN.

    Args:
        encoder: Asset, folder or hub id of a BERT-like encoder.
    """

    def __init__(self, encoder: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        quiet()  # BERT's pooler is not used, and would be reported as missing
        folder = assets.locate(encoder)
        self.name = encoder
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.encoder: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, len(EKMAN))
        self.encoder.eval()

    def __call__(self, texts: Sequence[str]) -> "torch.Tensor":
        """Return logits, (len(texts), 7)."""
        import torch

        batch = self.tokenizer(
            [PREFIX + text for text in texts],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        logits: torch.Tensor = self.head(pooled.float())
        return logits

    def load_head(self, tensors: dict[str, "torch.Tensor"]) -> None:
        """Set the head's weight and bias."""
        self.head.load_state_dict(tensors)
