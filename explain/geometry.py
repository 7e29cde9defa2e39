"""Where a pixel of the original image lies in the image the network sees, and in a map of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Frame", "frame_of"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """The network's field of view at about the resolution of the original image.

    A map is brought to (height, width) of the frame by plain up-sampling, and truth in original pixels is drawn into
    it by `boxes` and `mask`, so neither is compared at a coarser resolution than it has. What padding adds belongs to
    the frame, what cropping removes does not.

    Attributes:
        shape: height and width of the original image, in pixels.
        height: of the frame, in frame pixels.
        width: of the frame, in frame pixels.
        across: (a, b): original x lies at a x + b in the frame.
        down: (a, b): original y lies at a y + b.
    """

    shape: tuple[int, int]
    height: int
    width: int
    across: tuple[float, float]
    down: tuple[float, float]

    def boxes(self, boxes: list[Box]) -> list[Box]:
        """Boxes (x_min, y_min, x_max, y_max) in frame pixels; those outside the frame are left out."""
        (a, b), (c, d) = self.across, self.down
        placed = [(a * x0 + b, c * y0 + d, a * x1 + b, c * y1 + d) for x0, y0, x1, y1 in boxes]
        return [p for p in placed if p[0] < self.width and p[1] < self.height and p[2] > 0 and p[3] > 0]

    def mask(self, mask: Tensor) -> Tensor:
        """A mask of the original image, bool (H, W), in the frame, bool (height, width).

        Where the frame is coarser, a frame pixel is true if any original pixel within reach of it is: a hair crack
        must not vanish.
        """
        if tuple(mask.shape) != self.shape:
            raise ValueError(f"mask must have the image's size {self.shape}, got {tuple(mask.shape)}")
        reach = [max(1, round(1 / scale)) for scale in (self.down[0], self.across[0])]
        source = mask
        if max(reach) > 1:
            padded = functional.pad(
                mask[None, None].float(),
                ((reach[1] - 1) // 2, reach[1] // 2, (reach[0] - 1) // 2, reach[0] // 2),
            )
            source = functional.max_pool2d(padded, reach, stride=1)[0, 0] > 0
        rows = ((torch.arange(self.height) + 0.5 - self.down[1]) / self.down[0]).floor().long()
        columns = ((torch.arange(self.width) + 0.5 - self.across[1]) / self.across[0]).floor().long()
        inside = ((rows >= 0) & (rows < self.shape[0]))[:, None] & ((columns >= 0) & (columns < self.shape[1]))
        taken = source[rows.clamp(0, self.shape[0] - 1)][:, columns.clamp(0, self.shape[1] - 1)]
        return taken & inside


def frame_of(shape: tuple[int, int], size: tuple[int, int], fit: str, limit: int = 512) -> Frame:
    """The frame of an image that is fitted to the network's size.

    Args:
        shape: height and width of the original image, in pixels.
        size: height and width the network takes.
        fit: "stretch" ignores the aspect ratio; "crop" keeps it and cuts the longer side, centred; "pad" keeps it and
            fills both ends of the shorter side, the odd pixel at the far end.
        limit: longest side of the frame, unless the network's own is longer.

    Raises:
        ValueError: unknown `fit`.
    """
    rows, columns = shape
    height, width = size
    if fit == "stretch":
        down, across = (height / rows, 0.0), (width / columns, 0.0)
    elif fit == "crop":
        scale = max(height / rows, width / columns)
        down = (scale, (height - scale * rows) / 2)
        across = (scale, (width - scale * columns) / 2)
    elif fit == "pad":
        scale = min(height / rows, width / columns)
        inner_h = max(1, min(height, round(rows * scale)))
        inner_w = max(1, min(width, round(columns * scale)))
        down = (inner_h / rows, float((height - inner_h) // 2))
        across = (inner_w / columns, float((width - inner_w) // 2))
    else:
        raise ValueError(f"fit must be one of stretch, crop, pad, got {fit!r}")
    # As many frame pixels as the original has, within the limit, but no fewer than the network's own.
    most = max(limit, height, width)
    frame_h = min(max(height, round(height / down[0])), most)
    frame_w = min(max(width, round(width / across[0])), most)
    up, along = frame_h / height, frame_w / width
    return Frame(
        shape, frame_h, frame_w, across=(across[0] * along, across[1] * along), down=(down[0] * up, down[1] * up)
    )
