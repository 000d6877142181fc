"""Grey images on disk -> tensors (1, H, W) of float32 in [-1, 1] and labels 0 or 1."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedward.errors import ConfigError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


def read_archive(path: Path, split: str, size: int) -> TensorDataset:
    """One split ("train" or "test") of a MedMNIST-style .npz. Raises ConfigError for one that is built otherwise."""
    expected = f"expected an .npz with uint8 {split}_images (N, {size}, {size}) and {split}_labels of 0 and 1"
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive[f"{split}_images"], archive[f"{split}_labels"].ravel()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise ConfigError(f"option images: {expected}") from None  # the original's text quotes the path
    if images.dtype != np.uint8 or images.shape != (len(labels), size, size) or not np.isin(labels, (0, 1)).all():
        raise ConfigError(f"option images: {expected}; got {images.dtype} {images.shape}")
    return TensorDataset(scaled(images[:, None]), torch.from_numpy(labels.astype(np.int64)))


def scaled(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """0 to 255 -> -1 to 1."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0)


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """root/<label>/*.png: decoded when asked for, so memory does not grow with the number of images.

    The order is that of the sorted names. Raises ConfigError if a label's folder is missing or there are no images,
    and when an image is read that is none or has more than 8 bits a channel.
    """

    def __init__(self, root: Path, labels: Sequence[str], size: int) -> None:
        if lacking := [label for label in labels if not (root / label).is_dir()]:
            raise ConfigError(f"option images: the folder lacks the subfolders {', '.join(lacking)}")
        self._size = size
        self._items = [
            (path, index)
            for index, label in enumerate(labels)
            for path in sorted((root / label).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        if not self._items:
            raise ConfigError(f"option images: the subfolders hold no images ({', '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self._items[index]
        return scaled(_read_image(path, self._size)[None]), label


def _read_image(path: Path, size: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # conversion to 8 bits would clip, not scale
                raise ConfigError("option images: an image has more than 8 bits a channel; convert it first")
            return np.asarray(image.convert("L").resize((size, size)), np.uint8)
    except (OSError, UnidentifiedImageError):
        raise ConfigError("option images: an image can't be decoded") from None  # the original's text quotes the path
