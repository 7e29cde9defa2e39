"""Images as they were taken, with a network's maps over them where it saw them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from explain.attribution import upsample
from explain.overlay import share_overlay
from lightning_modules.images.reading import Fit, field_of_view

__all__ = ["Original", "original_overlay"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Original:
    """A picture as it was taken, and how it was brought to the network's size.

    Attributes:
        pixels: uint8 of shape (H, W, 1) or (H, W, 3).
        size: height and width of the network's input.
        fit: as `fit_image` takes it.
    """

    pixels: Pixels
    size: tuple[int, int]
    fit: Fit

    def shown(self, side: int) -> Pixels:
        """RGB, (h, w, 3), the longer side of `side` pixels; the aspect ratio is kept."""
        rows, columns = self.pixels.shape[:2]
        share = side / max(rows, columns)
        width, height = max(1, round(columns * share)), max(1, round(rows * share))
        grey = self.pixels.shape[2] == 1
        picture = Image.fromarray(self.pixels[:, :, 0] if grey else self.pixels).convert("RGB")
        return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.uint8)


def original_overlay(original: Original, values: Tensor, side: int) -> Pixels:
    """A map over the original picture, (h, w, 3): what the network did not see of it has none.

    Args:
        values: (h', w'), non-negative, over the network's whole input.
        side: of the longer side, in pixels.
    """
    pixels = original.shown(side)
    share = upsample(values[None].float() / values.max().clamp_min(1e-30), original.size)[0]
    sides = (original.pixels.shape[0], original.pixels.shape[1])
    (top, left, bottom, right), (y, x, inner_h, inner_w) = field_of_view(sides, original.size, original.fit)
    inner = share[None, None, y : y + inner_h, x : x + inner_w]
    scale = (pixels.shape[0] / sides[0], pixels.shape[1] / sides[1])
    rows = slice(math.floor(top * scale[0]), math.ceil(bottom * scale[0]))
    columns = slice(math.floor(left * scale[1]), math.ceil(right * scale[1]))
    drawn = np.zeros(pixels.shape[:2], dtype=np.float32)
    seen = drawn[rows, columns]
    seen[:] = functional.interpolate(inner, seen.shape, mode="bilinear", align_corners=False)[0, 0].cpu().numpy()
    return share_overlay(pixels, drawn.clip(0, 1))
