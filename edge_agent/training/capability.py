"""What this machine can train with, found out once at start: the device and the number format that suits it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

import torch

from fedward.doctor.facts import Gpus
from fedward.errors import ConfigError

AUTO = "auto"


class Precision(StrEnum):
    """The format of activations and gradients while training; weights stay float32 always."""

    FLOAT32 = "float32"
    BF16 = "bf16"  # float32's range: needs no loss scaling
    FP16 = "fp16"  # small gradients vanish in it: the loss is scaled


_DTYPE = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


@dataclass(frozen=True)
class Capability:
    """A device and how to compute on it. `memory_bytes` is the GPU's own; None on a CPU."""

    device: str
    precision: Precision
    name: str = "cpu"
    memory_bytes: int | None = None

    @property
    def device_type(self) -> str:
        """The device without its index: "cuda" for "cuda:1"."""
        return torch.device(self.device).type

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.precision is Precision.FLOAT32:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=_DTYPE[self.precision])

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Scales the loss for fp16; for the other formats it passes everything through."""
        return torch.amp.GradScaler(self.device_type, enabled=self.precision is Precision.FP16)


def measure(device: str = AUTO, precision: str = AUTO) -> Capability:
    """What this machine has: a GPU before the CPU, and the fastest format that the device computes natively.

    `device` ("cpu", "cuda", "cuda:1") and `precision` force the choice. Raises ConfigError, with every problem,
    for one that does not exist here.
    """
    problems = _device_problems(device) + _precision_problems(precision)
    if problems:
        raise ConfigError("; ".join(problems))
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = torch.device(device).type == "cuda"
    if precision == Precision.FP16 and not on_gpu:
        raise ConfigError("precision fp16 needs a GPU; on a CPU use float32 or bf16")
    chosen = choose_precision(on_gpu, on_gpu and _computes_bf16(device)) if precision == AUTO else Precision(precision)
    if not on_gpu:
        return Capability(device, chosen)
    gpu = torch.cuda.get_device_properties(device)
    return Capability(device, chosen, gpu.name, gpu.total_memory)


def see_gpus(driver: str | None, nodes: tuple[str, ...]) -> Gpus:
    """What torch sees of the GPUs of this machine; driver and device files are the caller's to look for.

    No memory of a GPU is taken: something may be training there.
    """
    found = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    names = tuple(torch.cuda.get_device_name(index) for index in found)
    built = torch.cuda.get_arch_list()
    too_old = tuple(names[index] for index in found if not runs_on(torch.cuda.get_device_capability(index), built))
    return Gpus(driver, nodes, torch.__version__, torch.version.cuda, names, too_old)


def runs_on(capability: tuple[int, int], built: Iterable[str]) -> bool:
    """Whether code that was built as "sm_80", "sm_90a" or "compute_90" runs on a GPU of this compute capability.

    Binary code runs on the later GPUs of its generation, `compute_` code is translated for all later ones.
    """
    major, minor = capability
    for target in built:
        kind, _, digits = target.partition("_")
        generation, step = divmod(int(digits.rstrip("af")), 10)
        if (generation == major and step <= minor) or (kind == "compute" and (generation, step) <= capability):
            return True
    return False


def choose_precision(on_gpu: bool, computes_bf16: bool) -> Precision:
    """bf16 on a GPU that computes it, fp16 on an older one, float32 on a CPU (where speed rarely gains by less)."""
    if not on_gpu:
        return Precision.FLOAT32
    return Precision.BF16 if computes_bf16 else Precision.FP16


def _computes_bf16(device: str) -> bool:
    # Older GPUs emulate bf16, slower than float32: emulation does not count.
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _device_problems(device: str) -> list[str]:
    if device in {AUTO, "cpu"}:
        return []
    try:
        wanted = torch.device(device)
    except RuntimeError:
        return [f"device {device!r}: expected auto, cpu, cuda or cuda:<number>"]
    if wanted.type != "cuda":
        return [f"device {device!r}: expected auto, cpu, cuda or cuda:<number>"]
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (wanted.index or 0) >= found:
        return [f"device {device!r}: this machine shows {found} CUDA GPUs to the agent"]
    return []


def _precision_problems(precision: str) -> list[str]:
    if precision == AUTO or precision in list(Precision):
        return []
    return [f"precision {precision!r}: expected auto, {', '.join(Precision)}"]
