"""Hashed character n-grams: no weights and no meaning; for tests only."""

import hashlib
from collections.abc import Sequence

import numpy as np

from elmd.config import Strict


class Config(Strict):
    """Size of the vectors."""

    dimension: int = 64


class Embedder:
    """Counts of hashed character 1- and 2-grams, scaled to unit length."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = "hashing"
        self.revision = f"1/{config.dimension}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector a text, (n, dimension) float32."""
        rows = [self._count(text) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.config.dimension)

    def token_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return one vector a character of each text."""
        return [self.encode([*text]) for text in texts]

    def _count(self, text: str) -> np.ndarray:
        row = np.zeros(self.config.dimension)
        for gram in [*text, *(text[i : i + 2] for i in range(len(text) - 1))]:
            row[int.from_bytes(hashlib.blake2s(gram.encode(), digest_size=4).digest()) % len(row)] += 1
        return row / max(float(np.linalg.norm(row)), 1e-9)
