"""Model files: pinned, verified, fetched once, found offline; and the conversion of the formats they come in."""

import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import elmd

from elmd import assets, convert
from elmd.assets import Asset, Beside, Part
from elmd.errors import AssetError, UnknownName
from elmd.files import sha256

PIECES = (b"first half, ", b"second half, ", b"third")


def wheel(folder: Path, package: str, data: bytes) -> Path:
    """A wheel that pip accepts and that carries `data`."""
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/data.bin", data)
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('a package of data was run')")
        info = f"{package}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


class Shop:
    """Stands for the package index: holds wheels and counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.wheels = [wheel(folder, f"toy_part{n}", data) for n, data in enumerate(PIECES)]
        self.broken: set[str] = set()

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def download(self, part: Part, target: Path, advance) -> Path:
        with self.log.open("a") as log:
            log.write(f"{part.package}\n")
        if part.package in self.broken:
            raise KeyboardInterrupt
        time.sleep(0.05)
        return Path(shutil.copy(self.folder / f"{part.package.replace('-', '_')}-1.0-py3-none-any.whl", target))

    def asset(self, **changed) -> Asset:
        parts = tuple(
            Part(package=f"toy-part{n}", version="1.0", sha256=sha256(path), member=f"toy_part{n}/data.bin")
            for n, path in enumerate(self.wheels)
        )
        row = {
            "summary": "a toy", "license": "MIT", "format": "toy", "sha256": hashlib.sha256(b"".join(PIECES)).hexdigest(),
            "bytes": 30, "hub": "toy/model", "default": False, "parts": parts,
        }  # fmt: skip
        return Asset(**row | changed)


def to_toy(source: Path, out: Path) -> None:
    (out / "model.safetensors").write_bytes(source.read_bytes())
    (out / "inner").mkdir()
    (out / "inner" / "config.json").write_text("{}")


@pytest.fixture
def shop(tmp_path, home, monkeypatch):
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = Shop(folder)
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": shop.asset()})
    monkeypatch.setattr(assets, "_pip_download", shop.download)
    monkeypatch.setitem(convert.CONVERTERS, "toy", to_toy)
    return shop


def test_an_asset_is_fetched_joined_converted_and_then_found(shop, home, monkeypatch):
    assert not assets.present("toy")
    folder = assets.get("toy")
    assert folder == home / "assets" / "toy"
    assert (folder / "model.safetensors").read_bytes() == b"".join(PIECES)
    assert assets.present("toy")
    assert shop.asked == ["toy-part0", "toy-part1", "toy-part2"]
    assert not (home / "downloads" / "toy").exists()
    monkeypatch.setenv("ELMD_OFFLINE", "1")
    assert assets.get("toy") == assets.locate("toy") == folder
    assert len(shop.asked) == 3
    assert assets.fingerprint(folder) == hashlib.sha256(b"".join(PIECES)).hexdigest()
    assets.verify("toy")


def test_pip_itself_fetches_without_running_anything(shop, monkeypatch):
    asset = shop.asset()
    monkeypatch.undo()
    monkeypatch.setenv("ELMD_HOME", str(shop.folder / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop.folder))
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": asset})
    monkeypatch.setitem(convert.CONVERTERS, "toy", to_toy)
    assert (assets.get("toy") / "model.safetensors").read_bytes() == b"".join(PIECES)
    assets.remove("toy")
    shop.wheels[1].unlink()
    with pytest.raises(AssetError, match=r"pip could not download toy-part1==1\.0: .*No matching distribution"):
        assets.get("toy", "packages")


def test_a_part_that_is_not_the_pinned_one_is_named_and_deleted(shop, home, monkeypatch):
    good = shop.wheels[1].read_bytes()
    asset = shop.asset()
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": asset})
    wheel(shop.folder, "toy_part1", b"something else")
    with pytest.raises(AssetError, match=r"toy_part1-1\.0-py3-none-any\.whl is not the pinned file"):
        assets.get("toy", "packages")
    assert not assets.present("toy")
    assert [p.name[:9] for p in (home / "downloads" / "toy").glob("*.whl")] == ["toy_part0"]
    shop.wheels[1].write_bytes(good)
    assets.get("toy", "packages")
    assert shop.asked == ["toy-part0", "toy-part1", "toy-part1", "toy-part2"]


def test_a_whole_that_is_not_the_pinned_one_is_refused(shop, monkeypatch):
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": shop.asset(sha256="0" * 64)})
    with pytest.raises(AssetError, match="joined file.*not the pinned one"):
        assets.get("toy", "packages")
    assert not assets.present("toy")


def test_parts_that_arrived_before_a_stop_are_not_fetched_again(shop):
    shop.broken = {"toy-part2"}
    with pytest.raises(KeyboardInterrupt):
        assets.get("toy")
    shop.broken = set()
    assets.get("toy")
    assert shop.asked == ["toy-part0", "toy-part1", "toy-part2", "toy-part2"]


def test_a_part_cut_by_a_kill_is_noticed(shop, home):
    downloads = home / "downloads" / "toy"
    downloads.mkdir(parents=True)
    (downloads / shop.wheels[0].name).write_bytes(shop.wheels[0].read_bytes()[:50])
    with pytest.raises(AssetError, match="toy_part0.*deleted, try again"):
        assets.get("toy", "packages")
    assets.get("toy", "packages")


def test_a_stop_while_converting_leaves_no_asset(shop, monkeypatch):
    monkeypatch.setitem(convert.CONVERTERS, "toy", lambda source, out: (out / "half").touch() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        assets.get("toy")
    assert not assets.present("toy")
    monkeypatch.setitem(convert.CONVERTERS, "toy", to_toy)
    assert not (assets.get("toy") / "half").exists()
    assert len(shop.asked) == 3


def test_two_threads_fetch_once(shop):
    threads = [threading.Thread(target=assets.get, args=["toy"]) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(shop.asked) == 3
    assert assets.present("toy")


def test_two_processes_fetch_once(shop):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=assets.get, args=["toy"]) for _ in range(2)]
    [process.start() for process in processes]
    [process.join(60) for process in processes]
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(shop.asked) == 3


NOTE = b"raise SystemExit('a package of data was run')"
"""What `wheel` writes as the package's `__init__.py`."""


def with_a_note(shop: Shop, monkeypatch, pin: str) -> None:
    beside = (Beside(package="toy-part1", sha256=pin, member="toy_part1/__init__.py"),)
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": shop.asset(beside=beside)})


def test_small_files_lie_beside_the_model_and_are_verified_with_it(shop, monkeypatch):
    with_a_note(shop, monkeypatch, hashlib.sha256(NOTE).hexdigest())
    folder = assets.get("toy")
    assert (folder / "__init__.py").read_bytes() == NOTE
    (folder / "__init__.py").write_bytes(b"another")
    with pytest.raises(AssetError, match=r"__init__\.py is not as it was fetched"):
        assets.verify("toy")


def test_a_small_file_that_is_not_the_pinned_one_is_refused(shop, monkeypatch):
    with_a_note(shop, monkeypatch, "0" * 64)
    with pytest.raises(AssetError, match=r"toy_part1/__init__\.py of toy-part1 is not the pinned file"):
        assets.get("toy", "packages")
    assert not assets.present("toy")


def test_what_must_be_here_is_found_or_named_with_its_command_and_never_fetched(shop, tmp_path):
    with pytest.raises(AssetError, match=r"^toy \(0 MB\) is not here; run: elmd assets get toy$"):
        assets.here("toy")
    for name in ("toi", "toy/model"):
        with pytest.raises(UnknownName, match="neither a folder nor an asset"):
            assets.here(name)
    assert shop.asked == []
    folder = assets.get("toy")
    assert assets.here("toy") == folder
    assert assets.here(str(tmp_path)) == tmp_path
    change(folder / "model.safetensors")
    with pytest.raises(AssetError, match="run: elmd assets get toy --again"):
        assets.here("toy")


def test_offline_says_what_to_do_and_asks_no_one(shop, monkeypatch):
    monkeypatch.setenv("ELMD_OFFLINE", "1")
    with pytest.raises(AssetError, match="ELMD_OFFLINE is set; unset it and run: elmd assets get toy"):
        assets.get("toy")
    assert shop.asked == []


def change(path: Path, keep_time: bool = False) -> None:
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"half", b"flah"))
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGE = {
    "changed": (change, "not as it was fetched"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:9]), "not as it was fetched"),
    "gone": (Path.unlink, "missing"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("look", [assets.get, assets.verify, assets.locate])
def test_a_damaged_file_is_named(shop, look, damage, reason):
    damage(assets.get("toy") / "model.safetensors")
    with pytest.raises(AssetError, match=rf"toy/model\.safetensors .*{reason}.*; run: elmd assets get toy --again"):
        look("toy")


def test_verify_sees_a_change_that_kept_size_and_time(shop):
    change(assets.get("toy") / "model.safetensors", keep_time=True)
    with pytest.raises(AssetError, match=r"model\.safetensors"):
        assets.verify("toy")


def test_a_copied_home_is_still_good(shop, home, tmp_path, monkeypatch):
    assets.get("toy")
    shutil.copytree(home, tmp_path / "moved", copy_function=shutil.copyfile)  # all times are new
    monkeypatch.setenv("ELMD_HOME", str(tmp_path / "moved"))
    assert assets.get("toy").is_relative_to(tmp_path / "moved")


def test_verify_of_what_is_not_here_and_of_nothing(shop):
    with pytest.raises(AssetError, match="has not been fetched; run: elmd assets get toy"):
        assets.verify("toy")
    with pytest.raises(UnknownName, match="did you mean 'toy'"):
        assets.get("toi")


def test_locate_takes_folders_assets_and_hub_ids_and_nothing_else(shop, tmp_path, monkeypatch):
    assert assets.locate(str(tmp_path)) == tmp_path
    monkeypatch.setattr(assets, "_hub_snapshot", lambda name: Path("snapshot") / name)
    assert assets.locate("Qwen/Qwen3-4B") == Path("snapshot/Qwen/Qwen3-4B")
    for name in ("toyy", "a/b/c", "../x/y"):
        with pytest.raises(UnknownName, match="neither a folder, nor an asset, nor a hub id"):
            assets.locate(name)


def test_when_the_packages_fail_the_hub_is_tried(shop, tmp_path, monkeypatch):
    snapshot = tmp_path / "abc123"
    (snapshot / "1_Pooling").mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"from the hub")
    (snapshot / "pytorch_model.bin").write_bytes(b"a pickle")
    (snapshot / "1_Pooling" / "config.json").write_text("{}")
    monkeypatch.setattr(assets, "_hub_snapshot", lambda name: snapshot)
    monkeypatch.setattr(assets, "_pip_download", lambda *_: (_ for _ in ()).throw(AssetError("pip is ill")))
    folder = assets.get("toy")
    assert (folder / "model.safetensors").read_bytes() == b"from the hub"
    assert (folder / "1_Pooling" / "config.json").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    assert json.loads((folder / "asset.json").read_text())["source"] == "hub"
    assets.verify("toy")


def test_a_ctranslate2_model_of_the_hub_comes_with_its_weights(shop, tmp_path, monkeypatch):
    snapshot, asked = tmp_path / "abc123", []
    snapshot.mkdir()
    for file in ("model.bin", "config.json", "vocabulary.txt", "pytorch_model.bin"):
        (snapshot / file).write_bytes(b"x")
    monkeypatch.setattr(assets, "catalogue", lambda: {"toy": shop.asset(format="ct2")})
    monkeypatch.setattr(assets, "_hub_snapshot", lambda *patterns: asked.append(patterns) or snapshot)
    folder = assets.get("toy", "hub")
    assert asked == [("toy/model", "model.bin")]
    assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json", "vocabulary.txt", "asset.json"}


def test_every_source_that_failed_is_told(shop, monkeypatch):
    monkeypatch.setattr(assets, "_pip_download", lambda *_: (_ for _ in ()).throw(AssetError("pip is ill")))
    monkeypatch.setattr(assets, "_hub_snapshot", lambda _: (_ for _ in ()).throw(AssetError("no hub")))
    with pytest.raises(AssetError, match=r"cannot get toy \(packages: pip is ill; hub: no hub\)"):
        assets.get("toy")


def test_the_catalogue_is_pinned_everywhere():
    for name, asset in assets.catalogue().items():
        assert asset.format in convert.CONVERTERS, name
        assert asset.license in ("Apache-2.0", "MIT"), name
        for pin in (asset.sha256, *(row.sha256 for row in (*asset.parts, *asset.beside))):
            assert len(pin) == 64
            assert int(pin, 16)
        assert len({part.sha256 for part in asset.parts}) == len(asset.parts) > 0
        assert {row.package for row in asset.beside} <= {part.package for part in asset.parts}
    assert {name for name, asset in assets.catalogue().items() if asset.default} == {
        "qwen2.5-0.5b",
        "multilingual-e5-small",
    }


# ---- a hub on loopback ----


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a snapshot needs, for the one model `toy/model`."""

    files = {"model.safetensors": b"weights", "config.json": b"{}", "evil.bin": b"a pickle"}
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        name = self.path.split("?")[0].removeprefix("/toy/model/resolve/").partition("/")[2]
        if self.path == "/":
            self._send(b"hub")
        elif self.path.startswith("/api/models/toy/model/tree"):
            rows = [{"type": "file", "path": f, "size": len(d), "oid": "0"} for f, d in self.files.items()]
            self._send(json.dumps(rows).encode())
        elif self.path.startswith("/api/models/toy/model"):
            files = [{"rfilename": file} for file in self.files]
            self._send(json.dumps({"id": "toy/model", "sha": self.commit, "siblings": files}).encode())
        elif name in self.files:
            self._send(self.files[name])
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def port(listening: bool):
    """A port that is closed, or one that takes connections and never says a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen(8)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def hub_settings(endpoint: str, tmp_path: Path) -> dict[str, str]:
    folders = {"ELMD_HOME": str(tmp_path / "elmd"), "HF_HOME": str(tmp_path / "hf")}
    return {"HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0", **folders}


@pytest.mark.parametrize("listening", [False, True], ids=["closed port", "mute server"])
def test_an_absent_hub_costs_seconds_and_one_line(tmp_path, listening):
    with port(listening) as endpoint:
        started = time.perf_counter()
        settings = hub_settings(endpoint, tmp_path)
        ran = elmd("assets", "get", "multilingual-e5-small", "--source", "hub", **settings)
        spent = time.perf_counter() - started
    assert ran.code == 1
    assert f"no model hub answers at {endpoint}" in ran.complaint
    assert "intfloat/multilingual-e5-small" in ran.complaint
    assert spent < 12  # at most 4 s of waiting, the rest is Python starting on a busy machine
    assert assets.HUB_SECONDS <= 5


def locate_apart(name: str, tmp_path: Path, **settings: str) -> subprocess.CompletedProcess:
    code = f"from elmd.assets import locate; print(locate({name!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | settings)


def test_a_hub_id_is_fetched_and_then_found_without_the_hub(tmp_path):
    with hub() as endpoint:
        settings = hub_settings(endpoint, tmp_path)
        first = locate_apart("toy/model", tmp_path, **settings)
        unknown = locate_apart("toy/none", tmp_path, **settings)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"model.safetensors": b"weights", "config.json": b"{}"}
    assert "AssetError: the hub did not give toy/none" in unknown.stderr
    second = locate_apart("toy/model", tmp_path, **settings, ELMD_OFFLINE="1")
    assert Path(second.stdout.strip()) == folder, second.stderr


def test_offline_goes_for_hub_ids_too(tmp_path):
    with hub() as endpoint:
        ran = locate_apart("toy/model", tmp_path, **hub_settings(endpoint, tmp_path), ELMD_OFFLINE="1")
    assert "AssetError: toy/model is not here and the network is forbidden" in ran.stderr


# ---- conversion ----

LAYERS, WIDTH, INNER, HEADS, KEYS = 2, 64, 96, 4, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pieces() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*bytes_to_unicode().values(), "he", "ll", "hell", "hello", *SPECIAL]


def write_gguf(
    path: Path, architecture: str = "qwen2", head: bool = True, extra: str | None = None
) -> dict[str, np.ndarray]:
    """Write a tiny Qwen2 in GGUF; return its float tensors by GGUF name."""
    import gguf

    rng, tensors = np.random.default_rng(0), {}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    words = pieces()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word in SPECIAL else 1 for word in words])
    writer.add_token_merges(["h e", "l l", "he ll", "hell o"])
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_pad_token_id(words.index("<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)
    keys = WIDTH * KEYS // HEADS
    layer = {
        "attn_norm.weight": (WIDTH,), "attn_q.weight": (WIDTH, WIDTH), "attn_q.bias": (WIDTH,),
        "attn_k.weight": (keys, WIDTH), "attn_k.bias": (keys,), "attn_v.weight": (keys, WIDTH), "attn_v.bias": (keys,),
        "attn_output.weight": (WIDTH, WIDTH), "ffn_norm.weight": (WIDTH,), "ffn_gate.weight": (INNER, WIDTH),
        "ffn_up.weight": (INNER, WIDTH), "ffn_down.weight": (WIDTH, INNER),
    }  # fmt: skip
    shapes = {"token_embd.weight": (len(words), WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {"output.weight": (len(words), WIDTH)} if head else {}
    shapes |= {f"blk.{n}.{name}": shape for n in range(LAYERS) for name, shape in layer.items()}
    shapes |= {extra: (WIDTH,)} if extra else {}
    for name, shape in shapes.items():
        tensors[name] = (rng.normal(size=shape) / 8).astype(np.float32)
        kind = {"token_embd.weight": "Q4_0", "blk.0.ffn_up.weight": "Q8_0"}.get(name)
        if kind and head:
            kind = getattr(gguf.GGMLQuantizationType, kind)
            writer.add_tensor(name, gguf.quants.quantize(tensors[name], kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def gguf_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    tensors = write_gguf(folder / "model.gguf")
    (folder / "out").mkdir()
    convert.qwen2_from_gguf(folder / "model.gguf", folder / "out")
    return folder / "out", tensors


def test_a_gguf_file_becomes_a_model_that_transformers_loads_whole(gguf_model):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder, tensors = gguf_model
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    stored = load_file(folder / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in stored
    assert len(stored) == 2 + 12 * LAYERS
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, len(pieces()))
    assert bool(torch.isfinite(logits).all())


def test_every_tensor_of_a_gguf_file_lands_in_its_place(gguf_model):
    from safetensors.torch import load_file

    folder, tensors = gguf_model
    stored = {name: value.float().numpy() for name, value in load_file(folder / "model.safetensors").items()}
    places = {
        "output.weight": "model.embed_tokens.weight",  # the finer of the two embeddings
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_k.bias": "model.layers.1.self_attn.k_proj.bias",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    }
    for theirs, ours in places.items():
        np.testing.assert_allclose(stored[ours], tensors[theirs], atol=6e-3, err_msg=ours)


def test_the_converted_configuration_and_tokenizer_say_what_the_file_says(gguf_model):
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder, _ = gguf_model
    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (LAYERS, WIDTH, INNER)
    assert (config.num_attention_heads, config.num_key_value_heads) == (HEADS, KEYS)
    assert (config.rms_norm_eps, config.max_position_embeddings) == (1e-6, 128)
    assert config.rope_parameters["rope_theta"] == 1e6
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {token: pieces().index(token) for token in SPECIAL}
    assert {tokenizer.convert_tokens_to_ids(t) for t in SPECIAL} == set(ids.values())
    assert {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} == set(ids.values())
    assert tokenizer.decode([*ids.values(), pieces().index("hello")], skip_special_tokens=True) == "hello"
    assert tokenizer("hello").input_ids == [pieces().index("hello")]
    assert tokenizer.decode(tokenizer("你好, hello!").input_ids) == "你好, hello!"
    chat = [{"role": "user", "content": "hello"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer(text).input_ids[0] == ids["<|im_start|>"]
    assert set(GenerationConfig.from_pretrained(folder).eos_token_id) == {ids["<|im_end|>"], ids["<|endoftext|>"]}


def test_a_gguf_file_without_a_head_keeps_its_embedding(tmp_path):
    from safetensors.torch import load_file

    tensors = write_gguf(tmp_path / "m.gguf", head=False)
    convert.qwen2_from_gguf(tmp_path / "m.gguf", tmp_path)
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].float().numpy()
    np.testing.assert_allclose(embedding, tensors["token_embd.weight"], atol=6e-3)


@pytest.mark.parametrize(("made", "reason"), [
    (partial(write_gguf, architecture="llama"), "'llama' model; only qwen2"),
    (partial(write_gguf, extra="blk.0.surprise.weight"), "unknown tensor 'blk.0.surprise.weight'"),
])  # fmt: skip
def test_another_gguf_file_is_refused(tmp_path, made, reason):
    made(tmp_path / "m.gguf")
    with pytest.raises(AssetError, match=reason):
        convert.qwen2_from_gguf(tmp_path / "m.gguf", tmp_path)


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(AssetError, match="not an e5-q4 file"):
        convert.e5_from_q4(tmp_path / "x", tmp_path / "out")


def test_a_whisper_model_is_taken_as_it_is_and_nothing_else(tmp_path):
    model = tmp_path / "joined"
    model.write_bytes(b"\x06\x00\x00\x00\x0c\x00WhisperSpec\x00" + bytes(64))
    (tmp_path / "out").mkdir()
    convert.whisper_of_ctranslate2(model, tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == model.read_bytes()
    for other in (b"", b"\x80\x04pickle" * 9, b"\x06\x00\x00\x00\x10\x00TransformerSpec\x00"):
        model.write_bytes(other)
        with pytest.raises(AssetError, match="joined is not a Whisper model in CTranslate2's format"):
            convert.whisper_of_ctranslate2(model, tmp_path / "out")


@pytest.mark.weights
def test_whisper_comes_whole_with_its_tokenizer_and_licence():
    folder = assets.get("whisper-base")
    names = {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}
    assert names < {path.name for path in folder.iterdir()}
    origin = json.loads((folder / "asset.json").read_text())
    asset = assets.catalogue()["whisper-base"]
    assert origin["source"] == "hub" or sha256(folder / "model.bin") == origin["origin_sha256"] == asset.sha256
    assert origin["source"] == "hub" or (folder / "LICENSE").read_text().startswith("MIT License")
    assets.verify("whisper-base")
