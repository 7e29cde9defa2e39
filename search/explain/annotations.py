"""Where the defects of an image are, by a table of boxes or of masks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_modules.errors import InputError, printable
from lightning_modules.images.tables import table_path
from search.command_line.csv_table import iterate_rows

if TYPE_CHECKING:
    from torch import Tensor

    from explain.geometry import Box

__all__ = ["Annotation", "image_shape", "read_boxes", "read_masks"]


@dataclass(frozen=True)
class Annotation:
    """What a table says about one image.

    Attributes:
        boxes: (x_min, y_min, x_max, y_max) in original pixels.
        mask: mask image, white on the defect.
        label: true class, if the table has it.
    """

    boxes: list[Box] = field(default_factory=list)
    mask: Path | None = None
    label: str | None = None

    @property
    def empty(self) -> bool:
        """Whether the table names the image without saying where a defect is."""
        return not self.boxes and self.mask is None

    def truth(self, path: Path, size: tuple[int, int], fit: str) -> Tensor:
        """Mask of the defect in the frame the network sees of this image, bool (H, W).

        Args:
            size: height and width the network takes.
            fit: stretch, pad or crop.

        Raises:
            InputError: boxes outside the image, a mask that is unreadable or of another size.
        """
        # Not before: a table that cannot be used is refused without torch.
        from explain.geometry import frame_of
        from explain.measures import boxes_to_masks

        shape = image_shape(path)
        frame = frame_of(shape, size, fit)
        if self.mask is not None:
            return frame.mask(self._read_mask(self.mask, shape))
        for box in self.boxes:
            if box[0] >= shape[1] or box[1] >= shape[0] or box[2] <= 0 or box[3] <= 0:
                raise InputError(f"box {box} lies outside the image of {shape[1]} x {shape[0]} pixels")
        return boxes_to_masks([frame.boxes(self.boxes)], (frame.height, frame.width))[0]

    @staticmethod
    def _read_mask(path: Path, shape: tuple[int, int]) -> Tensor:
        import numpy as np
        import torch

        try:
            with Image.open(path) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("L"))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise InputError(f"mask {printable(path)} cannot be read ({type(error).__name__})") from error
        if pixels.shape != shape:
            got = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise InputError(f"mask {printable(path)} is {got} pixels, the image {shape[1]} x {shape[0]}")
        # Masks are written with 1 or with 255 for the defect; JPEG masks are grey at their edges.
        return torch.from_numpy(pixels > (0 if pixels.max() <= 1 else 127))


def image_shape(path: Path) -> tuple[int, int]:
    """Height and width of an image file as it is shown, from its header alone."""
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def read_boxes(table: Path) -> dict[Path, Annotation]:
    """Annotations by resolved path of the image, from a table path,xmin,ymin,xmax,ymax[,label].

    Paths are relative to the folder of the table; an image with several defects has several rows.

    Raises:
        InputError: no such file, missing columns, a value that is no box (with its row).
    """
    found: dict[Path, Annotation] = {}
    for number, row in iterate_rows(table, "boxes", ("xmin", "ymin", "xmax", "ymax"), ("label",)):
        try:
            box = (float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"]))
        except ValueError:
            box = (math.nan,) * 4
        if not (all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]):
            values = ",".join(row[c] for c in ("xmin", "ymin", "xmax", "ymax"))
            raise InputError(
                f"{printable(table)} row {number}: a box must be numbers with xmin < xmax and ymin < ymax, got {values}"
            )
        path = table_path(table.parent, row["path"]).resolve()
        found.setdefault(path, Annotation(label=row.get("label") or None)).boxes.append(box)
    return found


def read_masks(table: Path) -> dict[Path, Annotation]:
    """Annotations by resolved path of the image, from a table path,mask[,label]; an empty mask is an image without.

    Raises:
        InputError: no such file, missing columns.
    """
    return {
        table_path(table.parent, row["path"]).resolve(): Annotation(
            mask=table_path(table.parent, row["mask"]).resolve() if row["mask"] else None,
            label=row.get("label") or None,
        )
        for _, row in iterate_rows(table, "masks", ("mask",), ("label",))
    }
