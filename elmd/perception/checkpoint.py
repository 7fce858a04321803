"""Checkpoints of the text reader's training: safetensors only, the best epoch kept as the weights to use."""

import json
import warnings
from pathlib import Path
from typing import Any

from elmd.files import write_text
from elmd.perception.text import EmotionNetwork


class Checkpoint:
    """Saves and restores adapter, head, optimizer and schedule of a run in `out`."""

    def __init__(self, out: Path, network: EmotionNetwork, optimizer: Any, schedule: Any) -> None:
        self.out, self.network, self.optimizer, self.schedule = out, network, optimizer, schedule
        self.state = out / "resume.safetensors"

    def save(self, history: list[dict[str, float]], best: bool) -> None:
        """Write the state after an epoch, and the weights too when the epoch is the best so far."""
        from safetensors.torch import save_file

        if best:
            self.network.encoder.peft_config["default"].base_model_name_or_path = self.network.name
            self.network.encoder.save_pretrained(str(self.out), save_embedding_layers=False)
            save_file(self.network.head.state_dict(), self.out / "head.safetensors")
            facts = {"encoder": self.network.name, "epoch": len(history)}
            write_text(self.out / "reader.json", json.dumps(facts) + "\n")
        parameters = self._parameters()
        tensors = {f"value.{i}": p.detach().contiguous() for i, p in enumerate(parameters)}
        for i, parameter in enumerate(parameters):
            slots = self.optimizer.state[parameter]
            tensors |= {f"{name}.{i}": value.detach().contiguous() for name, value in slots.items()}
        save_file(tensors, self.state, metadata={"history": json.dumps(history)})

    def resume(self) -> list[dict[str, float]]:
        """Restore the last whole epoch, if there is one; return the history so far."""
        from safetensors import safe_open

        if not self.state.is_file():
            return []
        with safe_open(self.state, "pt") as file:
            history: list[dict[str, float]] = json.loads(file.metadata()["history"])
            for i, parameter in enumerate(self._parameters()):
                parameter.data.copy_(file.get_tensor(f"value.{i}"))
                self.optimizer.state[parameter] = {
                    name: file.get_tensor(f"{name}.{i}") for name in ("step", "exp_avg", "exp_avg_sq")
                }
            steps = int(file.get_tensor("step.0").item())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch wants a step of the optimizer first; those were taken
            for _ in range(steps):
                self.schedule.step()
        return history

    def load_best(self) -> None:
        """Put the best epoch's weights back into the network and drop the resume state."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        set_peft_model_state_dict(self.network.encoder, load_file(self.out / "adapter_model.safetensors"))
        self.network.load_head(load_file(self.out / "head.safetensors"))
        self.state.unlink(missing_ok=True)

    def _parameters(self) -> list[Any]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
