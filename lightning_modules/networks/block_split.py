"""Splitting a network whose children run one after the other into stages and a head, and checking the result."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from lightning_modules.errors import InputError

__all__ = ["split_sequence"]

# Names that timm and torchvision give to the first module behind the last convolutional block.
_HEAD_NAMES = ("global_pool", "avgpool", "head", "pre_logits", "classifier", "fc", "head_drop", "flatten")
_CONTAINERS = ("blocks", "stages", "features", "layers")


def split_sequence(
    net: nn.Module, size: tuple[int, int], names: tuple[str, ...] | None = None
) -> tuple[OrderedDict[str, nn.Module], nn.Sequential]:
    """Split a network into named stages and a head, and prove on a random image that they compute the same.

    A stage is a child with at least two convolutions. What precedes the first stage (a stem) joins it; a later
    child with a single convolution (a transition) joins the following stage, or is a block of its own at the end
    (EfficientNet's 1280-channel top convolution); anything without convolutions joins the block before it.

    Args:
        size: (H, W) in pixels at which the equality is checked.
        names: of the blocks; by default those of the children.

    Raises:
        InputError: the network is no such sequence, so cutting it would change what it computes.
    """
    modules = list(net.named_children())
    first_head = next((i for i, (name, _) in enumerate(modules) if name in _HEAD_NAMES), None)
    if first_head is None:
        raise InputError(f"{type(net).__name__} cannot be split into blocks: no pooling or classifier child found")
    body = [part for child in modules[:first_head] for part in _expanded(*child)]
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    waiting: list[nn.Module] = []
    for name, module in body:
        convolutions = sum(isinstance(m, nn.Conv2d) for m in module.modules())
        if convolutions >= 2:
            blocks[name] = nn.Sequential(*waiting, module) if waiting else module
            waiting = []
        elif convolutions == 1 or waiting or not blocks:
            waiting.append(module)
        else:
            last = next(reversed(blocks))
            blocks[last] = nn.Sequential(blocks[last], module)
    if waiting:
        blocks["top"] = nn.Sequential(*waiting)
    if names is not None:
        blocks = OrderedDict(zip(names, blocks.values(), strict=True))
    head = nn.Sequential()
    for name, module in modules[first_head:]:
        if isinstance(module, nn.Linear) and name == "fc" and "avgpool" in dict(head.named_children()):
            head.append(nn.Flatten())  # torchvision flattens in forward, between these two children
        head.add_module(name, module)
    if not blocks or not _equal(net, blocks, head, size):
        raise InputError(
            f"{type(net).__name__} cannot be split into blocks: its children do not run one after the other "
            "(families known to work: ResNet, RegNet, EfficientNet, MobileNet, DenseNet, ConvNeXt)"
        )
    return blocks, head


def _expanded(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if name not in _CONTAINERS or not isinstance(module, nn.Sequential):
        return [(name, module)]
    return [(f"stage{c}" if c.isdigit() else c, part) for c, part in module.named_children()]


def _equal(net: nn.Module, blocks: OrderedDict[str, nn.Module], head: nn.Module, size: tuple[int, int]) -> bool:
    image = torch.linspace(-1, 1, 3 * size[0] * size[1]).view(1, 3, *size)
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            output = image
            for block in blocks.values():
                output = block(output)
                if output.dim() != 4:
                    return False
            return torch.allclose(head(output), net(image), atol=1e-5, rtol=1e-4)
    # However a library refuses a wrong input.
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
        return False
    finally:
        for module, mode in modes:
            module.training = mode
