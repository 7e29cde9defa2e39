"""Images as a script of PyTorch reads them: Pillow, torchvision and a DataLoader; nothing of Thawline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers.contract import File

__all__ = ["ARCHITECTURE", "ImageFiles", "batches", "fitted", "network", "predicted"]

ARCHITECTURE = "tf_efficientnet_lite0"
_MEAN = _STD = [0.5] * 3  # of these weights


def fitted(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """The image at (height, width): stretched, or its aspect ratio kept and its edge pixels repeated ("pad")."""
    height, width = size
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    if fit != "pad":
        raise ValueError(f"fit must be stretch or pad, got {fit!r}")
    scale = min(height / image.height, width / image.width)
    inner = (max(1, min(width, round(image.width * scale))), max(1, min(height, round(image.height * scale))))
    pixels = np.asarray(image.resize(inner, Image.Resampling.BILINEAR))
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    gaps = ((top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0))
    return Image.fromarray(np.pad(pixels, gaps, mode="edge"))


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Files and labels, decoded whenever they are asked for.

    Args:
        files: with their labels.
        size: (height, width) in pixels.
        fit: see `fitted`.
        views: random transforms of the resized Pillow image.
    """

    def __init__(self, files: Sequence[File], size: tuple[int, int], fit: str, views: Sequence[Any] = ()) -> None:
        self._files, self._size, self._fit = files, size, fit
        self._transform = transforms.Compose([*views, transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        path, label = self._files[place]
        with Image.open(path) as image:
            tensor: Tensor = self._transform(fitted(image.convert("RGB"), self._size, self._fit))
        return tensor, label


def batches(
    files: Sequence[File], size: tuple[int, int], fit: str, *, views: Sequence[Any] = (), train: bool, workers: int = 0
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of 32 to train on, shuffled, or of 64 to predict."""
    return DataLoader(
        ImageFiles(files, size, fit, views),
        batch_size=32 if train else 64,
        shuffle=train,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def network(weights: str, classes: int, **more: Any) -> nn.Module:
    """timm's network from the file of weights, channels last, with a fresh head of so many classes (0: none)."""
    overlay = {"file": weights}
    net: nn.Module = timm.create_model(
        ARCHITECTURE, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **more
    )
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def predicted(net: nn.Module, files: Sequence[File], size: tuple[int, int], fit: str) -> list[int]:
    """The likeliest class of each file."""
    net.eval()
    with torch.inference_mode():
        found = [
            net(images.contiguous(memory_format=torch.channels_last)).argmax(1)
            for images, _ in batches(files, size, fit, train=False)
        ]
    labels: list[int] = torch.cat(found).tolist()
    return labels
