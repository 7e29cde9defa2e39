"""Splitting a network whose children run one after the other into stages and a head, and checking the result."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from lightning_modules.errors import InputError, printable

__all__ = ["split_sequence"]

# Names that timm and torchvision give to the first module behind the last convolutional block.
_HEAD_NAMES = ("global_pool", "avgpool", "head", "pre_logits", "classifier", "fc", "head_drop", "flatten")
_CONTAINERS = ("blocks", "stages", "features", "layers", "body", "dense_stages")


def split_sequence(
    net: nn.Module, size: tuple[int, int], names: tuple[str, ...] | None = None
) -> tuple[OrderedDict[str, nn.Module], nn.Sequential]:
    """Split a network into named stages and a head, and prove on a random image that they compute the same.

    A stage is a child with at least two convolutions. What precedes the first stage (a stem) joins it; a later
    child with a single convolution (a transition) joins the following stage, or is a block of its own at the end
    (EfficientNet's 1280-channel top convolution); anything without convolutions joins the block before it. Where no
    child has two (VGG), a block ends at each pooling.

    Args:
        size: (H, W) in pixels at which the equality is checked.
        names: of the blocks; by default those of the children.

    Raises:
        InputError: the network is no such sequence, so cutting it would change what it computes; or it takes no images
            of this size, or gives tokens, or maps whose channels come last, which no freeze depth or map is made for.
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
    if not blocks:
        children, waiting = waiting, []
        for module in children:
            waiting.append(module)
            if isinstance(module, nn.MaxPool2d):
                blocks[f"block{len(blocks) + 1}"] = nn.Sequential(*waiting)
                waiting = []
    if waiting:
        blocks["top"] = nn.Sequential(*waiting)
    if names is not None:
        blocks = OrderedDict(zip(names, blocks.values(), strict=True))
    head = nn.Sequential()
    for name, module in modules[first_head:]:
        if isinstance(module, nn.Linear) and name == "fc" and "avgpool" in dict(head.named_children()):
            head.append(nn.Flatten())  # torchvision flattens in forward, between these two children
        head.add_module(name, module)
    if problem := _difference(net, blocks, head, size):
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)  # as some networks pool in `forward` alone
        if _difference(net, blocks, head, size):
            raise InputError(f"{type(net).__name__} {problem}")
    return blocks, head


def _expanded(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    if name not in _CONTAINERS or not isinstance(module, nn.Sequential):
        return [(name, module)]
    return [(f"stage{c}" if c.isdigit() else c, part) for c, part in module.named_children()]


def _difference(net: nn.Module, blocks: OrderedDict[str, nn.Module], head: nn.Module, size: tuple[int, int]) -> str:
    """Why blocks and head cannot stand for the network; "" where they compute the same."""
    image = torch.linspace(-1, 1, 3 * size[0] * size[1]).view(1, 3, *size)
    modes = [(module, module.training) for module in net.modules()]
    no_sequence = (
        "cannot be split into blocks: its children do not run one after the other (families known to work: ResNet, "
        "RegNet, EfficientNet, MobileNet, DenseNet, ConvNeXt; docs/timm_families.md)"
    )
    net.eval()
    try:
        with torch.no_grad():
            try:
                whole = net(image)
            except Exception as error:  # however a library refuses an image
                made_for = getattr(net, "pretrained_cfg", {}).get("input_size")
                hint = f"; it was made for {made_for[1]} x {made_for[2]}" if made_for else ""
                why = printable(str(error).splitlines()[0])[:120] if str(error) else type(error).__name__
                return f"takes no images of {size[0]} x {size[1]} pixels ({why}){hint}"
            if not bool(whole.isfinite().all()):
                return "gives values that are not finite with these weights (model.weights)"
            output = image
            for name, block in blocks.items():
                output = block(output)
                if output.dim() != 4 or getattr(net, "output_fmt", "NCHW") != "NCHW":
                    return f"cannot be split into blocks: {name} gives {tuple(output.shape)}, no maps (N, C, H, W)"
            same = bool(blocks) and torch.allclose(head(output), whole, atol=1e-5, rtol=1e-4)
            return "" if same else no_sequence
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, IndexError, NotImplementedError):
        return no_sequence
    finally:
        for module, mode in modes:
            module.training = mode
