"""MMSA's side of `sentiment_speed.py`: its own loader, models and trainers, timed batch by batch.

Run by that program inside the environment that holds MMSA: python _mmsa_side.py '{"case": …}'. What MMSA 2.2.1 needs to
run at all on today's packages and without a GPU is patched from outside (see `patch`); its files stay as they are.

ALMT came to MMSA after its last release. `Almt` below is a plain-torch port of that layout (MIT, thuiar/MMSA, after
Haoyu-ha/ALMT): the same layers and widths, written anew. It runs through MMSA's loader; it is not MMSA's code.
"""

import json
import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LATENCIES = 30
INFINITE = 10**9


class Done(Exception):
    """Ends a trainer that would go on to its early stop."""


class Clock:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return both."""
        return {"cpu": time.process_time() - self.cpu, "wall": time.perf_counter() - self.wall}


class Passes:
    """A loader that ends each pass after so many batches, times it, and ends the trainer after the last pass.

    Args:
        loader: MMSA's.
        plan: Batches of each pass.
    """

    def __init__(self, loader: Any, plan: list[int]) -> None:
        self.loader, self.plan = loader, plan
        self.times: list[dict[str, float]] = []

    def __len__(self) -> int:
        return min(self.plan[min(len(self.times), len(self.plan) - 1)], len(self.loader))

    def __iter__(self) -> Iterator[Any]:
        steps = len(self)
        clock = Clock()
        yield from islice(self.loader, steps)
        self.times.append({**clock.read(), "steps": steps})
        if len(self.times) == len(self.plan):
            raise Done


def patch(bert: str) -> None:
    """Let MMSA run on current torch and transformers, on a CPU, without a download and without writing weights."""
    import transformers
    from torch.optim import lr_scheduler

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        """Takes `verbose`, which torch has dropped."""

        def __init__(self, *words: Any, verbose: bool = False, **named: Any) -> None:
            super().__init__(*words, **named)

    own = transformers.BertModel.from_pretrained
    lr_scheduler.ReduceLROnPlateau = Plateau
    torch.cuda.set_device = lambda device: None
    torch.save = lambda *words, **named: None
    transformers.BertModel.from_pretrained = lambda name: own(bert, dtype=torch.float32)
    # Only ever kept: the data brings its ids.
    transformers.BertTokenizer.from_pretrained = lambda name: None


def settings(spec: dict[str, Any]) -> Any:
    """Return MMSA's own configuration for MOSI, with the place of the data and whether BERT learns."""
    from MMSA.config import get_config_regression

    port = {"vectors": "mult"}.get(spec["text"], "self_mm")
    args = get_config_regression(port if spec["model"] == "almt" else spec["model"], "mosi")
    args.update(featurePath=spec["data"], device=torch.device("cpu"), train_mode="regression", cur_seed=1)
    args.update(custom_feature=None, feature_T="", feature_A="", feature_V="", model_save_path=Path("unused"))
    if spec["text"] != "vectors":
        args.update(use_bert=True, use_finetune=spec["text"] == "tuned")
    if spec["model"] == "almt":
        args.update(model_name="almt", batch_size=spec["batch"], head_width=spec.get("head_width", 64))
    if (
        args.batch_size != spec["batch"]
        or args.get("update_epochs", 1) != spec["accumulate"]
        and args.model_name != "almt"
    ):
        raise SystemExit(f"MMSA's batches for {args.model_name} are of {args.batch_size}, not {spec['batch']}")
    return args


def loaders(args: Any, workers: int) -> dict[str, Any]:
    """Return MMSA's loaders; a last batch of one row, on which its batch norm fails, is dropped."""
    from MMSA.data_loader import MMDataLoader
    from torch.utils.data import DataLoader

    made = MMDataLoader(args, workers)
    for name, loader in made.items():
        if len(loader.dataset) % args.batch_size == 1:
            made[name] = DataLoader(loader.dataset, args.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    return dict(made)


def learner(args: Any) -> tuple[nn.Module, Any]:
    """Return a model and its trainer."""
    if args.model_name == "almt":
        model = Almt(args)
        return model, AlmtTrainer(args)
    from MMSA.models import AMIO
    from MMSA.trains import ATIO

    return AMIO(args), ATIO().getTrain(args)


def train(spec: dict[str, Any], model: nn.Module, trainer: Any, loader: dict[str, Any]) -> list[dict[str, float]]:
    """Let the trainer run a short pass and then the timed ones; return the times of the latter."""
    warm = spec["warm"] or INFINITE
    before = [INFINITE] if spec["model"] == "self_mm" else []  # it first reads the labels of the whole set
    plan = [*before, warm, *[spec["steps"] or INFINITE] * spec["passes"]]
    passes = Passes(loader["train"], plan)
    try:
        trainer.do_train(model, {"train": passes, "valid": list(islice(loader["valid"], 1)), "test": []})
    except Done:
        return passes.times[len(before) + 1 :]
    raise SystemExit("MMSA's trainer ended by itself; lower --passes")


def latency(args: Any, model: nn.Module, dataset: Any) -> dict[str, float]:
    """Return the median milliseconds of a forward pass of one sample."""
    from torch.utils.data import default_collate

    model.eval()
    batches = [default_collate([dataset[i]]) for i in range(LATENCIES)]

    def once(batch: dict[str, Any]) -> None:
        audio, vision = batch["audio"], batch["vision"]
        if args.model_name == "self_mm":
            audio, vision = (audio, batch["audio_lengths"]), (vision, batch["vision_lengths"])
        with torch.no_grad():
            model(batch["text"], audio, vision)

    return timed(once, batches)


def timed(call: Callable[[Any], Any], items: list[Any]) -> dict[str, float]:
    """Return the median CPU and wall milliseconds of a call, after two that do not count."""
    for item in items[:2]:
        call(item)
    found = []
    for item in items:
        clock = Clock()
        call(item)
        found.append(clock.read())
    return {kind: 1000 * statistics.median(row[kind] for row in found) for kind in ("cpu", "wall")}


def resident() -> float:
    """Return the megabytes this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Return the most megabytes this process has held (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    spec = json.loads(sys.argv[1])
    logging.disable(logging.INFO)
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(1111)
    patch(spec["bert"])
    args = settings(spec)
    clock = Clock()
    loader = loaders(args, spec.get("workers", 0))
    prepared, after_load, peak_load = clock.read(), resident(), peak()
    model, trainer = learner(args)
    epoch = len(loader["train"])
    passes = train(spec, model, trainer, loader)
    result = {
        "prepare": prepared,
        "passes": passes,
        "epoch_steps": epoch,
        "rss_loaded": after_load,
        "peak_loaded": peak_load,
        "peak": peak(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "latency": latency(args, model, loader["valid"].dataset),
    }
    Path(spec["out"]).write_text(json.dumps(result), encoding="utf-8")


class Heads(nn.Module):
    """Multi-head attention with its weights written out, as in the original; each head `head_width` wide."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.scale = heads, head_width**-0.5
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.maps = nn.ModuleList([nn.Linear(width, inner, bias=False) for _ in range(3)])
        self.out = nn.Linear(inner, width)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Attend from `query` over `memory`."""
        parts = (query, memory, memory)
        q, k, v = (
            mapped(norm(part)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for mapped, norm, part in zip(self.maps, self.norms, parts, strict=True)
        )
        weights = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.attention = Heads(width, 8, head_width)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))

    def forward(self, values: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return `values` after attention over `memory`, or itself."""
        values = self.attention(values, values if memory is None else memory) + values
        return self.feed(values) + values


class Embed(nn.Module):
    """Frames as eight tokens: all frames go through the layer, the first eight are kept."""

    def __init__(self, inputs: int, length: int, width: int, head_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.tokens = nn.Parameter(torch.zeros(1, 8, width))
        self.places = nn.Parameter(torch.randn(1, length + 8, width))
        self.layer = Layer(width, head_width)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (B, 8, width)."""
        values = torch.cat([self.tokens.expand(len(frames), -1, -1), self.project(frames)], 1)
        return self.layer(values + self.places[:, : values.shape[1]])[:, :8]


class Hyper(nn.Module):
    """A layer of hyper-modality learning; its heads share the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])
        self.query = nn.Linear(width, width, bias=False)
        self.memory = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(4)])
        self.out = nn.Linear(width, width)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor, hyper: Tensor) -> Tensor:
        """Return the running hyper-modality with what the text found in audio and vision."""
        text, audio, vision, hyper = (n(x) for n, x in zip(self.norms, (text, audio, vision, hyper), strict=True))
        split: Callable[[Tensor], Tensor] = lambda x: x.unflatten(-1, (8, -1)).transpose(1, 2)  # noqa: E731
        query, found = split(self.query(text)), []
        for source, key, value in ((audio, *self.memory[:2]), (vision, *self.memory[2:])):
            weights = (query @ split(key(source)).transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
            found.append((weights @ split(value(source))).transpose(1, 2).flatten(2))
        return hyper + self.out(found[0] + found[1])


class Almt(nn.Module):
    """The layout of ALMT for MOSI: three embeddings, two language layers, three hyper layers, two fusion layers."""

    def __init__(self, args: Any) -> None:
        super().__init__()
        from MMSA.models.subNets import BertTextEncoder

        width, heads = 128, args.head_width
        self.bert = BertTextEncoder(args.use_finetune, "bert", "bert") if args.use_bert else None
        lengths = (50, *args.seq_lens[1:])
        self.embed = nn.ModuleList([Embed(d, n, width, heads) for d, n in zip(args.feature_dims, lengths, strict=True)])
        self.places = nn.Parameter(torch.randn(1, 8, width))
        self.language = nn.ModuleList([Layer(width, heads) for _ in range(2)])
        self.start = nn.Parameter(torch.ones(1, 8, width))
        self.hyper = nn.ModuleList([Hyper(width) for _ in range(3)])
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.fusion_places = nn.Parameter(torch.randn(2, 1, 9, width))
        self.fusion = nn.ModuleList([Layer(width, heads) for _ in range(2)])
        self.head = nn.Linear(width, 1)

    def forward(self, text: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """Return (B, 1)."""
        words = self.bert(text) if self.bert is not None else text
        language, heard, seen = (e(x) for e, x in zip(self.embed, (words, audio, vision), strict=True))
        scales = [language + self.places]
        for layer in self.language:
            scales.append(layer(scales[-1]))
        hyper = self.start.expand(len(text), -1, -1)
        for layer, scale in zip(self.hyper, scales, strict=True):
            hyper = layer(scale, heard, seen, hyper)
        token = self.token.expand(len(text), -1, -1)
        source, target = (
            torch.cat([token, x], 1) + place for x, place in zip((hyper, scales[-1]), self.fusion_places, strict=True)
        )
        for layer in self.fusion:
            target = layer(target, source)
        return self.head(target[:, 0])


class AlmtTrainer:
    """The training loop of ALMT: AdamW on the mean squared error, a step a batch."""

    def __init__(self, args: Any) -> None:
        self.args = args

    def do_train(self, model: nn.Module, dataloader: dict[str, Any]) -> None:
        """Train until the loader ends it."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
        while True:
            model.train()
            for batch in dataloader["train"]:
                optimizer.zero_grad()
                found = model(batch["text"], batch["audio"], batch["vision"])
                loss = nn.functional.mse_loss(found, batch["labels"]["M"].view(-1, 1))
                loss.backward()
                optimizer.step()
                loss.item()


if __name__ == "__main__":
    main()
