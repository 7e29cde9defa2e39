"""Seeded views of images: the finite augmentation that inspection geometry allows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

__all__ = ["ViewParameters", "Views", "apply_views"]

_WHITE: Final = 255.0
_DRAWS: Final = 5
_ORIENTATIONS: Final = ("upright", "any")
_MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, eq=False)
class ViewParameters:
    """How images are shown; six tensors of one shape.

    Attributes:
        flip: bool; mirrored left to right.
        dy: float32; downward shift as a fraction of the height.
        dx: float32; shift to the right as a fraction of the width, after the flip.
        gain: float32; factor on brightness.
        offset: float32; added to brightness afterwards, as a fraction of white.
        turn: int64; quarter turns against the clock, 0..3, after flip and shift.
    """

    flip: Tensor
    dy: Tensor
    dx: Tensor
    gain: Tensor
    offset: Tensor
    turn: Tensor

    def select(self, rows: Tensor, views: Tensor | int) -> ViewParameters:
        """Of parameters of shape (N, count + 1), those at (B,) int64 rows and view numbers (or one number for all)."""
        return ViewParameters(*(part[rows, views] for part in self._parts()))

    def to(self, device: torch.device | str) -> ViewParameters:
        return ViewParameters(*(part.to(device) for part in self._parts()))

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.flip, self.dy, self.dx, self.gain, self.offset, self.turn


@dataclass(frozen=True)
class Views:
    """A finite set of views of every image: the plain one and `count` seeded others.

    A view depends on (seed, digest of the image, number of the view) alone: it is the same at every freeze depth, in
    every process and whatever else is in the batch, so that its activations can be kept. Without `orientation="any"`
    there are no rotations and no vertical flips: depth has a direction in a B-scan, and rolling has one on a strip.

    Attributes:
        count: Views beside the plain one, at least 0.
        flip: Whether views may be mirrored left to right (each is with probability 1/2).
        shift: Largest shift, fraction of the side, in [0, 0.5]; uniform in [-shift, shift] along each axis.
        gain: Largest relative change of contrast, in [0, 1); the factor is uniform in [1 - gain, 1 + gain].
        offset: Largest change of brightness, fraction of white, in [0, 1); uniform in [-offset, offset].
        seed: In 0..2^63 - 1.
        orientation: "upright", or "any" where an image may lie in any of eight ways: views are also turned by 0, 90,
            180 or 270 degrees (by 0 or 180 where height and width differ), each as likely. With a flip that is a
            vertical flip too.

    Raises:
        TypeError: An attribute is of the wrong kind.
        ValueError: An attribute is out of range.
    """

    count: int = 4
    flip: bool = True
    shift: float = 0.05
    gain: float = 0.1
    offset: float = 0.05
    seed: int = 0
    orientation: str = "upright"

    def __post_init__(self) -> None:
        for name, whole, largest in (("count", self.count, 10_000), ("seed", self.seed, _MAX_SEED)):
            if isinstance(whole, bool) or not isinstance(whole, int):
                raise TypeError(f"{name} must be an int, got {whole!r}")
            if not 0 <= whole <= largest:
                raise ValueError(f"{name} must be in 0..{largest}, got {whole}")
        if not isinstance(self.flip, bool):
            raise TypeError(f"flip must be a bool, got {self.flip!r}")
        if self.orientation not in _ORIENTATIONS:
            raise ValueError(f"orientation must be one of {', '.join(_ORIENTATIONS)}, got {self.orientation!r}")
        for name, real, largest_real in (
            ("shift", self.shift, 0.5),
            ("gain", self.gain, 1.0),
            ("offset", self.offset, 1.0),
        ):
            if isinstance(real, bool) or not isinstance(real, int | float):
                raise TypeError(f"{name} must be a number, got {real!r}")
            below = real <= largest_real if name == "shift" else real < largest_real
            if not (math.isfinite(real) and real >= 0 and below):
                bracket = "]" if name == "shift" else ")"
                raise ValueError(f"{name} must be in [0, {largest_real:g}{bracket}, got {real}")

    def parameters(self, digests: Sequence[str]) -> ViewParameters:
        """Of N images, by their digests of decoded pixels: tensors (N, count + 1); column 0 is the plain image."""
        draws = np.zeros((len(digests), self.count + 1, _DRAWS), dtype=np.float64)
        for row, digest in enumerate(digests):
            for view in range(1, self.count + 1):
                key = hashlib.blake2b(f"{self.seed}:{digest}:{view}".encode(), digest_size=4 * _DRAWS)
                draws[row, view] = np.frombuffer(key.digest(), dtype="<u4")
        draws = draws / 2**31 - 1.0
        draws[:, 0] = 0.0
        flip = torch.from_numpy(draws[:, :, 0] > 0) if self.flip else torch.zeros(draws.shape[:2], dtype=torch.bool)
        centred = torch.from_numpy(draws[:, :, 1:]).float()
        return ViewParameters(
            flip,
            centred[:, :, 0] * self.shift,
            centred[:, :, 1] * self.shift,
            1.0 + centred[:, :, 2] * self.gain,
            centred[:, :, 3] * self.offset,
            self._turns(digests),
        )

    def _turns(self, digests: Sequence[str]) -> Tensor:
        """(N, count + 1) quarter turns; from draws of their own, so that all else of a view is what it is upright."""
        turns = torch.zeros((len(digests), self.count + 1), dtype=torch.int64)
        if self.orientation == "any":
            for row, digest in enumerate(digests):
                for view in range(1, self.count + 1):
                    key = hashlib.blake2b(f"{self.seed}:{digest}:{view}:turn".encode(), digest_size=1)
                    turns[row, view] = key.digest()[0] % 4
        return turns


def apply_views(pixels: Tensor, parameters: ViewParameters) -> Tensor:
    """Images as the network sees them, before its normalisation.

    Shifts are whole pixels (rounded) and repeat the edge; brightness is clamp(x / 255 * gain + offset, 0, 1). Where
    H and W differ, an odd number of quarter turns is one less.

    Args:
        pixels: uint8 (B, H, W, C), C = 1 or 3.
        parameters: Of these B images, each of shape (B,), on the same device.

    Returns:
        float32 (B, 3, H, W) in [0, 1], channels_last; grey is repeated.
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels must be uint8, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(f"pixels must have shape (B, H, W, 1 or 3), got {tuple(pixels.shape)}")
    batch, height, width, _ = pixels.shape
    if parameters.flip.shape != (batch,):
        raise ValueError(f"parameters must have shape ({batch},), got {tuple(parameters.flip.shape)}")
    down = torch.round(parameters.dy * height).long()
    right = torch.round(parameters.dx * width).long()
    if bool((parameters.flip.any() | down.any() | right.any()).item()):
        pixels = _moved(pixels, parameters.flip, down, right)
    shape = (batch, 1, 1, 1)
    pixels = _turned(pixels, parameters.turn)
    scaled = torch.addcmul(
        parameters.offset.view(shape), pixels.float(), (parameters.gain / _WHITE).view(shape)
    ).clamp_(0.0, 1.0)
    # (B, H, W, 3) in memory is what channels_last means.
    return scaled.expand(batch, height, width, 3).contiguous().permute(0, 3, 1, 2)


def _moved(pixels: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    batch, height, width, channels = pixels.shape
    device = pixels.device
    y = (torch.arange(height, device=device) - down[:, None]).clamp_(0, height - 1)
    x = (torch.arange(width, device=device) - right[:, None]).clamp_(0, width - 1)
    x = torch.where(flip[:, None], width - 1 - x, x)
    rows = torch.arange(batch, device=device)[:, None] * height + y
    index = (rows[:, :, None] * width + x[:, None, :]).view(-1)
    return pixels.reshape(-1, channels).index_select(0, index).view(batch, height, width, channels)


def _turned(pixels: Tensor, turn: Tensor) -> Tensor:
    _, height, width, _ = pixels.shape
    if height != width:
        turn = turn - turn % 2
    if not bool(turn.any()):
        return pixels
    turned = pixels.clone()
    for quarters in (1, 2, 3):
        chosen = (turn == quarters).nonzero()[:, 0]
        if len(chosen):
            turned[chosen] = torch.rot90(pixels[chosen], quarters, (1, 2))
    return turned
