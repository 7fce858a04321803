"""A transformers model on this machine, with an optional LoRA adapter.

One decoding loop serves batches and streams, so both give the same text. It uses transformers' logits processors but
not the sampling settings that a model brings along: `Sampling` says everything.

Randomness: every row draws from its own generator, seeded by `Sampling.seed` alone, so neither earlier calls nor the
other rows shift it. Padding still changes the last bits of the scores: a near tie, in bfloat16 above all, can fall
otherwise in another batch.
"""

import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elmd.config import Strict
from elmd.errors import AssetError, BackendError
from elmd.llms._adapter import first_line, merge_adapter, short_name
from elmd.llms._base import Pieces, finished, stopped
from elmd.llms._chat import encode_chat
from elmd.quiet import quiet
from elmd.types import Chat, Completion, Message, Sampling

if TYPE_CHECKING:
    import torch


class Config(Strict):
    """A model, where it runs and how much at once.

    Attributes:
        model: An asset's name, a local folder or a hub id (see `elmd.assets.locate`).
        adapter: Folder of a PEFT LoRA adapter in safetensors.
        dtype: "auto" is bfloat16 where the processor computes in it, else float32.
        device: A torch device; "auto" is the first CUDA GPU, else the CPU.
        batch_tokens: Bound of a batch: rows times (longest prompt + max_tokens); one row is always taken.
        threads: CPU threads of the whole process; None leaves torch's choice.
    """

    model: str = "qwen2.5-0.5b"
    adapter: str | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    batch_tokens: int = Field(8192, gt=0)
    threads: int | None = Field(None, gt=0)


@dataclass(slots=True)
class _Row:
    """One reply in the making: the ids of the prompt, at most `limit` ids of the reply, and why it ended."""

    prompt: list[int]
    limit: int
    draw: random.Random
    out: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None


class Backend:
    """A causal language model in memory. Loading raises AssetError; generation raises BackendError."""

    def __init__(self, config: Config) -> None:
        import torch

        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self._config = config
        self._tokenizer, self._model = _load(config)
        self._accepts = frozenset(inspect.signature(self._model.forward).parameters)
        self._ends = self._end_ids()

    @property
    def name(self) -> str:
        """Such as "hf:qwen2.5-0.5b", with "+" and the adapter's folder name when there is one."""
        adapter = f"+{_folder(self._config.adapter).name}" if self._config.adapter else ""
        return f"hf:{short_name(self._config.model)}{adapter}"

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion]:
        """Answer every chat in the order given; prompts of like length are decoded together.

        `Completion.tokens` counts the ids written, the closing one included, and no padding.
        """
        rows = [self._row(chat, sampling) for chat in chats]
        for batch in self._batches(rows, sampling):
            for _ in self._steps(batch, sampling):
                pass
        return [self._completion(row, sampling) for row in rows]

    def stream(self, chat: Chat, sampling: Sampling, cancel: Event | None = None) -> Iterator[str]:
        """Yield the answer as it is written, in the calling thread: no token is computed ahead of the reader."""
        row, pieces = self._row(chat, sampling), Pieces(sampling.stop)
        if cancel is not None and cancel.is_set():
            return
        for _ in self._steps([row], sampling):
            if cancel is not None and cancel.is_set():
                return
            if piece := pieces.more(self._text(row)):
                yield piece
                if cancel is not None and cancel.is_set():
                    return
        if piece := pieces.last(self._text(row)):
            yield piece

    def count_tokens(self, chat: Chat) -> int:
        """Count the tokens of the prompt exactly as `generate` feeds them."""
        return len(self._encode(chat))

    def _encode(self, chat: Chat) -> list[int]:
        from jinja2 import TemplateError

        try:
            return encode_chat(self._tokenizer, chat)
        except TemplateError as error:
            raise BackendError(f"the chat template of {self._config.model} refuses this chat: {error}") from error

    def _row(self, chat: Chat, sampling: Sampling) -> _Row:
        prompt = self._encode(chat)
        window = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        room = sampling.max_tokens if window is None else min(sampling.max_tokens, window - len(prompt))
        if window is not None and len(prompt) >= window:
            raise BackendError(f"the prompt has {len(prompt)} tokens and the model reads {window}: send fewer turns")
        return _Row(prompt, room, random.Random(sampling.seed), finish="length" if room <= 0 else None)

    def _batches(self, rows: Sequence[_Row], sampling: Sampling) -> Iterator[list[_Row]]:
        # The longest come first: if memory is short, that shows at once and not after an hour.
        batch: list[_Row] = []
        for row in sorted(rows, key=lambda row: len(row.prompt), reverse=True):
            longest = len(batch[0].prompt if batch else row.prompt) + sampling.max_tokens
            if batch and longest * (len(batch) + 1) > self._config.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _steps(self, rows: Sequence[_Row], sampling: Sampling) -> Iterator[None]:
        # No inference_mode around a yield: the reader's own thread would be left in it.
        rows = [row for row in rows if row.finish is None]
        if not rows:
            return
        batch, processors = _Batch(self._model, self._accepts, rows), _processors(sampling)
        while True:
            tokens = _choose(processors(batch.ids, batch.scores()), rows, sampling)
            for row, token in zip(rows, tokens, strict=True):
                self._write(row, token, sampling)
            yield
            if not (kept := [n for n, row in enumerate(rows) if row.finish is None]):
                return
            batch.append(tokens)
            # Dropping rows copies the cache, so it waits until half of them are done.
            if 2 * len(kept) <= len(rows):
                batch.keep(kept)
                rows = [rows[n] for n in kept]

    def _write(self, row: _Row, token: int, sampling: Sampling) -> None:
        if row.finish is not None:
            return
        row.out.append(token)
        if token in self._ends or (sampling.stop and stopped(self._text(row), sampling.stop)):
            row.finish = "stop"
        elif len(row.out) >= row.limit:
            row.finish = "length"

    def _text(self, row: _Row) -> str:
        ids = [i for i in row.out if i not in self._ends]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _completion(self, row: _Row, sampling: Sampling) -> Completion:
        text = finished(self._text(row), sampling.stop)
        return Completion(text, row.finish or "length", len(row.prompt), len(row.out))

    def _end_ids(self) -> frozenset[int]:
        # The template's own end of a turn counts too: a converted model may come without generation_config.json.
        declared = self._model.generation_config.eos_token_id
        ends = set(declared) if isinstance(declared, list) else {declared}
        example = (Message("user", "a"), Message("assistant", "b"))
        special = set(self._tokenizer.all_special_ids)
        turn = [i for i in encode_chat(self._tokenizer, example, reply_next=False) if i in special]
        return frozenset(i for i in (*ends, self._tokenizer.eos_token_id, *turn[-1:]) if i is not None)


class _Batch:
    """The tensors of one left-padded batch: ids (rows, tokens so far) and what the model remembers of them."""

    def __init__(self, model: Any, accepts: frozenset[str], rows: Sequence[_Row]) -> None:
        import torch

        width = max(len(row.prompt) for row in rows)
        gaps = [width - len(row.prompt) for row in rows]
        # A row is padded with its own first token, masked: the repetition penalty then meets no foreign token.
        ids = [[row.prompt[0]] * gap + row.prompt for row, gap in zip(rows, gaps, strict=True)]
        self._model, self._accepts = model, accepts
        self.ids: torch.Tensor = torch.tensor(ids, device=model.device)
        columns = torch.arange(width, device=model.device)
        starts = torch.tensor(gaps, device=model.device)[:, None]
        self._mask = (columns >= starts).long()
        self._positions = (columns - starts).clamp(min=0)
        self._new = self.ids
        self._cache: Any = None

    def scores(self) -> "torch.Tensor":
        """Read the newest tokens; return the scores of the next one, float32 (rows, vocabulary)."""
        import torch

        wanted = {
            "input_ids": self._new,
            "attention_mask": None if bool(self._mask.all()) else self._mask,
            "position_ids": self._positions,
            "past_key_values": self._cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        with torch.inference_mode():
            out = self._model(**{key: value for key, value in wanted.items() if key in self._accepts})
        self._cache = out.past_key_values
        scores: torch.Tensor = out.logits[:, -1].float()
        return scores

    def append(self, tokens: list[int]) -> None:
        """Add one token to every row."""
        import torch

        self._new = torch.tensor(tokens, device=self.ids.device)[:, None]
        self.ids = torch.cat([self.ids, self._new], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(self._new)], dim=1)
        self._positions = self._positions[:, -1:] + 1

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but those, given by their index."""
        import torch

        index = torch.tensor(rows, device=self.ids.device, dtype=torch.long)
        self.ids, self._new = self.ids[index], self._new[index]
        self._mask, self._positions = self._mask[index], self._positions[index]
        with torch.inference_mode():
            self._cache.batch_select_indices(index)


def _processors(sampling: Sampling) -> Any:
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.temperature > 0:
        chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.temperature > 0 and sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(float(sampling.top_p)))
    return chosen


def _choose(scores: "torch.Tensor", rows: Sequence[_Row], sampling: Sampling) -> list[int]:
    """Return one token a row: the best, or where the row's own draw falls in the cumulative distribution."""
    import torch

    if sampling.temperature <= 0:
        return [int(i) for i in scores.argmax(dim=-1).tolist()]
    # Wide floats, since the shares of 150 000 tokens add up; Apple's GPUs have none.
    wide = torch.float32 if scores.device.type == "mps" else torch.float64
    cumulative = scores.softmax(dim=-1, dtype=wide).cumsum(dim=-1)
    draws = torch.tensor([row.draw.random() for row in rows], dtype=wide, device=scores.device)[:, None]
    found = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
    return [int(i) for i in found[:, 0].clamp(max=scores.shape[-1] - 1).tolist()]


def _load(config: Config) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from elmd.assets import catalogue, locate

    quiet()
    folder = locate(config.model)
    if (folder / "adapter_config.json").is_file():
        raise AssetError(f"{config.model} is an adapter: name its base as model and this folder as adapter")
    device = _device(config.device)
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=_dtype(config.dtype, device), attn_implementation="sdpa", use_safetensors=True, **local
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise AssetError(f"model {config.model}: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise AssetError(f"model {config.model} has no chat template: choose an instruction-tuned model")
    model = model.to(device).eval()
    if config.adapter is not None:
        hub = [catalogue()[config.model].hub] if config.model in catalogue() else []
        model = merge_adapter(model, _folder(config.adapter), (config.model, str(folder), *hub))
    # The weights keep requires_grad: without it, torch copies the head's matrix once a row for the last-token slice.
    return tokenizer, model


def _folder(name: str) -> Path:
    return Path(name).expanduser().resolve()


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(name: str, device: str) -> "torch.dtype":
    import torch

    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if features.get("avx512_bf16") or features.get("amx_bf16") else torch.float32
