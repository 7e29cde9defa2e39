"""Maps drawn over their images, as pixels: the same in figures and on the page.

Brightness carries the map: the image is dimmed and grey, colours rise evenly in luminance, and a line marks half of
the maximum (left out where it is so ragged that it would hide the map), so that a grey print reads the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from explain.attribution import upsample
from explain.superpixels import SuperpixelExplanation

__all__ = [
    "COLOURS",
    "SIGNED_COLOURS",
    "as_pixels",
    "map_overlay",
    "share_overlay",
    "superpixel_overlay",
    "truth_overlay",
]

COLOURS = "inferno"
"""Colour map of maps; perceptually uniform, luminance rising from black."""

SIGNED_COLOURS = "cividis"
"""Colour map of super-pixels: dark speaks against the class, grey is neutral, bright speaks for it."""

Pixels = NDArray[np.uint8]

_DIMMED = 0.8
_RAGGED = 0.1


def as_pixels(image: Tensor, scale: int = 1) -> Pixels:
    """An image (3, H, W) in [0, 1] as uint8 (H, W, 3), each pixel repeated `scale` times."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))


def truth_overlay(image: Tensor, truth: Tensor, scale: int = 1) -> Pixels:
    """An image with a line around the true extent of its defect.

    `image` is (3, H, W) in [0, 1], `truth` a bool mask (h, w) of the same field of view at any resolution; uint8,
    (scale H, scale W, 3).
    """
    size = (image.shape[1] * scale, image.shape[2] * scale)
    inside = functional.interpolate(truth[None, None].float(), size, mode="nearest")[0, 0].numpy() > 0
    return _outlined(as_pixels(image, scale), inside)


def map_overlay(image: Tensor, values: Tensor, scale: int = 1) -> Pixels:
    """A map over its image, with a line at half of the maximum.

    `image` is (3, H, W) in [0, 1], `values` a non-negative map (h, w), scaled to its own maximum; uint8,
    (scale H, scale W, 3).
    """
    height, width = image.shape[1] * scale, image.shape[2] * scale
    share = upsample(values[None].float() / values.max().clamp_min(1e-30), (height, width))[0].numpy()
    return share_overlay(as_pixels(image, scale), share)


def share_overlay(pixels: Pixels, share: NDArray[Any]) -> Pixels:
    """A map over a picture of the same size, with a line at half of the maximum; uint8, (H, W, 3).

    `pixels` is uint8 (H, W, 3), `share` the map as a share of its maximum, (H, W) in [0, 1].
    """
    drawn = _blend(pixels, colormaps[COLOURS](share)[..., :3], 0.35 + 0.45 * share)
    return _outlined(drawn, share >= 0.5) if share.max() > 0 else drawn


def superpixel_overlay(image: Tensor, explanation: SuperpixelExplanation, scale: int = 1) -> Pixels:
    """Super-pixels over their image, uint8 (scale H, scale W, 3): bright speak for the class, dark against it."""
    signed = explanation.map / explanation.map.abs().max().clamp_min(1e-30)
    share = ((signed + 1) / 2).numpy().repeat(scale, axis=0).repeat(scale, axis=1)
    labels = explanation.segments.numpy().repeat(scale, axis=0).repeat(scale, axis=1)
    drawn = _blend(as_pixels(image, scale), colormaps[SIGNED_COLOURS](share)[..., :3], 0.25 + 1.1 * abs(share - 0.5))
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    drawn[edge] = drawn[edge] // 2 + 40
    return drawn


def _blend(pixels: Pixels, colours: NDArray[np.float64], strength: NDArray[Any]) -> Pixels:
    grey = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    mixed = (1 - strength[..., None]) * (_DIMMED * grey[..., None]) + strength[..., None] * colours
    drawn: Pixels = (mixed * 255).round().astype(np.uint8)
    return drawn


def _outlined(pixels: Pixels, inside: NDArray[np.bool_]) -> Pixels:
    """White line along the inner rim of a region, black along its outer rim, unless they would hide the picture."""
    padded = np.pad(inside, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    inner = inside & ~np.logical_and.reduce(neighbours)
    if inner.mean() > _RAGGED:
        return pixels
    drawn = pixels.copy()
    drawn[~inside & np.logical_or.reduce(neighbours)] = 0
    drawn[inner] = 255
    return drawn
