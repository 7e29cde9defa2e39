"""The registry of networks, each as a `BlockNet`: how to build it, where its blocks end, where its weights are.

To add a backbone, write a builder that returns a `BlockNet` and put it in `BACKBONES`; most networks need only
`split_sequence` (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_modules.block_split import split_sequence
from lightning_modules.blocknet import BlockNet
from lightning_modules.errors import InputError
from lightning_modules.pretrained import load_weights, package_weights

__all__ = ["BACKBONES", "Backbone", "build", "generic_timm"]

# Read by huggingface_hub when timm imports it: nothing is fetched, and nobody is told.
for _variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_MOST_WEIGHTS = 1_000_000_000


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes:
        builder: called as builder(classes, size, weights); see `build`.
        blocks: names of the blocks, first to last; empty where they depend on the architecture chosen.
        minimum_size: smallest image side in pixels.
        weights: kinds of weights it accepts, of imagenet, none and path.
    """

    builder: Callable[[int, tuple[int, int], str], BlockNet]
    blocks: tuple[str, ...]
    minimum_size: int
    weights: tuple[str, ...] = ("imagenet", "none", "path")


def build(name: str, *, classes: int, size: tuple[int, int], weights: str = "imagenet", seed: int = 0) -> BlockNet:
    """Build a network with a fresh head for `classes` classes.

    Args:
        name: a name of `BACKBONES`, or `timm:ARCHITECTURE` for any sequential timm family.
        classes: number of classes, >= 2.
        size: (H, W) of the images in pixels.
        weights: `imagenet`, `none` (random), or the path of a safetensors or PyTorch state dict.
        seed: of the random weights (the head always has some).

    Raises:
        InputError: unknown name, images too small, weights that cannot be had or do not fit.
    """
    if name.startswith("timm:"):
        backbone = generic_timm(name.removeprefix("timm:"))
    elif name in BACKBONES:
        backbone = BACKBONES[name]
    else:
        raise InputError(f"model.name must be one of {', '.join(BACKBONES)} or timm:ARCHITECTURE, got {name!r}")
    kind = weights if weights in ("imagenet", "none") else "path"
    if kind not in backbone.weights:
        raise InputError(f"model.weights must be {' or '.join(backbone.weights)} for {name}, got {weights!r}")
    if min(size) < backbone.minimum_size:
        raise InputError(
            f"{name} needs images of at least {backbone.minimum_size} x {backbone.minimum_size} pixels, "
            f"got {size[0]} x {size[1]}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone.builder(classes, size, weights)
    net.minimum_size = backbone.minimum_size
    return net.to(memory_format=torch.channels_last)


def _efficientnet_lite0(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
    import timm

    net: Any = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    if weights == "imagenet":
        package_weights(net)
    elif weights != "none":
        load_weights(net, weights, head="classifier.")
    net.reset_classifier(classes)
    blocks, head = split_sequence(net, size, names=(*(f"stage{i}" for i in range(1, 8)), "top"))
    return BlockNet(
        blocks, head, mean=_HALF, std=_HALF, architecture="efficientnet_lite0", pretrained=weights != "none"
    )


def _torchvision(architecture: str, classes: int, weights: str) -> tuple[Any, bool]:
    from torchvision import models

    net: Any = models.get_model(architecture, weights=None, num_classes=classes)
    if weights != "none":
        enum = models.get_model_weights(architecture)
        file = enum.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
        head = "classifier.6." if architecture.startswith("vgg") else "fc."
        load_weights(net, weights, head=head, downloadable=file)
    return net, weights != "none"


def _vgg16(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
    net, pretrained = _torchvision("vgg16", classes, weights)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    layers: list[nn.Module] = []
    for layer in net.features:
        layers.append(layer)
        if isinstance(layer, nn.MaxPool2d):
            blocks[f"block{len(blocks) + 1}"] = nn.Sequential(*layers)
            layers = []
    head = nn.Sequential(net.avgpool, nn.Flatten(), net.classifier)
    return BlockNet(blocks, head, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, architecture="vgg16", pretrained=pretrained)


def _resnet50(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
    net, pretrained = _torchvision("resnet50", classes, weights)
    blocks, head = split_sequence(net, size)
    return BlockNet(
        blocks, head, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, architecture="resnet50", pretrained=pretrained
    )


def _lenet5(classes: int, size: tuple[int, int], weights: str) -> BlockNet:
    """LeNet-5 as in the thesis, Table 4: valid padding, kernels of 5, tanh; 200,432,331 parameters at 224 x 403."""
    height, width = ((side - 4 - 1 - 4) // 2 - 4 for side in size)
    if (count := 120 * height * width * 84) > _MOST_WEIGHTS:
        raise InputError(
            f"lenet5 at {size[0]} x {size[1]} pixels has {count} weights in one layer; take a smaller data.size"
        )
    blocks: dict[str, nn.Module] = {
        "c1": nn.Sequential(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2, stride=1)),
        "c3": nn.Sequential(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2, stride=2)),
        "c5": nn.Sequential(nn.Conv2d(16, 120, 5), nn.Tanh()),
    }
    head = nn.Sequential(nn.Flatten(), nn.Linear(120 * height * width, 84), nn.Tanh(), nn.Linear(84, classes))
    return BlockNet(blocks, head, mean=(0.0,) * 3, std=(1.0,) * 3, architecture="lenet5", pretrained=False)


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

    return Backbone(builder, (), 32)


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": Backbone(_efficientnet_lite0, (*(f"stage{i}" for i in range(1, 8)), "top"), 32),
    "vgg16": Backbone(_vgg16, tuple(f"block{i}" for i in range(1, 6)), 32),
    "resnet50": Backbone(_resnet50, ("layer1", "layer2", "layer3", "layer4"), 32),
    "lenet5": Backbone(_lenet5, ("c1", "c3", "c5"), 19, weights=("none",)),
}
