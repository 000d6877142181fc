"""Yes or no from a grey image: a small convolutional network, without batch statistics that would differ by site.

In shapes: B images of a batch, H height, W width.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Subset

from edge_agent.training.metrics import Sums, binary_metrics, gather
from edge_agent.training.task import Batch, Task
from edge_agent.training.tasks.images import ImageFolder, read_archive
from edge_agent.training.tasks.options import existing_path, fraction, raise_if_any, split_order
from fedward.errors import ConfigError


class ImageTask(Task):
    """Binary classification of grey images.

    `images` is either a MedMNIST-style .npz (uint8 train_images, train_labels, test_images, test_labels; the test
    split is held out) or a folder with a subfolder of images for each of `labels`, negative first, of which the
    fraction `held_out` is held out (the same at every start). The fraction is one of images: where a patient has
    several, give an .npz split by patient. Images of a folder are resized to `size` x `size`; those of an .npz must
    have it. Without `images` there is a model but no records. Raises ConfigError with every problem of the options.
    """

    def __init__(
        self,
        images: str | Path | None = None,
        labels: Sequence[str] = ("0", "1"),
        size: int = 28,
        held_out: float = 0.25,
    ) -> None:
        problems: list[str] = []
        self._path = existing_path("images", images, problems)
        self._labels = list(labels)
        if len(set(self._labels)) != 2:
            problems.append("option labels: expected two different folder names, the negative one first")
        self._size = size
        if not 8 <= size <= 1024:
            problems.append("option size: expected 8 to 1024 pixels")
        self._held_out = fraction("held_out", held_out, problems)
        raise_if_any(problems)

    def model(self) -> nn.Module:
        """Three 3x3 convolutions and two dense layers: (B, 1, H, W) -> (B, 2) logits; 0.70 M parameters at 28x28.

        GroupNorm (Wu and He 2018, arXiv:1803.08494) normalizes each image by itself, so nothing of it depends on
        how a site's records are distributed.
        """
        side = -(-self._size // 4)  # two convolutions of stride 2 round up
        return nn.Sequential(
            *_convolution(1, 32, stride=1),
            *_convolution(32, 64, stride=2),
            *_convolution(64, 128, stride=2),
            nn.Flatten(),
            nn.Linear(128 * side * side, 96),
            nn.ReLU(),
            nn.Linear(96, 2),
        )

    def train_data(self) -> Dataset[Batch]:
        return self._part("train")

    def held_out_data(self) -> Dataset[Batch]:
        return self._part("test")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return cross_entropy(model(images).float(), labels)

    def metrics(self, model: nn.Module, batches: Iterable[Batch]) -> Sums:
        """Loss, accuracy and AUC; the score is the logit of class 1, whose sigmoid is the softmax's second output."""
        outputs = [(model(images), labels) for images, labels in batches]
        logits, labels = gather(logits for logits, _ in outputs), gather(labels for _, labels in outputs)
        total = cross_entropy(logits, labels.long(), reduction="sum")
        scores = logits[:, 1] - logits[:, 0]
        return {"loss": (float(total), float(len(labels))), **binary_metrics(scores, labels, threshold=0.0)}

    def _part(self, split: str) -> Dataset[Batch]:
        if self._path is None:
            raise ConfigError("option images is not set: there are no records to read")
        if self._path.is_file():
            return read_archive(self._path, split, self._size)
        held_out, train = split_order(len(self._folder), self._held_out)
        return Subset(self._folder, (train if split == "train" else held_out).tolist())

    @cached_property
    def _folder(self) -> ImageFolder:
        return ImageFolder(self._path or Path(), self._labels, self._size)


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(),
    ]


def pneumonia(images: str | Path | None = None, held_out: float = 0.25) -> ImageTask:
    """Pneumonia or none, from a chest X-ray of 28x28 pixels (PneumoniaMNIST, or folders `normal` and `pneumonia`)."""
    return ImageTask(images, labels=("normal", "pneumonia"), size=28, held_out=held_out)
