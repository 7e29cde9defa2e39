"""Small seeded networks and images for the tests of the package explain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

TINY_BLOCKS = ("stem", "middle", "deep")


class TinyNet(nn.Module):
    """Three convolutional blocks with batch-norm, dropout, a residual sum and activations after the named modules."""

    def __init__(self, classes: int = 4, *, inplace: bool = True, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.act1 = nn.ReLU(inplace=inplace)
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=2), nn.BatchNorm2d(width))
        self.act2 = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.deep = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.act3 = nn.ReLU(inplace=inplace)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.act1(self.stem(images))
        hidden = self.act2(self.middle(hidden)) + hidden
        hidden = self.act3(self.deep(self.pool(hidden)))
        return self.fc(self.dropout(hidden.mean(dim=(2, 3))))


@pytest.fixture
def tiny_blocks() -> tuple[str, ...]:
    return TINY_BLOCKS


@pytest.fixture
def make_tiny() -> Callable[..., TinyNet]:
    def make(seed: int = 0, **options: object) -> TinyNet:
        torch.manual_seed(seed)
        net = TinyNet(**options)  # type: ignore[arg-type]
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = torch.randn(module.num_features) / 3
                module.running_var = torch.rand(module.num_features) + 0.5
        return net.eval()

    return make


@pytest.fixture
def tiny(make_tiny: Callable[..., TinyNet]) -> TinyNet:
    return make_tiny()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 20, generator=torch.Generator().manual_seed(1))
