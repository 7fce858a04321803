"""A LoRA adapter, checked against the model before it is merged into it."""

import json
import re
from pathlib import Path
from typing import Any

from elmd.errors import AssetError

WEIGHTS = "adapter_model.safetensors"
_LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.default)?\.weight")


def merge_adapter(model: Any, folder: Path, known_as: tuple[str, ...]) -> Any:
    """Return `model` with the PEFT LoRA adapter in `folder` merged into its weights, in their own dtype.

    Merging costs nothing at every later token; a run-time adapter would.

    Args:
        model: A transformers causal language model; it is changed.
        folder: Holds adapter_config.json and adapter_model.safetensors; a pickled adapter_model.bin is never read.
        known_as: Names of the model, one of which must be the base model that the adapter names, if it names one.

    Raises AssetError when the adapter is missing, damaged, no LoRA, or made for another model.
    """
    card = _read_card(folder)
    _check_base(card, folder, known_as)
    _check_shapes(model, folder)
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False, torch_device=str(model.device))
        return adapted.merge_and_unload(safe_merge=True)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise AssetError(f"adapter {folder}: {first_line(error)}") from error


def short_name(name: str) -> str:
    """Return the last word of a model's path or hub id, lower case; a snapshot in a hub cache is named by its id."""
    parts = [part for part in re.split(r"[/\\]", name) if part]
    cached = next((part for part in parts if part.startswith("models--")), None)
    word = cached.split("--")[-1] if cached else (parts[-1] if parts else "")
    return word.lower()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_card(folder: Path) -> dict[str, Any]:
    if not (folder / "adapter_config.json").is_file():
        raise AssetError(f"adapter {folder}: no adapter_config.json there; name a folder that PEFT saved")
    if not (folder / WEIGHTS).is_file():
        raise AssetError(f"adapter {folder}: no {WEIGHTS} there (pickles are not read); save it as safetensors")
    try:
        card: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = card.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise AssetError(f"adapter {folder}: adapter_config.json is damaged") from error
    if kind != "LORA":
        raise AssetError(f"adapter {folder}: it is {kind}, and only LORA can be merged")
    return card


def _check_base(card: dict[str, Any], folder: Path, known_as: tuple[str, ...]) -> None:
    base = card.get("base_model_name_or_path")
    if base and short_name(base) not in {short_name(name) for name in known_as}:
        raise AssetError(
            f"adapter {folder} was trained on {base!r}, not on {known_as[0]!r}: choose that model, or, if these are "
            "the same weights under another name, write that name into its adapter_config.json"
        )


def _check_shapes(model: Any, folder: Path) -> None:
    # PEFT skips tensors whose module it does not find, so an adapter for another model could do nothing unnoticed.
    found = False
    modules = dict(model.named_modules())
    for key, shape in _shapes(folder).items():
        if not (match := _LORA.fullmatch(key)):
            continue
        found, (path, side) = True, match.groups()
        if path not in modules:
            raise AssetError(f"adapter {folder} does not fit the model, which has no {path}")
        want = getattr(modules[path], "in_features" if side == "A" else "out_features", None)
        have = shape[1] if side == "A" else shape[0]
        if want is not None and want != have:
            raise AssetError(f"adapter {folder} does not fit the model: {path} is {want} wide, not {have}")
    if not found:
        raise AssetError(f"adapter {folder}: {WEIGHTS} holds no LoRA weights")


def _shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise AssetError(f"adapter {folder}: {WEIGHTS} is damaged ({first_line(error)})") from error
