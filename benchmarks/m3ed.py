"""Replies on M3ED valid with the 0.5B model: constant, retrieval, zero-shot LLM and elmd in one table.

Run: python benchmarks/m3ed.py M3ED_FOLDER OUT_FOLDER [COUNT]. Every step is an elmd command; steps that are done are kept.
"""

import subprocess
import sys
from pathlib import Path

SYSTEMS = {
    "zero-shot": ["--set", "retrieval.demonstrations=0"],
    "elmd": [],
    "elmd-m3ed-index": ["--set", "retrieval.index={out}/index"],
}


def elmd(*words: str) -> None:
    print("elmd", *words, flush=True)
    subprocess.run([sys.executable, "-m", "elmd", *words], check=True)


def main() -> None:
    root, out = sys.argv[1], Path(sys.argv[2])
    count = sys.argv[3] if len(sys.argv) > 3 else "100"
    out.mkdir(parents=True, exist_ok=True)
    elmd(
        "data",
        "prepare",
        "m3ed",
        "--root",
        root,
        "--split",
        "valid",
        "--last",
        "--limit",
        count,
        "--out",
        f"{out}/valid.jsonl",
    )
    if not (out / "index" / "manifest.json").exists():
        elmd("data", "prepare", "m3ed", "--root", root, "--split", "train", "--out", f"{out}/train.jsonl")
        elmd("index", "build", f"{out}/train.jsonl", "--out", f"{out}/index")
    for name, options in SYSTEMS.items():
        elmd("generate", f"{out}/valid.jsonl", f"{out}/{name}.jsonl", *(word.format(out=out) for word in options))
    for name in SYSTEMS:
        elmd("evaluate", f"{out}/{name}.jsonl", "--out", f"{out}/scores-{name}", "--plot", f"{out}/{name}.png")


if __name__ == "__main__":
    main()
