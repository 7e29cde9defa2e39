"""Where the defects of an image are, by a table of boxes or of masks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lightning_modules.errors import InputError, printable
from lightning_modules.images.mask_file import defect_pixels
from lightning_modules.images.reading import DEFAULT_MAX_PIXELS
from lightning_modules.images.tables import table_path
from search.command_line.csv_table import iterate_rows

if TYPE_CHECKING:
    from torch import Tensor

    from explain.geometry import Box

_BEYOND = 0.05

__all__ = ["Annotation", "image_shape", "read_boxes", "read_masks"]


@dataclass(frozen=True)
class Annotation:
    """What a table says about one image.

    Attributes:
        boxes: (x_min, y_min, x_max, y_max) in original pixels.
        masks: mask images (`defect_pixels`), which are united.
        label: true class, if the table has it.
    """

    boxes: list[Box] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    label: str | None = None

    @property
    def empty(self) -> bool:
        """Whether the table names the image without saying where a defect is."""
        return not self.boxes and not self.masks

    def truth(self, path: Path, size: tuple[int, int], fit: str) -> Tensor:
        """Mask of the defect in the frame the network sees of this image, bool (H, W).

        Args:
            size: height and width the network takes.
            fit: stretch, pad or crop.

        Raises:
            InputError: boxes outside the image, a mask that is unreadable or of another size.
        """
        # Not before: a table that cannot be used is refused without torch.
        import torch

        from explain.geometry import frame_of
        from explain.measures import boxes_to_masks

        height, width = shape = image_shape(path)
        frame = frame_of(shape, size, fit)
        if self.masks:
            defect = torch.zeros(shape, dtype=torch.bool)
            for mask in self.masks:
                pixels = defect_pixels(mask, max_pixels=max(DEFAULT_MAX_PIXELS, height * width))
                if pixels.shape != shape:
                    got = f"{pixels.shape[1]} x {pixels.shape[0]}"
                    raise InputError(f"mask {printable(mask)} is {got} pixels, the image {width} x {height}")
                defect |= torch.from_numpy(pixels)
            return frame.mask(defect)
        for box in self.boxes:
            # Tools draw a little beyond the edge; farther out a box is of another image, or of another size of it.
            beyond = max(-box[0] / width, -box[1] / height, box[2] / width - 1, box[3] / height - 1)
            if beyond > _BEYOND and beyond * min(height, width) > 1:
                raise InputError(
                    f"box {box} lies outside the image of {width} x {height} pixels; boxes are xmin,ymin,xmax,ymax in "
                    "pixels of the image file"
                )
        return boxes_to_masks([frame.boxes(self.boxes)], (frame.height, frame.width))[0]


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
                f"{printable(table)} row {number}: a box must be numbers with xmin < xmax and ymin < ymax, corners, "
                f"not width and height; got {values}"
            )
        path = table_path(table.parent, row["path"]).resolve()
        found.setdefault(path, Annotation(label=row.get("label") or None)).boxes.append(box)
    if all(max(box) <= 1 for note in found.values() for box in note.boxes):
        raise InputError(f"{printable(table)}: boxes must be in pixels, all of these lie in 0..1")
    return found


def read_masks(table: Path) -> dict[Path, Annotation]:
    """Annotations by resolved path of the image, from a table path,mask[,label]; an empty mask is an image without.

    An image with several masks has several rows.

    Raises:
        InputError: no such file, missing columns.
    """
    found: dict[Path, Annotation] = {}
    for _, row in iterate_rows(table, "masks", ("mask",), ("label",)):
        path = table_path(table.parent, row["path"]).resolve()
        note = found.setdefault(path, Annotation(label=row.get("label") or None))
        note.masks.extend([table_path(table.parent, row["mask"]).resolve()] if row["mask"] else [])
    return found
