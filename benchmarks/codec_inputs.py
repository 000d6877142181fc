"""What codecs are measured on: normal values, heavy tails, and what training really changed.

The delta is that of a ResNet-18 for 28 x 28 images (He et al. 2016, arXiv:1512.03385; 11,168,706 parameters) after
ten steps of SGD with momentum. Its values are nothing like normal ones: they differ a hundredfold between layers.
Shape letter: P parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from edge_agent.training.module import layout_of, read_vector
from edge_agent.training.tasks.images import read_archive
from fedward.layout import Layout, Vector

STEPS, BATCH, SIDE = 10, 24, 28
WIDTHS = (64, 128, 256, 512)
DEGREES_OF_FREEDOM = 3


@dataclass(frozen=True)
class Input:
    """A vector to encode, (P,) float32, and its layout."""

    name: str
    layout: Layout
    vector_P: Vector

    def quantized(self, vector_P: Vector) -> Vector:
        """Of such a vector the elements that a codec may lose something of: not small tensors, nor statistics."""
        return np.concatenate(
            [vector_P[segment.start : segment.stop] for segment in self.layout.segments if not segment.exact]
        )

    @property
    def kurtosis(self) -> float:
        """Of the quantized elements: 3 for normal values."""
        values = self.quantized(self.vector_P).astype(np.float64)
        values -= values.mean()
        return float(np.mean(values**4) / np.mean(values**2) ** 2)


def normal(layout: Layout) -> Input:
    """Standard normal values."""
    return Input("normal", layout, np.random.default_rng(1).standard_normal(layout.size, np.float32))


def heavy_tailed(layout: Layout) -> Input:
    """Student-t values with three degrees of freedom: their fourth moment does not exist."""
    values = np.random.default_rng(2).standard_t(DEGREES_OF_FREEDOM, layout.size)
    return Input("t(3)", layout, values.astype(np.float32))


def trained_delta(images: Path | None) -> Input:
    """What ten steps change in the network, on real X-rays (a MedMNIST archive) or, without a file, on drawn images."""
    torch.manual_seed(0)
    model = resnet18().train()
    layout = layout_of(model)
    base_P = read_vector(model, layout)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    pixels, labels = _records(images)
    for chosen in torch.split(torch.randperm(len(labels))[: STEPS * BATCH], BATCH):
        optimizer.zero_grad()
        cross_entropy(model(pixels[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()
    return Input("delta", layout, read_vector(model, layout) - base_P)


def _records(images: Path | None) -> Sequence[Tensor]:
    """Pixels (N, 1, 28, 28) and labels (N,)."""
    if images is not None:
        return read_archive(images, "train", SIDE).tensors
    return torch.randn(STEPS * BATCH, 1, SIDE, SIDE), torch.randint(2, (STEPS * BATCH,))


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around: nn.Module = nn.Identity()
        if inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return torch.relu(self.body(images) + self.around(images))


def resnet18() -> nn.Module:
    """The network for one channel and two classes, with a 3 x 3 stem that leaves small images their size."""
    stages = [
        Residual(before if first else width, width, 2 if first and before != width else 1)
        for before, width in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
        for first in (True, False)
    ]
    return nn.Sequential(
        nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 2),
    )
