"""A GPU that is none: its tensors are kept on the CPU, and every byte that crosses is counted.

What it shows is where tensors lie: as on a GPU, an operation on tensors of both devices fails, and a tensor that was
made without naming the device lies on the CPU. Rounding is the CPU's. It calls itself Apple's "mps", because torch asks
for a real CUDA device before it asks anybody else.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps:0")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.matmul.default}


class Distant(Tensor):
    """A tensor on the pretend device; `kept` is where its values really are."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> "Distant":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, kept.shape, strides=kept.stride(), storage_offset=kept.storage_offset(), dtype=kept.dtype,
            device=DEVICE,
        )  # fmt: skip
        tensor.kept = kept
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def untyped_storage(self) -> torch.UntypedStorage:
        """Tensors that share memory on the device are known by that of the CPU."""
        return self.kept.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise RuntimeError(f"{function} outside of `with PretendGpu()`")


class PretendGpu(TorchDispatchMode):
    """While it is entered, tensors may be on DEVICE. `to_host` and `to_device` are bytes that crossed."""

    def __init__(self) -> None:
        super().__init__()
        self.to_host = 0
        self.to_device = 0
        self.precisions: set[str] = set()
        """How float32 matrix products were asked to be computed, each time that there was one."""

    def moved(self, model: nn.Module) -> nn.Module:
        """The model with its parameters and buffers on DEVICE; these bytes are not counted."""
        moved: dict[int, Tensor] = {}  # tied ones stay tied, as they do on a GPU
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = moved.setdefault(id(tensor), _moved(tensor))
        self.to_device = 0
        return model

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in given if not isinstance(tensor, Distant)]
        if function in PRODUCTS:
            self.precisions.add(torch.backends.cuda.matmul.fp32_precision)
        if len(here) not in {0, len(given)} and function not in COPIES and any(tensor.dim() for tensor in here):
            raise RuntimeError(f"{function} on tensors of two devices")
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        result = function(*tree_map(_kept, args), **tree_map(_kept, kwargs))
        distant = asked.type == DEVICE.type if asked is not None else isinstance(given[0], Distant) if given else False
        self._count(given, result, distant)
        return tree_map(_distant_as(given), result) if distant else result

    def _count(self, given: Iterable[Tensor], result: Any, distant: bool) -> None:
        num_bytes = sum(leaf.nbytes if isinstance(leaf, Tensor) else 8 for leaf in tree_leaves(result))
        came_from_device = any(isinstance(tensor, Distant) for tensor in given)
        came_from_host = any(not isinstance(tensor, Distant) for tensor in given)
        if came_from_device and not (distant and all(isinstance(leaf, Tensor) for leaf in tree_leaves(result))):
            self.to_host += num_bytes
        if came_from_host and distant:
            self.to_device += num_bytes


def _moved(tensor: Tensor) -> Tensor:
    there = tensor.detach().to(DEVICE)
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def _kept(value: Any) -> Any:
    return value.kept if isinstance(value, Distant) else value


def _distant_as(given: Iterable[Tensor]) -> Callable[[Any], Any]:
    """Values as tensors on the device; what an operation in place gives back is the very tensor that it was given."""
    known = {id(tensor.kept): tensor for tensor in given if isinstance(tensor, Distant)}
    return lambda value: known.get(id(value), Distant(value)) if isinstance(value, Tensor) else value
