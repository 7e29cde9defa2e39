"""The registry of networks, each as a `BlockNet`: how to build it, where its blocks end, where its weights are.

To add a backbone, write a builder that returns a `BlockNet` and put it in `BACKBONES`; most networks need only
`split_sequence` (see CONTRIBUTING.md).
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.networks.attention_branch import add_attention_branch
from lightning_modules.networks.block_split import split_sequence
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.depthwise import split_wide_gradients
from lightning_modules.networks.input_sizes import INPUT_SIZES
from lightning_modules.networks.pretrained import load_weights, package_weights, weights_path

__all__ = ["BACKBONES", "Backbone", "build", "generic_timm", "registered"]

# Read by huggingface_hub when timm imports it: nothing is fetched or sent.
for _variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_LITE_BLOCKS = (*(f"stage{i}" for i in range(1, 8)), "top")
_MOST_WEIGHTS = 1_000_000_000


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes:
        builder: called as builder(classes, size, weights); see `build`.
        blocks: names of the blocks, first to last; empty where they depend on the architecture chosen.
        minimum_size: smallest image side in pixels.
        native_size: image side in pixels that its pre-trained weights were trained at, or that it was made for.
        weights: kinds of weights it accepts, of imagenet, none and path.
        scalable: whether the builder takes a width as its fourth argument.
    """

    builder: Callable[..., BlockNet]
    blocks: tuple[str, ...]
    minimum_size: int
    native_size: int
    weights: tuple[str, ...] = ("imagenet", "none", "path")
    scalable: bool = False


def build(
    name: str,
    *,
    classes: int,
    size: tuple[int, int],
    weights: str = "imagenet",
    seed: int = 0,
    attention: str | None = None,
) -> BlockNet:
    """Build a network with a fresh head for `classes` classes.

    Args:
        name: a name of `BACKBONES`, or `timm:ARCHITECTURE` for any sequential timm family. `NAME@WIDTH`, as in
            `vgg16@0.25`, has that share of the channels and hidden units of NAME; from random weights only.
        classes: number of classes, >= 2.
        size: (H, W) of the images in pixels.
        weights: `imagenet`, `none` (random), or the path of a safetensors or PyTorch state dict.
        seed: of the random weights (the head always has some).
        attention: block behind which an attention branch is put, see `add_attention_branch`; None has none.

    Raises:
        InputError: unknown name, images too small, weights that cannot be had or do not fit, no such block.
    """
    name, _, scale = name.partition("@")
    backbone = registered(name)
    kind = weights if weights in ("imagenet", "none") else "path"
    if kind not in backbone.weights:
        raise InputError(f"model.weights must be {' or '.join(backbone.weights)} for {name}, got {weights!r}")
    if min(size) < backbone.minimum_size:
        raise InputError(
            f"{name} needs images of at least {backbone.minimum_size} x {backbone.minimum_size} pixels, "
            f"got {size[0]} x {size[1]}"
        )
    width = _width(name, scale, backbone, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone.builder(classes, size, weights, *([width] if width != 1 else []))
        if attention is not None:
            add_attention_branch(net, attention, classes, size)
    net.minimum_size = backbone.minimum_size
    split_wide_gradients(net)
    for tensor in (*net.parameters(), *net.buffers()):  # not `net.to`, which refuses tensors of five dimensions
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return net


def registered(name: str) -> Backbone:
    """The entry of a network; a width in its name does not matter.

    Raises:
        InputError: unknown name.
    """
    name = name.partition("@")[0]
    if name.startswith("timm:"):
        return generic_timm(name.removeprefix("timm:"))
    if name not in BACKBONES:
        raise InputError(f"model.name must be one of {', '.join(BACKBONES)} or timm:ARCHITECTURE, got {name!r}")
    return BACKBONES[name]


def _width(name: str, scale: str, backbone: Backbone, kind: str) -> float:
    if not scale:
        return 1.0
    try:
        width = float(scale)
    except ValueError:
        width = math.nan
    if not 0 < width <= 1:
        raise InputError(f"model.width must be above 0 and at most 1, got {scale!r}")
    if width != 1 and not backbone.scalable:
        able = ", ".join(other for other, entry in BACKBONES.items() if entry.scalable)
        raise InputError(f"model.width is for {able} alone, got {scale} with {name}")
    if width != 1 and kind == "imagenet":
        raise InputError(f"model.width={scale} needs model.weights=none or a path: {name} has ImageNet weights in full")
    return width


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _efficientnet_lite(classes: int, size: tuple[int, int], weights: str, *, number: int) -> BlockNet:
    import timm

    name = f"efficientnet_lite{number}"
    net: Any = timm.create_model(f"tf_{name}", num_classes=1000)
    if weights == "imagenet":
        package_weights(net, name)
    elif weights != "none":
        load_weights(net, weights, head="classifier.")
    net.reset_classifier(classes)
    blocks, head = split_sequence(net, size, names=_LITE_BLOCKS)
    return BlockNet(blocks, head, mean=_HALF, std=_HALF, architecture=name, pretrained=weights != "none")


def _torchvision(architecture: str, classes: int, weights: str) -> Any:
    from torchvision import models

    file = models.get_model_weights(architecture).IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    if weights != "none":
        weights_path(weights, downloadable=file)  # before seconds are spent on the network
    net: Any = models.get_model(architecture, weights=None, num_classes=classes)
    if weights != "none":
        head = "classifier.6." if architecture.startswith("vgg") else "fc."
        load_weights(net, weights, head=head, downloadable=file)
    return net


def _vgg16(classes: int, size: tuple[int, int], weights: str, width: float = 1.0) -> BlockNet:
    pretrained = weights != "none"
    if width == 1:
        net = _torchvision("vgg16", classes, weights)
    else:
        net = _narrow_vgg16(classes, width)
        if pretrained:
            load_weights(net, weights, head="classifier.6.")
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    layers: list[nn.Module] = []
    for layer in net.features:
        layers.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks[f"block{len(blocks) + 1}"] = nn.Sequential(*layers)
            layers = []
    head = nn.Sequential(net.avgpool, nn.Flatten(), net.classifier)
    name = "vgg16" if width == 1 else f"vgg16@{width:g}"
    return BlockNet(blocks, head, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, architecture=name, pretrained=pretrained)


def _narrow_vgg16(classes: int, width: float) -> Any:
    """torchvision's VGG-16 with fewer channels and hidden units; its own initialisation."""
    from torchvision.models.vgg import VGG, cfgs, make_layers

    plan = [layer if layer == "M" else _scaled(layer, width) for layer in cfgs["D"]]
    net: Any = VGG(make_layers(plan), num_classes=classes, init_weights=False)
    hidden = _scaled(4096, width)
    net.classifier[0] = nn.Linear(plan[-2] * 49, hidden)
    net.classifier[3] = nn.Linear(hidden, hidden)
    net.classifier[6] = nn.Linear(hidden, classes)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def _resnet50(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
    blocks, head = split_sequence(_torchvision("resnet50", classes, weights), size)
    return BlockNet(
        blocks, head, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, architecture="resnet50", pretrained=weights != "none"
    )


def _lenet5(
    classes: int, size: tuple[int, int], weights: str, width: float = 1.0, *, rectified: bool = False
) -> BlockNet:
    """LeNet-5 as in the thesis, Table 4: valid padding, kernels of 5; 200,432,331 parameters at 224 x 403.

    Its activations are tanh, or ReLU as in the thesis's second variant.
    """
    c1, c3, c5, hidden = (_scaled(channels, width) for channels in (6, 16, 120, 84))
    activation: type[nn.Module] = nn.ReLU if rectified else nn.Tanh
    height, across = ((side - 4 - 1 - 4) // 2 - 4 for side in size)
    if (count := c5 * height * across * hidden) > _MOST_WEIGHTS:
        raise InputError(
            f"lenet5 at {size[0]} x {size[1]} pixels has {count} weights in one layer; take a smaller data.size"
        )
    blocks: dict[str, nn.Module] = {
        "c1": nn.Sequential(nn.Conv2d(3, c1, 5), activation(), nn.AvgPool2d(2, stride=1)),
        "c3": nn.Sequential(nn.Conv2d(c1, c3, 5), activation(), nn.AvgPool2d(2, stride=2)),
        "c5": nn.Sequential(nn.Conv2d(c3, c5, 5), activation()),
    }
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(c5 * height * across, hidden), activation(), nn.Linear(hidden, classes)
    )
    name = "lenet5_relu" if rectified else "lenet5"
    name += "" if width == 1 else f"@{width:g}"
    return BlockNet(blocks, head, mean=(0.0,) * 3, std=(1.0,) * 3, architecture=name, pretrained=False)


def generic_timm(architecture: str) -> Backbone:
    """Registry entry for any timm family whose network is a plain sequence of children (checked when built).

    Raises:
        InputError: timm has no such architecture.
    """
    import timm

    if architecture not in timm.list_models():
        from difflib import get_close_matches

        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise InputError(f"model.name timm:ARCHITECTURE must be an architecture of timm, got {architecture!r}{hint}")

    def builder(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
        with torch.device("meta"):  # counts without taking the memory
            count = sum(p.numel() for p in timm.create_model(architecture, num_classes=classes).parameters())
        if count > _MOST_WEIGHTS:
            raise InputError(
                f"timm:{architecture} has {count} weights, and {_MOST_WEIGHTS} are the most that are accepted"
            )
        net: Any = timm.create_model(architecture, num_classes=classes)
        config = net.pretrained_cfg
        if weights != "none":
            hub = config.get("hf_hub_id") or config.get("url") or architecture
            classifier = config.get("classifier") or "classifier"
            names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
            load_weights(
                net,
                weights,
                head=tuple(f"{name}." for name in names),
                downloadable=f"{architecture}.safetensors",
                origin=f"model.safetensors of {hub}",
            )
        blocks, head = split_sequence(net, size)
        return BlockNet(
            blocks,
            head,
            mean=tuple(config.get("mean", _HALF)),
            std=tuple(config.get("std", _HALF)),
            architecture=f"timm:{architecture}",
            pretrained=weights != "none",
        )

    config = timm.get_pretrained_cfg(architecture)
    native = min(config.input_size[1:]) if config is not None else 224
    fixed = config is not None and config.fixed_input_size
    return Backbone(builder, (), native if fixed else 32, native)


BACKBONES: dict[str, Backbone] = {
    **{
        name: Backbone(partial(_efficientnet_lite, number=number), _LITE_BLOCKS, *size)
        for number, (name, size) in enumerate(INPUT_SIZES.items())
    },
    "vgg16": Backbone(_vgg16, tuple(f"block{i}" for i in range(1, 6)), 32, 224, scalable=True),
    "resnet50": Backbone(_resnet50, ("layer1", "layer2", "layer3", "layer4"), 32, 224),
    "lenet5": Backbone(_lenet5, ("c1", "c3", "c5"), 19, 32, weights=("none",), scalable=True),
    "lenet5_relu": Backbone(
        partial(_lenet5, rectified=True), ("c1", "c3", "c5"), 19, 32, weights=("none",), scalable=True
    ),
}
