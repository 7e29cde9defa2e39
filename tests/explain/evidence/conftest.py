"""A planted defect set, small networks fine-tuned on it, and materials built by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.evidence import BlockRecord, Cost, Material, Pass, gather

BLOCKS = ("stem", "middle", "deep")


def maps_of(count: int, *, seed: int, size: int = 5, blocks: int = 3) -> list[Tensor]:
    """Random positive maps (count, size, size), one a block."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, size, size, generator=generator) for _ in range(blocks)]


def pass_of(maps: Sequence[Tensor], features: Sequence[Tensor] | None = None) -> Pass:
    """A pass whose CAM and control maps are these, and whose features are these or zero."""
    features = features or [torch.zeros(len(one), 2) for one in maps]
    records = tuple(BlockRecord(one, one, feature) for one, feature in zip(maps, features, strict=True))
    return Pass(records, torch.zeros(len(maps[0]), 2))


def material_of(before: Pass, after: Pass | None = None, again: Pass | None = None, **changes: Any) -> Material:
    """A material of two classes and two halves, with these passes."""
    count = len(before.logits)
    costs = {"before": Cost(1.0, count, count)}
    costs |= {"after": Cost(2.0, count, count)} if after else {}
    costs |= {"again": Cost(3.0, count, count)} if again else {}
    fields: dict[str, Any] = {
        "blocks": BLOCKS[: len(before.records)],
        "labels": torch.arange(count) % 2,
        "training": (torch.arange(count) // 2) % 2 == 0,
        "method": "layercam",
        "inputs": torch.zeros(count, 3),
        "before": before,
        "after": after,
        "again": again,
        "drops": {},
        "gradients": None,
        "costs": costs,
    }
    return Material(**fields | changes)


def fine_tuned(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int, seed: int, rate: float) -> nn.Module:
    """A copy trained by momentum on random halves of the images; every weight moves."""
    model = copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(seed)
    speeds = [torch.zeros_like(parameter) for parameter in model.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(steps):
            half = torch.randperm(len(images), generator=generator)[: max(2, len(images) // 2)]
            loss = functional.cross_entropy(model(images[half]), labels[half])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, speed, gradient in zip(model.parameters(), speeds, gradients, strict=True):
                    speed.mul_(0.9).add_(gradient)
                    parameter.sub_(rate * speed)
    return model.eval()


@pytest.fixture(scope="session")
def planted() -> tuple[Tensor, Tensor, Tensor]:
    """48 images (48, 3, 16, 16) whose class is the colour of a square in noise, labels, and the training half."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % 4
    images = torch.randn(48, 3, 16, 16, generator=generator) * 0.3
    corners = torch.randint(0, 12, (48, 2), generator=generator).tolist()
    for number, (row, column) in enumerate(corners):
        square = images[number, :, row : row + 4, column : column + 4]
        kind = int(labels[number])
        square[kind % 3] += 2.0 if kind < 3 else -2.0
    return images, labels, (torch.arange(48) // 4) % 2 == 0


@pytest.fixture(scope="session")
def networks(planted: tuple[Tensor, Tensor, Tensor]) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The network before, after one probe fine-tuning, and after another from a different seed."""
    images, labels, training = planted
    torch.manual_seed(0)
    start = Net()
    before = fine_tuned(start, images[training], labels[training], steps=30, seed=1, rate=0.05)
    tuned = [fine_tuned(before, images[training], labels[training], steps=15, seed=s, rate=0.02) for s in (2, 3)]
    return before, tuned[0], tuned[1]


@pytest.fixture(scope="session")
def material(planted: tuple[Tensor, Tensor, Tensor], networks: tuple[nn.Module, nn.Module, nn.Module]) -> Material:
    """All that can be gathered from the planted set."""
    before, after, again = networks
    return gather(before, BLOCKS, *planted, after=after, again=again, fine_tuning=Cost(1000.0, 100, 100))


class Net(nn.Module):
    """Three convolutional blocks with batch-norm, pooling and a linear head; maps of 16, 8 and 4 cells a side."""

    def __init__(self, classes: int = 4, width: int = 8) -> None:
        super().__init__()

        def block(inputs: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, width, 3, stride=stride, padding=1)
            return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

        self.stem, self.middle, self.deep = block(3, 1), block(width, 2), block(width, 2)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.deep(self.middle(self.stem(images))).mean(dim=(2, 3)))
        return logits


@pytest.fixture
def make_net() -> Callable[..., Net]:
    def make(seed: int = 0, **options: Any) -> Net:
        torch.manual_seed(seed)
        return Net(**options).eval()

    return make


@pytest.fixture
def make_maps() -> Callable[..., list[Tensor]]:
    return maps_of


@pytest.fixture
def make_pass() -> Callable[..., Pass]:
    return pass_of


@pytest.fixture
def make_material() -> Callable[..., Material]:
    return material_of


@pytest.fixture
def tune() -> Callable[..., nn.Module]:
    return fine_tuned
