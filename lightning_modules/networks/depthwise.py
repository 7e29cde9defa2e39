"""Depthwise convolutions whose weights are trained faster on x86 processors.

oneDNN has a fast kernel for the gradient of depthwise weights that are at most three columns wide. Wider ones (the
5 x 5 of EfficientNet and MobileNet, the 7 x 7 of ConvNeXt) take its general one, which is five to fifty times slower
for an operation: with four of EfficientNet-Lite0's eight blocks frozen that is a third of a training step. The gradient
of a wide kernel is that of its columns side by side, so it is computed here three columns at a time.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

__all__ = ["depthwise_weight_gradient", "split_wide_gradients"]

_COLUMNS = 3  # the widest kernel that oneDNN's fast one takes
_X86 = platform.machine().lower() in ("x86_64", "amd64")


def split_wide_gradients(net: nn.Module) -> None:
    """Let every depthwise convolution of more than three columns compute the gradient of its weights in parts.

    What a network answers and the names of its weights stay the same. It does so in float32 on x86; elsewhere the
    gradient is PyTorch's own.
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size[1] <= _COLUMNS or module.dilation != (1, 1):
            continue
        if not module.groups == module.in_channels == module.out_channels:
            continue
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = _Depthwise
        elif type(module) is Conv2dSame:
            module.__class__ = _DepthwiseSame


def depthwise_weight_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient (C, 1, K, L) of a loss by the weights of a depthwise convolution, for any number of columns L.

    Args:
        gradient: of the loss by the outputs, (N, C, H', W').
        images: inputs (N, C, H, W).
        weight: (C, 1, K, L).
        padding: zeros on each side of the inputs, in rows and columns.
    """
    channels, _, rows, columns = weight.shape
    out_height, out_width = gradient.shape[2:]
    if images.shape[3] < columns or stride[1] > columns:  # else no part would lie outside of the inputs
        after = (out_width - 1) * stride[1] + columns - padding[1] - images.shape[3]
        images, padding = F.pad(images, (padding[1], after)), (padding[0], 0)
    height, width = images.shape[2:]
    # Where the inputs have fewer rows than the kernel the fast one takes them only with the zeros in place.
    padded = height < rows
    above = padding[0] if padded else 0
    below = (out_height - 1) * stride[0] + rows - padding[0] - height if padded else 0
    parts = []
    for first in range(0, columns, _COLUMNS):
        wide = min(_COLUMNS, columns - first)
        left = padding[1] - first
        right = (out_width - 1) * stride[1] + wide - left - width
        shown = F.pad(images, (left, right, above, below)).contiguous(memory_format=torch.channels_last)
        around = (0 if padded else padding[0], 0)
        size = (channels, 1, rows, wide)
        part = conv2d_weight(shown, size, gradient, stride, around, groups=channels)  # type: ignore[no-untyped-call]
        parts.append(part)
    return torch.cat(parts, 3)


class _SplitGradient(torch.autograd.Function):
    """A depthwise convolution; its backward pass can be differentiated again, as CAM fostering does."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (images, weight) = gradients, ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = conv2d_input(  # type: ignore[no-untyped-call]
                images.shape, weight, gradient, ctx.stride, ctx.padding, groups=len(weight)
            )
        if ctx.needs_input_grad[1]:
            of_weight = depthwise_weight_gradient(gradient, images, weight, ctx.stride, ctx.padding)
        return of_images, of_weight, None, None


def _splits(images: Tensor, weight: Tensor) -> bool:
    trained = torch.is_grad_enabled() and weight.requires_grad and not torch.is_autocast_enabled(images.device.type)
    return trained and _X86 and images.device.type == "cpu" and images.dtype == weight.dtype == torch.float32


class _Depthwise(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _splits(input, weight):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        found: Tensor = _SplitGradient.apply(input, weight, self.stride, self.padding)
        return found if bias is None else found + bias[:, None, None]


class _DepthwiseSame(Conv2dSame):
    def forward(self, x: Tensor) -> Tensor:
        if not _splits(x, self.weight):
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        padded = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        found: Tensor = _SplitGradient.apply(padded, self.weight, self.stride, (0, 0))
        return found if self.bias is None else found + self.bias[:, None, None]
