"""All that changes while training, between two steps: taken out of torch as tensors and plain values, and put back.

Not in it: the gradients, which each step makes anew, and what a task's own code keeps in Python objects.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MODEL, OPTIMIZER, TORCH_RNG, CUDA_RNG = "model", "optimizer", "rng.torch", "rng.cuda"


@dataclass(frozen=True)
class Snapshot:
    """Training after `len(losses)` steps. `tensors` are copies on the CPU, `values` are what JSON can hold."""

    losses: tuple[float, ...]
    work_s: float
    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Moving:
    """The parts of a training that change with every step, and the facts that must be the same to go on."""

    model: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    device: str
    num_examples: int

    def take(self, losses: list[float], work_s: float) -> Snapshot:
        """A copy of everything as it is now. On a CPU, `put` and the steps after it give the same bytes."""
        tensors = {name: copied(tensor) for name, tensor in self._tensors()} | {TORCH_RNG: torch.get_rng_state()}
        if self._on_gpu:
            tensors[CUDA_RNG] = torch.cuda.get_rng_state(self.device)
        values = {
            "facts": self._facts(),
            "scaler": self.scaler.state_dict(),
            "random": random.getstate(),
            "numpy": numpy_state(),
        }
        return Snapshot(tuple(losses), work_s, tensors, values)

    def fits(self, snapshot: Snapshot) -> bool:
        """Can this training go on from there? Not with another model, another number of records, or another device."""
        saved = {name: tensor for name, tensor in snapshot.tensors.items() if name.startswith(f"{MODEL}.")}
        ours = dict(self._model_tensors())
        return (
            snapshot.values["facts"] == self._facts()
            and saved.keys() == ours.keys()
            and all(saved[name].shape == ours[name].shape and saved[name].dtype == ours[name].dtype for name in ours)
        )

    def put(self, snapshot: Snapshot) -> None:
        """Make everything as it was. The snapshot must fit."""
        with torch.no_grad():
            for name, tensor in self._model_tensors():
                tensor.copy_(snapshot.tensors[name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in snapshot.tensors.items():
            if name.startswith(f"{OPTIMIZER}."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.scaler.load_state_dict(snapshot.values["scaler"])
        torch.set_rng_state(snapshot.tensors[TORCH_RNG])
        if self._on_gpu:
            torch.cuda.set_rng_state(snapshot.tensors[CUDA_RNG], self.device)
        version, internal, gauss_next = snapshot.values["random"]
        random.setstate((version, tuple(internal), gauss_next))
        np.random.set_state(snapshot.values["numpy"])

    @property
    def _on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def _facts(self) -> dict[str, Any]:
        return {"gpu": self._on_gpu, "scaled": self.scaler.is_enabled(), "num_examples": self.num_examples}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._model_tensors()
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:  # momentum of a parameter that had no gradient yet
                    yield f"{OPTIMIZER}.{index}.{key}", value

    def _model_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and all buffers, also those that do not travel; tied ones once."""
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            yield f"{MODEL}.{name}", tensor


def seed_all(seed: int) -> None:
    """Seed each generator that a task's code may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares no memory, as safetensors needs it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def numpy_state() -> dict[str, Any]:
    """The state of numpy's global generator, as JSON can hold it."""
    state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    inner = {"key": state["state"]["key"].tolist(), "pos": state["state"]["pos"]}
    return {**state, "state": inner}
