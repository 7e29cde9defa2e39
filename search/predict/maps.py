"""Grad-CAM of the predicted class at the last block, drawn over each image."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image
from torch import Tensor

from explain.overlay import map_overlay
from explain.subject import explain_batch
from lightning_modules.networks.model_file import TrainedModel
from search.tracking.models import subject_of

__all__ = ["MapDrawer"]

_METHOD = "gradcam"
_SMALLEST_SIDE = 224


class MapDrawer:
    """Draws the map of the last block that puts out more than one position.

    Args:
        model: whose network is on the device it shall run on.

    Raises:
        InputError: the network has no such block.
    """

    def __init__(self, model: TrainedModel) -> None:
        subject, _ = subject_of(model)
        self._subject = replace(subject, blocks=dict([list(subject.blocks.items())[-1]]))
        self._scale = -(-_SMALLEST_SIDE // max(subject.size))

    def overlays(self, images: Tensor) -> list[Image.Image]:
        """Pictures of images (N, 3, H, W) in [0, 1] with their maps, enlarged to a side of at least 224 pixels."""
        explained = explain_batch(self._subject, images, "predicted", (_METHOD,))
        (maps,) = explained.maps.values()
        return [
            Image.fromarray(map_overlay(image, values, self._scale)) for image, values in zip(images, maps, strict=True)
        ]
