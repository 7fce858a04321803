"""Any sentence-transformers model; by default multilingual-e5-small (384 dimensions, Chinese and English)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from elmd import assets
from elmd.config import Strict
from elmd.quiet import quiet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Config(Strict):
    """Which encoder, and how it runs."""

    model: str = "multilingual-e5-small"
    """An asset, a folder or a hub id."""
    prefix: str = "query: "
    """Put before every text; the e5 family was trained with "query: " for symmetric search."""
    batch_size: int = 64
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"


class Embedder:
    """A sentence-transformers model behind the embedder contract; loads on first use."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.model

    @cached_property
    def folder(self) -> Path:
        """The model's local folder, fetched if need be."""
        return assets.locate(self.config.model)

    @cached_property
    def revision(self) -> str:
        """The model's fingerprint and the prefix: what the vectors depend on."""
        return f"{assets.fingerprint(self.folder)[:16]}/{self.config.prefix.strip()}"

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The loaded model."""
        from sentence_transformers import SentenceTransformer

        quiet()
        return SentenceTransformer(
            str(self.folder),
            device=self.config.device,
            local_files_only=True,
            model_kwargs={"dtype": self.config.dtype, "use_safetensors": True},
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector a text, (n, dimension) float32."""
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension()), np.float32)
        vectors = self.model.encode(
            [self.config.prefix + text for text in texts],
            batch_size=self.config.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    def token_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the contextual vector of every token of each text, without prefix and special tokens."""
        found = self.model.encode(
            [*texts], batch_size=self.config.batch_size, output_value="token_embeddings", show_progress_bar=False
        )
        return [np.asarray(vectors.float().cpu().numpy()[1:-1], dtype=np.float32) for vectors in found]
