"""Exact search over many demonstrations: milliseconds a query on one core. Run: python benchmarks/search.py [COUNT]."""

import sys
import time

import faiss
import numpy as np

from elmd.retrieval.index import DemonstrationIndex
from elmd.types import Demonstration, Dialogue, Utterance

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
DIMENSION, QUERIES = 384, 50


class RandomEncoder:
    """Random unit vectors: search time does not depend on what they mean."""

    name, revision = "random", "0"

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Return unit rows."""
        vectors = self.rng.standard_normal((len(texts), DIMENSION), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    faiss.omp_set_num_threads(1)
    items = [
        Demonstration(f"d{i}", (Utterance("user", f"context {i}"),), "reply", "neutral", "en", "made", "CC0-1.0")
        for i in range(COUNT)
    ]
    index = DemonstrationIndex.build(items, RandomEncoder())
    query = Dialogue("query", (Utterance("user", "hello there"),), "en")
    vectors = [index.encode(query) for _ in range(QUERIES)]
    times = []
    for vector in vectors:
        started = time.perf_counter()
        found = index.search_vector(vector, query, 32)
        times.append(1000 * (time.perf_counter() - started))
        assert len(found) == 32
    low, middle, high = np.percentile(times, [5, 50, 95])
    print(f"{COUNT} x {DIMENSION}, one core, 32 found: median {middle:.1f} ms (5-95 %: {low:.1f}-{high:.1f})")


if __name__ == "__main__":
    main()
