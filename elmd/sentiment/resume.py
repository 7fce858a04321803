"""The state of a training run after a whole epoch, from which a killed run goes on as if nothing had been."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from elmd.errors import UsageError
from elmd.sentiment.system import System


class Resume:
    """Keeps what a run needs to go on: learned values, memory of the model, optimizers, random state, history.

    Args:
        path: A safetensors file.
        system: Whose values are kept and filled.
        optimizers: By phase.
    """

    def __init__(self, path: Path, system: System, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self.path, self.system, self.optimizers = path, system, optimizers

    def save(self, history: list[dict[str, float]]) -> None:
        """Write the state, as a whole or not at all."""
        from safetensors.torch import save_file

        tensors = {f"system.{name}": value for name, value in self._values().items()}
        tensors |= {f"{name}.{key}": value for name, _, state in self._slots() for key, value in state.items()}
        tensors |= {"random.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        part = self.path.with_suffix(".part")
        save_file(
            {n: v.detach().cpu().contiguous() for n, v in tensors.items()}, part, {"history": json.dumps(history)}
        )
        os.replace(part, self.path)

    def load(self) -> list[dict[str, float]]:
        """Fill system, optimizers and random state from the file, if there is one; return the history so far.

        Raises UsageError if the file does not fit the model.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return []
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                history: list[dict[str, float]] = json.loads(file.metadata()["history"])
            self._fill(tensors)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{self.path} is damaged or of another model ({error}); delete it to start afresh"
            ) from error
        return history

    def drop(self) -> None:
        """Delete the file: the run is done."""
        self.path.unlink(missing_ok=True)

    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self._values().items():
            value.copy_(tensors[f"system.{name}"])
        for name, parameter, _ in self._slots():
            slots = {
                key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
            }
            optimizer = self.optimizers[name.split(".")[1]]
            if slots:
                optimizer.state[parameter] = {key: v.to(parameter.device) for key, v in slots.items()}
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def _values(self) -> dict[str, Tensor]:
        """What was learned, and the memory of the run."""
        memory = {n: v for n, v in self.system.state_dict().items() if n.startswith("model.bank.")}
        return self.system.learned() | memory

    def _slots(self) -> list[tuple[str, torch.nn.Parameter, dict[str, Tensor]]]:
        """Name, parameter and optimizer state of every parameter that learns."""
        return [
            (f"optimizer.{phase}.{i}", parameter, optimizer.state.get(parameter, {}))
            for phase, optimizer in self.optimizers.items()
            for i, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
        ]
