"""One plain Lightning fine-tuning, as Optuna's own Lightning example writes it: the unit in which a search is priced.

`python -m benchmarks.plain_finetuning LISTS_JSON EPOCHS WORKERS` trains EfficientNet-Lite0 on the listed image files
with everything thawed: PIL and torchvision transforms in a DataLoader, cross-entropy, SGD with momentum, accuracy
logged once an epoch, no checkpoints; channels_last is the one thing added. It imports nothing of Thawline but the
weights' loader.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Files and labels, decoded whenever they are asked for."""

    def __init__(self, files: list[tuple[str, int]], size: tuple[int, int], *, augment: bool) -> None:
        self._files = files
        steps: list[Any] = [transforms.Resize(size)]
        if augment:
            steps += [
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(0, translate=(0.05, 0.05)),
                transforms.ColorJitter(brightness=0.05, contrast=0.1),
            ]
        self._transform = transforms.Compose(
            [*steps, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self._files[index]
        with Image.open(path) as image:
            return self._transform(image.convert("RGB")), label


class PlainClassifier(pl.LightningModule):
    """The network as one module, everything trained."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images.contiguous(memory_format=torch.channels_last)), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        predicted = self.net(images.contiguous(memory_format=torch.channels_last)).argmax(1)
        self.log("val_acc", (predicted == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)


def main(lists: Path, epochs: int, workers: int) -> None:
    """Train; prints the seconds of `fit` and the last validation accuracy as JSON."""
    from lightning_modules.networks.backbones import build

    given = json.loads(lists.read_text())
    size = tuple(given["size"])
    torch.manual_seed(0)
    net = build("efficientnet_lite0", classes=given["classes"], size=size, weights="imagenet", seed=0)
    plain = nn.Sequential(net.blocks, net.head)
    loaders = [
        DataLoader(
            ImageFiles(given[part], size, augment=part == "train"),
            batch_size=32,
            shuffle=part == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for part in ("train", "val")
    ]
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
    )
    model = PlainClassifier(plain)
    started = time.perf_counter()
    trainer.fit(model, *loaders)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "val_acc": float(trainer.callback_metrics["val_acc"])}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
