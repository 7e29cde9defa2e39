"""The settings of the network."""

from __future__ import annotations

from dataclasses import dataclass

from search.settings.field import setting

__all__ = ["ModelSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """The network."""

    name: str = setting(
        "efficientnet_lite0", "efficientnet_lite0, vgg16, resnet50, lenet5, lenet5_relu, or timm:ARCHITECTURE"
    )
    weights: str = setting("imagenet", "imagenet, none (random), or the path of a state dict (safetensors or PyTorch)")
    width: float = setting(
        1.0, "share of the channels and hidden units of vgg16 and lenet5, which have no ImageNet weights then",
        above=0, high=1,
    )  # fmt: skip

    @property
    def architecture(self) -> str:
        """The name by which `backbones.build` knows the network, width included."""
        return self.name if self.width == 1 else f"{self.name}@{self.width:g}"
