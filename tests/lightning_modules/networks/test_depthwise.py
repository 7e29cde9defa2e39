"""The gradient of wide depthwise kernels in parts: the same numbers as PyTorch's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks import backbones, depthwise
from lightning_modules.networks.depthwise import depthwise_weight_gradient, split_wide_gradients
from lightning_modules.networks.freezing import freeze


@pytest.fixture(autouse=True)
def _on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "_X86", True)


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Size of the inputs, kernel, stride and padding of a convolution that has an output."""
    sizes = st.integers(1, 9)
    kernel = draw(st.sampled_from([1, 3, 5, 7])), draw(st.integers(4, 11))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    padding = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    size = tuple(max(draw(sizes), k - 2 * p) for k, p in zip(kernel, padding, strict=True))
    return size, kernel, stride, padding


@given(convolution=_convolutions())
@example(convolution=((1, 1), (7, 7), (1, 1), (3, 3)))  # the last stage of ConvNeXt at 32 pixels
@example(convolution=((2, 2), (7, 7), (2, 2), (3, 3)))
@example(convolution=((3, 3), (5, 5), (1, 1), (2, 2)))
@example(convolution=((9, 9), (5, 5), (2, 2), (0, 0)))
@settings(max_examples=150, deadline=None)
def test_gradient_of_the_weights(convolution: tuple[tuple[int, int], ...]) -> None:
    size, kernel, stride, padding = convolution
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    answers = F.conv2d(images, weight, None, stride, padding, groups=3)
    gradient = torch.randn_like(answers)
    answers.backward(gradient)  # type: ignore[no-untyped-call]
    found = depthwise_weight_gradient(gradient, images, weight.detach(), stride, padding)
    assert weight.grad is not None
    torch.testing.assert_close(found, weight.grad)


def _twins(layer: nn.Conv2d) -> tuple[nn.Sequential, nn.Sequential]:
    """The layer between two others, plain and split."""
    channels = layer.in_channels
    plain = nn.Sequential(nn.Conv2d(3, channels, 1), layer, nn.Conv2d(channels, 2, 1))
    split = deepcopy(plain)
    split_wide_gradients(split)
    return plain, split


LAYERS = [
    nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False),
    nn.Conv2d(4, 4, 7, padding=3, stride=2, groups=4),
    Conv2dSame(4, 4, 5, stride=2, groups=4),
    Conv2dSame(4, 4, (3, 5), stride=2, groups=4, bias=False),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_trains_as_it_did(layer: nn.Conv2d) -> None:
    plain, split = _twins(layer)
    assert type(split[1]) is not type(plain[1]) and list(split.state_dict()) == list(plain.state_dict())
    for net in (plain, split, deepcopy(split)):
        images = torch.linspace(-1, 1, 2 * 3 * 9 * 9).reshape(2, 3, 9, 9).requires_grad_()
        net(images).square().sum().backward()
        found = [images.grad, *(p.grad for p in net.parameters())]
        if net is plain:
            expected = found
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("layer", LAYERS)
def test_second_derivatives(layer: nn.Conv2d) -> None:
    def of(net: nn.Sequential) -> list[Tensor]:
        images = torch.linspace(-1, 1, 2 * 3 * 9 * 9).reshape(2, 3, 9, 9)
        inner = net[0](images)
        (gradient,) = torch.autograd.grad(net[1:](inner).sigmoid().sum(), inner, create_graph=True)
        loss = (gradient * inner).square().sum()
        return [g for g in torch.autograd.grad(loss, list(net.parameters()), allow_unused=True) if g is not None]

    plain, split = map(of, _twins(layer))
    assert len(plain) >= 4
    for one, other in zip(split, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 4, 3, padding=1, groups=4),
    nn.Conv2d(4, 8, 5, padding=2, groups=4),
    nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=4),
    nn.Conv2d(4, 4, 5, padding="same", groups=4),
    nn.Conv2d(4, 4, 5, padding=2, padding_mode="circular", groups=4),
    nn.Conv2d(4, 4, 5, padding=2),
])  # fmt: skip
def test_others_stay(layer: nn.Conv2d) -> None:
    net = nn.Sequential(layer)
    split_wide_gradients(net)
    assert type(net[0]) is nn.Conv2d


def test_backbone_uses_it_where_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(arguments[2].shape)
        return depthwise_weight_gradient(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(depthwise, "depthwise_weight_gradient", counted)
    net = backbones.build("efficientnet_lite0", classes=2, size=(64, 64), weights="imagenet", seed=0)
    freeze(net, 4)
    net.train()
    net(torch.rand(2, 3, 64, 64)).sum().backward()
    thawed = [m for part in net.blocks[4:] for m in part.modules() if isinstance(m, nn.Conv2d)]
    wide = [m.weight.shape for m in thawed if m.groups > 1 and m.kernel_size[1] > 3]
    assert len(wide) and sorted(calls) == sorted(wide)
    with torch.no_grad():
        net(torch.rand(2, 3, 64, 64))
    assert len(calls) == len(wide)
