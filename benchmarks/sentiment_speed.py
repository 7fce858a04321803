"""Training and inference of sentiment models: elmd against MMSA 2.2.1, on one format-true MOSI file, on the CPU.

Run: python benchmarks/sentiment_speed.py [--models mult self_mm …] [--full-length] [--json FILE] [--markdown FILE]

Every figure comes from a process of its own; MMSA's and elmd's take turns, `--repeats` times, and ratios are of the
medians of one run. Both sides get the same samples, the same text input (`TEXTS`), batch size, steps to one update of
the weights and threads, and models of the same widths (`CASES`). A pass over the train split is timed after a short one
that is not; where MMSA is slow, a part of a pass is scaled up, and the number of steps is given. Not counted on either
side: loading, validation, writing weights. What elmd does once before training is given as "prepare": with a frozen
encoder all text vectors are made there, where MMSA runs the encoder in every step.

MMSA runs in an environment that is made when it is not there (`--mmsa-env`): MMSA itself from the package index, and by a
path file this environment's torch, transformers and numpy, so that both sides run on the very same builds. What is
patched is in `_mmsa_side.py`. MMSA's last release has no ALMT: its rows are a port of the layout of MMSA's development
branch, not its code. There every head is 64 wide, in elmd 16; "mmsa-narrow" is the port with heads of 16.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from _mmsa_side import INFINITE, LATENCIES, Clock, peak, resident, timed

SEED = 1111
NAMES = ("mmsa", "elmd")
TEXTS = {
    "vectors": "the file's 768-wide vectors",
    "tuned": "ids through a BERT of base size that learns along",
    "frozen": "ids through a BERT of base size that does not learn",
}
NEEDS = ("numpy", "pandas", "scikit-learn", "scipy", "tqdm", "easydict", "transformers", "psutil", "einops", "gdown",
         "pynvml", "matplotlib", "h5py")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A comparison.

    Attributes:
        model: Its name on both sides.
        text: One of TEXTS.
        batch, accumulate: MMSA's: samples in a batch, batches to a step of the optimizer.
        settings: Of elmd's model, so that the widths are MMSA's.
        steps: Batches of a timed pass of MMSA, and of elmd where nothing can be cropped; 0: all.
        warm: Batches of the pass before; as many as bring the optimizer to one step where it holds much.
        passes: Timed passes of a process.
        more: Sides beside MMSA's and elmd's.
        faster, smaller: What is aimed at: ratio of CPU seconds, and of peak memory.
    """

    model: str
    text: str
    batch: int
    accumulate: int = 1
    settings: Mapping[str, Any] | None = None
    steps: int = 0
    warm: int = 2
    passes: int = 1
    more: tuple[str, ...] = ("elmd-bf16",)
    faster: float = 1.0
    smaller: float = 1.0


_MULT = {
    "width": 50, "heads": 10, "layers": 4, "memory_layers": 4, "kernel": 5, "text_dropout": 0.5, "embed_dropout": 0.2,
    "attention_dropout": 0.2, "dropout": 0.0, "output_dropout": 0.5,
}  # fmt: skip
_CLS = {"text_pool": "first"}
_ALMT = ("elmd-bf16", "mmsa-narrow")
CASES: Mapping[str, Case] = {
    "lmf": Case("lmf", "vectors", 64, settings={"text": 128, "rank": 3, "dropout": 0.3}, passes=5),
    "tfn": Case("tfn", "vectors", 32, passes=3),
    "mult": Case("mult", "vectors", 16, 8, _MULT, steps=3, warm=1, faster=10, smaller=4),
    "self_mm": Case("self_mm", "tuned", 16, 4, _CLS, 8, 4, more=("elmd-bf16", "elmd-embeddings"), faster=1.5),
    "self_mm_frozen": Case("self_mm", "frozen", 16, 4, _CLS, 12, 4, faster=1.5),
    "almt": Case("almt", "tuned", 64, steps=3, warm=1, more=_ALMT, faster=1.5),
    "almt_frozen": Case("almt", "frozen", 64, steps=3, warm=1, more=_ALMT, faster=1.5),
    "almt_vectors": Case("almt", "vectors", 64, steps=4, warm=1, more=_ALMT, faster=1.5),
}
ABLATIONS: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "batches at random, not of like length": ("shuffle",),
    "padded to the file's lengths": ("pad",),
    "math attention": ("math",),
    "dropout on the attention weights": ("weights",),
    "none of the four": ("pad", "math", "weights"),
    "as it is, in bf16": ("bf16",),
}
"""Of elmd's MulT: what is taken away from it. Padding makes all batches of equal length."""


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        return measure(json.loads(sys.argv[2]))
    options = arguments()
    folder = options.work
    spec = {
        "data": str(synthetic(folder, options.full_length)),
        "bert": str(random_bert(folder)),
        "threads": options.threads,
        "workers": options.mmsa_workers,
        "full": options.full_length,
    }
    python = environment(options.mmsa_env)
    facts = about(options)
    rows = [row for name in options.models for row in compare(name, spec, options, python)]
    cuts = ablate(spec, options) if options.ablation else []
    facts["load_after"] = os.getloadavg()
    if options.json:
        text = json.dumps({"about": facts, "comparison": rows, "ablation": cuts}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(facts, rows, cuts), encoding="utf-8")
    show(facts, rows, cuts)
    return None


def arguments() -> argparse.Namespace:
    first = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    temporary = Path(tempfile.gettempdir())
    add = parser.add_argument
    add("--models", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    add("--steps", type=int, default=None, help="batches of a timed pass on both sides, for a trial; 0: all")
    add("--repeats", type=int, default=3, help="processes of each side")
    add("--full-length", action="store_true", help="every sample fills its padded length: nothing to crop")
    add("--threads", type=int, default=2, help="of both sides")
    add("--mmsa-workers", type=int, default=0, help="loader processes of MMSA, whose CPU time is not counted")
    add("--no-ablation", dest="ablation", action="store_false", help="leave out the table of elmd's MulT")
    add("--only-ablation", dest="models", action="store_const", const=[], help="nothing but that table")
    add("--mmsa-env", type=Path, default=temporary / "elmd-mmsa-env", help="environment of MMSA, made if need be")
    add("--work", type=Path, default=temporary / "elmd-sentiment-speed", help="folder of the data and of the BERT")
    add("--json", type=Path, default=None, help="file for all figures")
    add("--markdown", type=Path, default=None, help="file for the tables")
    return parser.parse_args()


def synthetic(folder: Path, full_length: bool) -> Path:
    """Return the file, 1284, 229 and 686 samples as in MOSI, made if it is not there."""
    from elmd.datasets._synthetic import SHAPES, synthesize

    place = folder / ("mosi-full" if full_length else "mosi")
    there = place / SHAPES["mosi"].file
    return there if there.exists() else synthesize("mosi", place, full_length=full_length)


def random_bert(folder: Path) -> Path:
    """Return the folder of an untrained BERT of base size: speed does not depend on what it has learned."""
    import torch
    from transformers import BertConfig, BertModel

    place = folder / "bert"
    if not (place / "model.safetensors").exists():
        torch.manual_seed(0)
        BertModel(BertConfig()).save_pretrained(place, safe_serialization=True)
    return place


def environment(folder: Path) -> Path:
    """Return the interpreter of MMSA's environment, made if it is not there."""
    python = folder / "bin" / "python"
    if python.exists() and not subprocess.run([python, "-c", "import MMSA"], capture_output=True).returncode:
        return python
    print(f"making {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    inside = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(inside, check=True, capture_output=True, text=True).stdout.strip())
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "elmd-shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    for wanted in (["--no-deps", "mmsa==2.2.1"], NEEDS):
        done = subprocess.run([python, "-m", "pip", "install", *wanted], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
    return python


def about(options: argparse.Namespace) -> dict[str, Any]:
    from importlib.metadata import version

    names = ("elmd", "torch", "transformers", "numpy")
    return {
        "machine": processor(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "mmsa": "2.2.1",
        "full_length": options.full_length,
        "repeats": options.repeats,
        "load_before": os.getloadavg(),
    }


def processor() -> str:
    """Return the processor's name (Linux)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def compare(name: str, spec: Mapping[str, Any], options: argparse.Namespace, python: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a side of a case, measured in turn."""
    case = CASES[name]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in (*NAMES, *case.more)}
    for _ in range(options.repeats):
        for side in found:
            found[side].append(run(side, case_spec(case, side, spec, options.steps), python, options.threads))
            print(f"{name:<15} {side:<16} {brief(found[side][-1])}", flush=True)
    base = summary(found["mmsa"])
    for side, runs in found.items():
        row = summary(runs)
        row |= {"case": name, "side": side, "text": case.text, "batch": case.batch, "runs": runs}
        if side.startswith("elmd"):
            row |= ratios(found["mmsa"], runs, base, row, case)
        yield row


def case_spec(case: Case, side: str, spec: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """Return what a process of a side is told."""
    whole = side.startswith("elmd") and not spec["full"]
    planned = 0 if whole else case.steps
    words = {**spec, **asdict(case), "steps": planned if steps is None else steps, "cut": side.split("-")[1:]}
    return words | ({"head_width": 16} if side == "mmsa-narrow" else {})


def run(side: str, spec: Mapping[str, Any], python: Path, threads: int) -> dict[str, Any]:
    """Measure in a new process."""
    here = Path(__file__)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        text = json.dumps({**spec, "out": str(out)})
        ours = [sys.executable, here, "--side", text]
        command = [python, here.with_name("_mmsa_side.py"), text] if side.startswith("mmsa") else ours
        environ = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        if done.returncode or not out.exists():
            raise SystemExit(f"{side}: {done.stderr[-3000:]}")
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians over processes, passes scaled to an epoch."""
    middle = statistics.median
    passes = [
        {kind: row[kind] / row["steps"] * r["epoch_steps"] for kind in ("cpu", "wall")}
        for r in runs
        for row in r["passes"]
    ]
    return {
        "cpu": middle(row["cpu"] for row in passes),
        "wall": middle(row["wall"] for row in passes),
        "steps": runs[0]["passes"][0]["steps"],
        "epoch_steps": runs[0]["epoch_steps"],
        "prepare_cpu": middle(r["prepare"]["cpu"] for r in runs),
        "rss_loaded": middle(r["rss_loaded"] for r in runs),
        "peak": middle(r["peak"] for r in runs),
        "latency_cpu": middle(r["latency"]["cpu"] for r in runs),
        "latency_wall": middle(r["latency"]["wall"] for r in runs),
        "parameters": runs[0]["parameters"],
    }


def ratios(
    theirs: Sequence[Mapping[str, Any]],
    ours: Sequence[Mapping[str, Any]],
    base: Mapping[str, Any],
    row: Mapping[str, Any],
    case: Case,
) -> dict[str, Any]:
    """Return how many times less than MMSA: of the medians, and the smallest and largest of the pairs."""
    found = {f"{key}_ratio": base[key] / row[key] for key in ("cpu", "wall", "peak", "latency_cpu", "latency_wall")}
    pairs = [summary([a])["cpu"] / summary([b])["cpu"] for a, b in zip(theirs, ours, strict=True)]
    met = found["cpu_ratio"] >= case.faster and found["peak_ratio"] >= case.smaller and found["latency_cpu_ratio"] >= 1
    return {**found, "cpu_ratio_pairs": [min(pairs), max(pairs)], "goal_met": met}


def ablate(spec: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the table of elmd's MulT without this and that, in turn."""
    case, rows = CASES["mult"], []
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ABLATIONS}
    for _ in range(options.repeats):
        for name, cut in ABLATIONS.items():
            slow = "pad" in cut or spec["full"]
            steps = options.steps if options.steps is not None else 4 if slow else 0
            words = {**case_spec(case, "elmd", spec, steps), "cut": list(cut)}
            found[name].append(run("elmd", words, Path(sys.executable), options.threads))
            print(f"{'mult':<15} {name:<38} {brief(found[name][-1])}", flush=True)
    whole = summary(found["as it is"])
    for name, runs in found.items():
        row = summary(runs)
        row |= {"without": name, "times_cpu": row["cpu"] / whole["cpu"], "times_peak": row["peak"] / whole["peak"]}
        rows.append({**row, "runs": runs})
    return rows


def brief(result: Mapping[str, Any]) -> str:
    row = summary([result])
    return (
        f"{row['cpu']:9.1f} CPU s {row['wall']:9.1f} s an epoch ({row['steps']}/{row['epoch_steps']} steps), "
        f"{row['peak']:6.0f} MB, {row['latency_cpu']:7.2f} CPU ms"
    )


# ---- elmd's side, in its own process ----


def measure(spec: Mapping[str, Any]) -> None:
    """Train and infer as `elmd train sentiment` and `elmd predict` do; write the figures to spec["out"]."""
    import torch

    torch.set_num_threads(spec["threads"])
    if "math" in spec["cut"] or "weights" in spec["cut"]:
        import elmd.sentiment.models._blocks  # noqa: F401 - what is exchanged below
    with ExitStack() as stack:
        for context in exchanged(spec["cut"]):
            stack.enter_context(context)
        result = trained(spec)
    Path(spec["out"]).write_text(json.dumps(result), encoding="utf-8")


def trained(spec: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from accelerate import Accelerator

    from elmd.sentiment.config import Config
    from elmd.sentiment.system import Loader
    from elmd.sentiment.train import Trainer, load

    config = Config.model_validate(configuration(spec))
    loader = Loader(config, "mosi", torch.device("cpu"))
    clock = Clock()
    data = load(config, loader)
    prepared, after_load, peak_load = clock.read(), resident(), peak()
    if "embeddings" in spec["cut"]:
        loader.fresh_encoder = partial(thawed, loader.fresh_encoder)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data, loader, Accelerator(cpu=True), SEED, Path(folder))
    passes = [epoch(trainer, data, spec, number) for number in range(1, spec["passes"] + 2)]
    return {
        "prepare": prepared,
        "passes": passes[1:],
        "epoch_steps": -(-len(data.train) // spec["batch"]),
        "rss_loaded": after_load,
        "peak_loaded": peak_load,
        "peak": peak(),
        "parameters": sum(p.numel() for p in trainer.system.parameters()),
        "latency": latency(spec, loader, trainer.system),
    }


def configuration(spec: Mapping[str, Any]) -> dict[str, Any]:
    encoder = {"model": spec["bert"], "tune": "full" if spec["text"] == "tuned" else "frozen"}
    return {
        "model": {"name": spec["model"], "settings": spec["settings"] or {}},
        "data": {"name": "mosi", "root": spec["data"], "text": "vectors" if spec["text"] == "vectors" else "ids"},
        "encoder": encoder if spec["text"] != "vectors" else {},
        "train": {
            "batch_size": spec["batch"],
            "accumulate": spec["accumulate"],
            "precision": "bf16" if "bf16" in spec["cut"] else "fp32",
        },
        "seeds": [SEED],
    }


def epoch(trainer: Any, data: Any, spec: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Run an epoch's phases, the first one short, as the trainer does; return its seconds."""
    steps = (spec["steps"] if number > 1 else spec["warm"]) or INFINITE
    trainer.data = replace(data, train=cut_table(data.train, steps, spec["cut"]))
    trainer.system.train()
    if number == 1:
        trainer.system.model.training_started(data.train.labels)
    trainer.system.model.epoch_started(number)
    clock = Clock()
    for phase in trainer.system.model.PHASES:
        trainer._phase(phase, number, lambda step: None)
    return {**clock.read(), "steps": min(steps, -(-len(data.train) // spec["batch"]))}


def cut_table(table: Any, steps: int, cut: Sequence[str]) -> Any:
    """Return a table that ends after so many batches and leaves out what an ablation names."""
    from itertools import islice

    import numpy as np
    import torch

    from elmd.datasets._synthetic import SHAPES
    from elmd.sentiment.batch import Batch, Frames, Table

    class Cut(Table):
        """A table with other batches."""

        def __init__(self) -> None:
            self.__dict__.update(table.__dict__)

        def batch(self, rows: Sequence[int]) -> Batch:
            made = super().batch(rows)
            return replace(made, frames={m: padded(m, f) for m, f in made.frames.items()}) if "pad" in cut else made

        def batches(self, size: int, seed: int | None = None, rows: Sequence[int] | None = None) -> Iterator[Batch]:
            if "shuffle" not in cut:
                yield from islice(super().batches(size, seed, rows), steps)
                return
            order = np.random.default_rng(seed).permutation(len(self)).tolist()
            yield from islice((self.batch(order[i : i + size]) for i in range(0, len(order), size)), steps)

    def padded(modality: Any, frames: Frames) -> Frames:
        missing = SHAPES["mosi"].lengths[modality] - frames.values.shape[1]
        return Frames(torch.nn.functional.pad(frames.values, (0, 0, 0, missing)), frames.lengths)

    return Cut()


def exchanged(cut: Sequence[str]) -> Iterator[AbstractContextManager[Any]]:
    """Yield what takes the fused attention away, or puts dropout on its weights."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if "math" in cut:
        yield sdpa_kernel(SDPBackend.MATH)
    if "weights" in cut:
        from elmd.sentiment.models._blocks import Attention

        fused = torch.nn.functional.scaled_dot_product_attention
        dropped = partial(fused, dropout_p=_MULT["attention_dropout"])
        yield mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", dropped)
        yield mock.patch.object(Attention, "_dropped", lambda self, values: values)
    yield nullcontext()


def thawed(fresh: Any) -> Any:
    """Return an encoder whose word embeddings learn too, as in MMSA."""
    encoder = fresh()
    for parameter in encoder.network.get_input_embeddings().parameters():
        parameter.requires_grad_(True)
    return encoder


def latency(spec: Mapping[str, Any], loader: Any, system: Any) -> dict[str, float]:
    """Return the median milliseconds from a batch of one sample to its output; a frozen encoder is part of it."""
    import torch

    from elmd.datasets import read_samples
    from elmd.sentiment.batch import Table

    samples = [s for s, _ in zip(read_samples("mosi", Path(spec["data"]), "valid"), range(LATENCIES), strict=False)]
    tokens = spec["text"] != "vectors"
    table = Table(samples, loader.data.modalities, loader.target, tokens=tokens)
    batches = [table.batch([row]) for row in range(len(samples))]
    system.eval()

    @torch.inference_mode()
    def once(batch: Any) -> None:
        if spec["text"] == "frozen":
            batch = replace(batch, frames={**batch.frames, "text": loader.encoder(batch.tokens)}, tokens=None)
        system.outputs(batch)

    if loader.encoder is not None:
        loader.encoder.eval()
    return timed(once, batches)


# ---- what is shown ----

HEADS = ("case", "side", "CPU s an epoch", "wall s", "steps", "prepare CPU s", "MB loaded", "MB at most", "CPU ms a sample",
         "parameters", "CPU ×", "wall ×", "memory ×", "latency ×", "goal")  # fmt: skip
CUT_HEADS = ("elmd's MulT", "CPU s an epoch", "wall s", "steps", "MB at most", "CPU s, times", "memory, times")


def cells(row: Mapping[str, Any]) -> list[str]:
    steps = "all" if row["steps"] == row["epoch_steps"] else f"{row['steps']} of {row['epoch_steps']}"
    left = [row["case"], row["side"], f"{row['cpu']:.3g}", f"{row['wall']:.3g}", steps, f"{row['prepare_cpu']:.1f}"]
    left += [f"{row['rss_loaded']:,.0f}", f"{row['peak']:,.0f}", f"{row['latency_cpu']:.2f}"]
    left += [f"{row['parameters'] / 1e6:.2f} M"]
    if "cpu_ratio" not in row:
        return [*left, *[""] * 5]
    low, high = row["cpu_ratio_pairs"]
    right = [f"{row['cpu_ratio']:.2f} ({low:.2f}–{high:.2f})"]
    right += [f"{row[key]:.2f}" for key in ("wall_ratio", "peak_ratio", "latency_cpu_ratio")]
    return [*left, *right, ("yes" if row["goal_met"] else "NO") if row["side"] == "elmd" else ""]


def cut_cells(row: Mapping[str, Any]) -> list[str]:
    steps = "all" if row["steps"] == row["epoch_steps"] else f"{row['steps']} of {row['epoch_steps']}"
    figures = [f"{row['cpu']:.3g}", f"{row['wall']:.3g}", steps, f"{row['peak']:,.0f}"]
    return [row["without"], *figures, f"{row['times_cpu']:.2f}", f"{row['times_peak']:.2f}"]


def markdown(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], cuts: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables for a page of documentation."""
    parts = [note(facts)]
    for heads, body in ((HEADS, [cells(row) for row in rows]), (CUT_HEADS, [cut_cells(row) for row in cuts])):
        if body:
            lines = [heads, ["---"] * len(heads), *body]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def note(facts: Mapping[str, Any]) -> str:
    loads = ", ".join(f"{facts[key][0]:.1f}" for key in ("load_before", "load_after"))
    lengths = "every sample at full length" if facts["full_length"] else "lengths like those of speech"
    return (
        f"{facts['machine']}, {facts['threads']} threads, Python {facts['python']}, torch {facts['torch']}, "
        f"transformers {facts['transformers']}; elmd {facts['elmd']}, MMSA {facts['mmsa']}; synthetic MOSI, {lengths}; "
        f"medians of {facts['repeats']} processes a side in turn; load before and after: {loads}."
    )


def show(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], cuts: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 170))
    console.print(note(facts))
    for heads, body in ((HEADS, [cells(row) for row in rows]), (CUT_HEADS, [cut_cells(row) for row in cuts])):
        if body:
            table = Table(*heads)
            for line in body:
                table.add_row(*line)
            console.print(table)


if __name__ == "__main__":
    main()
