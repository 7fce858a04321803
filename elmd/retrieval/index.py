"""The demonstration index: vectors and items on disk, exact inner-product search in faiss.

On disk: `vectors.safetensors` (n, dimension) float32, `items.jsonl`, `manifest.json`. The faiss index itself is
rebuilt at load, never deserialised.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from elmd.errors import BadData, UsageError
from elmd.files import read_jsonl, sha256, to_json, write_jsonl, write_text
from elmd.text import scrub
from elmd.types import Demonstration, Dialogue, context_text

HALF_ERROR = 6e-4
"""Bound on what rounding a unit vector to half precision changes in its product with another: 2**-11, and a little."""


class Encoder(Protocol):
    """What the index needs of an embedder."""

    name: str

    @property
    def revision(self) -> str: ...  # noqa: D102

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...  # noqa: D102


class Manifest(BaseModel):
    """What an index was made of; checked whenever it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str
    revision: str
    dimension: int
    count: int
    vectors_sha256: str
    items_sha256: str


def demonstrations_of(dialogues: Iterable[Dialogue]) -> list[Demonstration]:
    """Cut dialogues into demonstrations: every reply whose emotion is known, with the turns before it.

    The emotion is what emotion-aware ranking needs, so replies without one are left out. Retrieved words are data:
    addresses, phone numbers and chat tokens are taken out of them.
    """
    return [
        Demonstration(
            id=item.id,
            context=tuple(replace(turn, text=scrub(turn.text)) for turn in item.turns),
            reply=scrub(item.reference),
            emotion=item.reference_emotion,
            language=item.language or "zh",
            source=item.source or "unknown",
            license=item.license or "unknown",
        )
        for dialogue in dialogues
        for item in dialogue.replies()
        if item.reference and item.reference_emotion and scrub(item.reference) and scrub(item.last.text)
    ]


class DemonstrationIndex:
    """Demonstrations with the unit vectors of their contexts.

    Args:
        items: The demonstrations.
        vectors: (n, dimension) float32, unit rows in the same order.
        encoder: The embedder that made the vectors and encodes queries.
    """

    def __init__(self, items: Sequence[Demonstration], vectors: np.ndarray, encoder: Encoder) -> None:
        import faiss

        if len(items) != len(vectors):
            raise ValueError(f"{len(items)} items but {len(vectors)} vectors")
        self.items, self.vectors, self.encoder = tuple(items), vectors, encoder
        self._row_of = {item.id: row for row, item in enumerate(items)}
        self._rough = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._rough.train(vectors)
        self._rough.add(np.ascontiguousarray(vectors, dtype=np.float32))

    @classmethod
    def build(cls, items: Sequence[Demonstration], encoder: Encoder) -> "DemonstrationIndex":
        """Encode the contexts of `items`; raises UsageError when there are none."""
        if not items:
            raise UsageError("no demonstrations: the dialogues hold no reply with a known emotion")
        return cls(items, encoder.encode([context_text(item.context) for item in items]), encoder)

    def save(self, folder: Path) -> None:
        """Write the index; the manifest comes last, so that a broken write is noticed."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self.vectors}, folder / "vectors.safetensors")
        write_jsonl(folder / "items.jsonl", self.items)
        manifest = Manifest(
            encoder=self.encoder.name,
            revision=self.encoder.revision,
            dimension=self.vectors.shape[1],
            count=len(self.items),
            vectors_sha256=sha256(folder / "vectors.safetensors"),
            items_sha256=sha256(folder / "items.jsonl"),
        )
        write_text(folder / "manifest.json", json.dumps(manifest.model_dump(), indent=1))

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> "DemonstrationIndex":
        """Read an index that `encoder` made; raises UsageError when it is damaged or another encoder's."""
        from safetensors.numpy import load_file

        again = "build it again: elmd index build"
        try:
            manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise UsageError(f"{folder} is not a demonstration index (no good manifest.json); {again}") from error
        if (manifest.encoder, manifest.revision) != (encoder.name, encoder.revision):
            raise UsageError(
                f"{folder} was built with {manifest.encoder} {manifest.revision}, not {encoder.name} {encoder.revision}; {again}"
            )
        for file, digest in (
            ("vectors.safetensors", manifest.vectors_sha256),
            ("items.jsonl", manifest.items_sha256),
        ):
            if not (folder / file).is_file() or sha256(folder / file) != digest:
                raise UsageError(f"{folder / file} is missing or was changed; {again}")
        items = [_item(folder, number, row) for number, row in read_jsonl(folder / "items.jsonl")]
        return cls(items, load_file(folder / "vectors.safetensors")["vectors"], encoder)

    def search(self, dialogue: Dialogue, k: int) -> list[Demonstration]:
        """Return up to k demonstrations in the dialogue's language with the most similar contexts, best first.

        Never one of the same dialogue (by origin), nor one whose context reads the same.
        """
        return self.search_vector(self.encode(dialogue), dialogue, k)

    def encode(self, dialogue: Dialogue) -> np.ndarray:
        """Return the unit vector of the dialogue's context, (dimension,) float32."""
        return np.asarray(self.encoder.encode([context_text(dialogue.turns)])[0])

    def search_vector(self, vector: np.ndarray, dialogue: Dialogue, k: int) -> list[Demonstration]:
        """Like `search`, for a context that is already encoded."""
        own = context_text(dialogue.turns)
        wanted = min(4 * k, len(self.items))
        while True:
            similarities, rows = self.nearest(vector, wanted)
            pairs = ((self.items[row], float(s)) for row, s in zip(rows, similarities, strict=True))
            others = (
                replace(item, similarity=similarity)
                for item, similarity in pairs
                if item.language == dialogue.language
                and item.origin != dialogue.origin
                and context_text(item.context) != own
            )
            found = list(islice(others, k))
            if len(found) == k or wanted == len(self.items):
                return found
            wanted = min(4 * wanted, len(self.items))

    def nearest(self, vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact inner products and the rows of the k nearest contexts, (k,) each, best first.

        Half-precision copies are scanned, which halves the memory that a query reads, and what they bring is scored
        again in full. A vector left out scores at most HALF_ERROR above its copy, so the scan is widened until the
        k-th full score is beyond that: the result is that of a full scan.
        """
        query, count = vector.astype(np.float32), len(self.items)
        fetch = min(2 * k, count)
        while True:
            rough, found = self._rough.search(query[None], fetch)
            exact = self.vectors[found[0]] @ query
            best = np.argsort(-exact, kind="stable")[:k]
            if fetch == count or exact[best[-1]] >= rough[0, -1] + HALF_ERROR:
                return exact[best], found[0][best]
            fetch = min(4 * fetch, count)

    def vectors_of(self, items: Sequence[Demonstration]) -> np.ndarray:
        """Return the context vectors of items of this index, (len(items), dimension)."""
        return np.asarray(self.vectors[[self._row_of[item.id] for item in items]])


@cache
def _adapter() -> TypeAdapter[Demonstration]:
    return TypeAdapter(Demonstration)


def _item(folder: Path, number: int, row: dict[str, Any]) -> Demonstration:
    try:
        return _adapter().validate_python(row)
    except ValidationError as error:
        raise BadData(folder / "items.jsonl", number, str(error.errors()[0]["msg"])) from error


def as_json(item: Demonstration) -> dict[str, Any]:
    """Return the public JSON of a found demonstration."""
    return {
        "context": [to_json(turn) for turn in item.context],
        "reply": item.reply,
        "emotion": item.emotion,
        "similarity": round(item.similarity, 4),
        "source": item.source,
    }
