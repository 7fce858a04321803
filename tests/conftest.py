"""Shared fixtures: a complete agent without real weights, a fresh ELMD_HOME, the command line, the real data sets."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPO = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("ELMD_TEST_DATA", REPO.parent / "shared" / "data"))
HIDDEN, DIMENSION = 32, 64
"""Widths of the tiny sentence encoder and of the hashing embedder."""


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that an error is; fails where stderr holds more, less, or a traceback."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("elmd: "), self.err
        return lines[0]


@pytest.fixture(scope="session", autouse=True)
def _no_stray_settings():
    """Take ELMD_* keys of the caller's shell out of the way: each would override a recipe."""
    with pytest.MonkeyPatch.context() as patch:
        for key in [k for k in os.environ if k.startswith("ELMD_") and k not in ("ELMD_HOME", "ELMD_OFFLINE")]:
            patch.delenv(key)
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty ELMD_HOME."""
    folder = tmp_path / "elmd-home"
    folder.mkdir()
    monkeypatch.setenv("ELMD_HOME", str(folder))
    return folder


@pytest.fixture
def cli(monkeypatch, capfd) -> Callable[..., Ran]:
    """Run `elmd …` in this process, through the same `main` that the console script calls."""
    from elmd.cli import main

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["elmd", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Ran(code, *capfd.readouterr())

    return run


def elmd(*arguments: object, cwd: Path | None = None, **environment: str) -> Ran:
    """Run `elmd …` in a process of its own."""
    command = [sys.executable, "-m", "elmd", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=240)
    return Ran(done.returncode, done.stdout, done.stderr)


def python(code: str, **environment: str) -> str:
    """Run Python code in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no data sets at {REAL_DATA}; ELMD_TEST_DATA names the folder that holds them")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """A BERT of 2 random layers with a tokenizer of single characters."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    tokenizer = _tiny_tokenizer()
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_reader(tiny_encoder) -> Path:
    """Weights of the text reader: LoRA on the tiny encoder, and a head."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoModel

    folder = tiny_encoder.parent / "emotion-text"
    torch.manual_seed(8)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"], init_lora_weights=False)
    get_peft_model(AutoModel.from_pretrained(tiny_encoder), lora).save_pretrained(folder)
    save_file({"weight": torch.randn(7, HIDDEN), "bias": torch.zeros(7)}, folder / "head.safetensors")
    (folder / "reader.json").write_text(json.dumps({"encoder": str(tiny_encoder), "epoch": 1}))
    return folder


@pytest.fixture(scope="session")
def tiny_predictor(tiny_encoder) -> Path:
    """Weights of the reply-emotion predictor, for the hashing embedder."""
    import numpy as np
    from safetensors.numpy import save_file

    from elmd.prediction.predictor import COURSE

    folder = tiny_encoder.parent / "reply-emotion"
    folder.mkdir()
    weight = np.random.default_rng(9).normal(size=(7, DIMENSION + COURSE * 8)).astype(np.float32)
    save_file({"weight": weight, "bias": np.zeros(7, np.float32)}, folder / "predictor.safetensors")
    (folder / "predictor.json").write_text(json.dumps({"encoder": "hashing", "revision": f"1/{DIMENSION}"}))
    return folder


@pytest.fixture(scope="session")
def tiny_agent(tiny_reader, tiny_predictor) -> Path:
    """A recipe of an agent that is complete and has no real weights; its demonstrations are the shipped ones."""
    from elmd.data import shipped_demonstrations
    from elmd.embedders.hashing import Config, Embedder
    from elmd.retrieval.index import DemonstrationIndex, demonstrations_of

    index = tiny_reader.parent / "index"
    items = demonstrations_of(shipped_demonstrations())
    DemonstrationIndex.build(items, Embedder(Config(dimension=DIMENSION))).save(index)
    recipe = tiny_reader.parent / "tiny.toml"
    recipe.write_text(
        f"""[perception]
weights = "{tiny_reader}"

[retrieval]
embedder = "hashing"
index = "{index}"
demonstrations = 3

[retrieval.encoder]
dimension = {DIMENSION}

[prediction]
weights = "{tiny_predictor}"

[generation]
backend = "echo"
"""
    )
    return recipe


def _tiny_tokenizer():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    characters = sorted(
        set("abcdefghijklmnopqrstuvwxyz:?!.,'我你他她很今天不是的了难过开心高兴害怕生气惊讶恶心平静好想")
    )
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(special + characters)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
