from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from captum.attr import LayerGradCam
from torch import Tensor, nn

from explain.attribution import block_maps

NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "vgg16": (
        lambda: torchvision.models.vgg16(num_classes=7),
        [f"features.{place}" for place in (4, 9, 16, 23, 30, 14, 28)],
    ),
    "resnet50": (
        lambda: torchvision.models.resnet50(num_classes=7),
        ["conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4", "layer4.2.bn3"],
    ),
    "efficientnet_lite0": (
        lambda: timm.create_model("tf_efficientnet_lite0", num_classes=7),
        ["conv_stem", *(f"blocks.{place}" for place in range(7)), "conv_head"],
    ),
    "densenet121": (
        lambda: torchvision.models.densenet121(num_classes=7),
        [
            "features.conv0",
            "features.pool0",
            *(f"features.{kind}{place}" for place in (1, 2, 3) for kind in ("denseblock", "transition")),
            "features.denseblock4",
            "features.norm5",
        ],
    ),
    "mobilenet_v2": (
        lambda: torchvision.models.mobilenet_v2(num_classes=7),
        [*(f"features.{place}" for place in range(19)), "features.5.conv.0.1"],
    ),
}


def difference(ours: Tensor, reference: Tensor) -> float:
    """Largest difference in units of the largest value."""
    return float((ours - reference).abs().max() / reference.abs().max())


def captum_maps(model: nn.Module, block: str, images: Tensor, targets: Tensor) -> Tensor:
    maps = LayerGradCam(model, model.get_submodule(block)).attribute(images, targets, relu_attributions=True)
    return maps.detach()[:, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradcam_equals_captum_at_every_block(name: str) -> None:
    make, blocks = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    images, targets = torch.randn(2, 3, 64, 64), torch.tensor([1, 5])
    references = {block: captum_maps(model, block, images, targets) for block in blocks}
    for _ in range(2):  # the second pass knows which outputs are overwritten and copies only those
        maps = block_maps(model, images, blocks, targets)
        assert list(maps) == blocks
        assert {block: difference(maps[block], references[block]) for block in blocks} == pytest.approx(
            dict.fromkeys(blocks, 0), abs=1e-5
        )
