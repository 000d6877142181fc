"""A torch model as one flat float32 vector, and back.

What travels: trained parameters (as weights) and floating-point buffers of the state dict (as statistics, such as
BatchNorm's running mean). What does not: frozen parameters, integer buffers and buffers that are not persistent.
A task must build those the same everywhere, for instance from a file in the image.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edge_agent.training.snapshot import seed_all
from edge_agent.training.task import Task
from fedward.errors import ConfigError, PeerError
from fedward.layout import Kind, Layout, Vector
from fedward.layout import Tensor as Entry


def layout_of(model: nn.Module) -> Layout:
    """The canonical layout of a model; tied weights appear once, under the first name in the state dict.

    Tie weights by assigning the same Parameter: two that only share memory come apart when the model moves to a
    GPU, and are then refused as another layout. Raises ConfigError for a model that can't travel.
    """
    return _layout(_travelling(model))


def read_vector(model: nn.Module, layout: Layout) -> Vector:
    """The model's travelling tensors -> (P,) float32. Raises ValueError for a model of another layout."""
    tensors = _checked(model, layout)
    return layout.join({name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in tensors.items()})


def read_delta(model: nn.Module, layout: Layout, vector_P: Vector) -> Tensor:
    """Trained - base: the model's travelling tensors minus a (P,) float32 vector -> (P,) float32 where the model is.

    The same bits as `read_vector(model, layout) - vector_P`. Beyond the result it takes the memory of one tensor.
    Raises ValueError for a model or vector of another layout.
    """
    tensors = _checked(model, layout)
    delta_P = torch.empty(layout.size, dtype=torch.float32, device=tensors[layout.tensors[0].name].device)
    parts = torch.split(delta_P, [entry.size for entry in layout.tensors])
    with torch.no_grad():
        for (entry, base), part in zip(layout.split(vector_P), parts, strict=True):
            # A copy, as in `write_vector`; tensor by tensor, so that the base is never on a GPU as a whole.
            base_here = torch.tensor(base).to(part.device)
            torch.sub(tensors[entry.name].to(torch.float32), base_here, out=part.view(entry.shape))
    return delta_P


def all_finite(values: Tensor) -> bool:
    """Whether none of the values, of which there is at least one, is a NaN or an infinity.

    Without memory for an answer of each: smallest and largest are NaN where any is.
    """
    return all(math.isfinite(extreme.item()) for extreme in values.aminmax())


def write_vector(model: nn.Module, layout: Layout, vector_P: Vector) -> None:
    """(P,) float32 -> into the model, on its device and in its dtype. Raises ValueError for another layout."""
    tensors = _checked(model, layout)
    with torch.no_grad():
        for entry, view in layout.split(vector_P):
            # Read-only memory can't be wrapped by torch, and is copied first.
            tensors[entry.name].copy_(torch.from_numpy(view) if view.flags.writeable else torch.tensor(view))


def initial_model(task: Task, seed: int) -> tuple[Layout, Vector]:
    """Version 0 of a task's model: its layout and (P,) float32. The same seed gives the same bytes, with one release
    of torch and of the task. The seeds of torch, numpy and random are other ones afterwards."""
    seed_all(seed)
    model = task.model()
    layout = layout_of(model)
    return layout, read_vector(model, layout)


def _travelling(model: nn.Module) -> dict[str, Tensor]:
    """Name -> parameter or buffer, without those that share another's memory."""
    tensors: dict[str, Tensor] = {}
    seen: set[tuple[object, ...]] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or not _travels(name, value):
            continue
        memory = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride())
        if memory not in seen:
            seen.add(memory)
            tensors[name] = value
    return tensors


def _travels(name: str, tensor: Tensor) -> bool:
    if isinstance(tensor, nn.Parameter):
        if tensor.requires_grad and not tensor.is_floating_point():
            raise ConfigError(
                f"the task's model can't travel: parameter {name} is {tensor.dtype}, expected real floats"
            )
        return tensor.requires_grad
    return tensor.is_floating_point()


def _kind(tensor: Tensor) -> Kind:
    return Kind.WEIGHT if isinstance(tensor, nn.Parameter) else Kind.STATISTIC


def _layout(tensors: Mapping[str, Tensor]) -> Layout:
    try:
        return Layout.of(Entry(name, tuple(tensor.shape), _kind(tensor)) for name, tensor in tensors.items())
    except PeerError as error:
        raise ConfigError(f"the task's model can't travel: {error.detail}") from error


def _checked(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    tensors = _travelling(model)
    if _layout(tensors).digest != layout.digest:
        raise ValueError("the model's tensors are not those of the layout")
    return tensors
