"""Where the network looked, drawn over each image: Grad-CAM of the predicted class, or its own attention map."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image
from torch import Tensor

from explain.method_names import ATTENTION, GRADCAM
from explain.overlay import map_overlay
from explain.subject import explain_batch
from lightning_modules.networks.model_file import TrainedModel
from search.tracking.models import attended_block, subject_of

__all__ = ["MapDrawer"]

_SMALLEST_SIDE = 224


class MapDrawer:
    """Draws a map of one block: the last that puts out more than one position, or that of the attention branch.

    Args:
        model: whose network is on the device it shall run on.
        method: gradcam or attention.

    Raises:
        InputError: the network has no such block, or no attention branch.
    """

    def __init__(self, model: TrainedModel, method: str = GRADCAM) -> None:
        shown = None if method != ATTENTION else [attended_block(model, f"maps_method={method}")]
        subject, _ = subject_of(model, shown)
        self._subject = replace(subject, blocks=dict([list(subject.blocks.items())[-1]]))
        self._method = method
        self._scale = -(-_SMALLEST_SIDE // max(subject.size))

    def overlays(self, images: Tensor) -> list[Image.Image]:
        """Pictures of images (N, 3, H, W) in [0, 1] with their maps, enlarged to a side of at least 224 pixels."""
        explained = explain_batch(self._subject, images, "predicted", (self._method,))
        (maps,) = explained.maps.values()
        return [
            Image.fromarray(map_overlay(image, values, self._scale)) for image, values in zip(images, maps, strict=True)
        ]
