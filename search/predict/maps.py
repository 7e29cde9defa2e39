"""Grad-CAM of the predicted class at the last block, drawn over each image."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from explain.overlay import map_overlay
from explain.subject import Subject, choose_blocks, explain_batch
from lightning_modules.networks.model_file import TrainedModel

__all__ = ["MapDrawer"]

_METHOD = "gradcam"
_SMALLEST_SIDE = 224


class MapDrawer:
    """Draws the map of the last block that puts out more than one position.

    Args:
        model: whose network is on the device it shall run on.

    Raises:
        ArgumentError: the network has no such block.
    """

    def __init__(self, model: TrainedModel) -> None:
        net, card = model.net, model.card
        labels = {label: f"blocks.{label}" for label in net.block_names}
        usable, _ = choose_blocks(net, labels, card.size, None)
        last = dict([list(usable.items())[-1]])
        device = net.mean.device
        self._subject = Subject(
            net, card.classes, last, model.read, card.size, card.fit, net.minimum_size, device, card.architecture
        )
        self._scale = -(-_SMALLEST_SIDE // max(card.size))

    def overlays(self, images: Tensor) -> list[Image.Image]:
        """Pictures of images (N, 3, H, W) in [0, 1] with their maps, enlarged to a side of at least 224 pixels."""
        explained = explain_batch(self._subject, images, "predicted", (_METHOD,))
        (maps,) = explained.maps.values()
        return [
            Image.fromarray(map_overlay(image, values, self._scale)) for image, values in zip(images, maps, strict=True)
        ]
