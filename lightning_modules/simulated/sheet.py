"""Contact sheet of the simulated set: a row a class, a column a month, and one defect through all months."""

from __future__ import annotations

import io
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.errors import printable
from lightning_modules.simulated.defects import draw
from lightning_modules.simulated.generator import SimulatedImage, simulate
from lightning_modules.simulated.months import CLASSES, MONTHS, Plate, conditions
from lightning_modules.simulated.physics import acquire

__all__ = ["contact_sheet"]


def contact_sheet(file: Path, seed: int = 0) -> None:
    """Write the contact sheet to ``file``, a PNG; a file of that name is replaced.

    Rows 1 to 11: the first image of each class in each month; last column: the true extent of the defect beside it.
    Last row: one island, one plate and one draw of all noise, under the conditions of each month.

    `seed` is that of the set and of the island.

    Raises:
        ValueError: ``file`` does not end in .png.
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder.
    """
    if file.suffix.lower() != ".png":
        raise ValueError(f"the contact sheet's file must end in .png, got {printable(file)}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"the folder that holds the contact sheet must exist, got {printable(file)}")
    if file.is_dir():
        raise IsADirectoryError(f"the contact sheet must be a file, got the folder {printable(file)}")
    first: dict[tuple[str, str], SimulatedImage] = {}
    for image in simulate(1300, seed=seed):
        first.setdefault((image.label, image.month), image)

    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    plate = Plate(thickness=39.0, attenuation=1.0, grain=0.0, gain=0.0)
    reflectors = draw(rng, "island", plate.thickness)
    drift = [
        acquire(reflectors, plate, conditions(month), (96, 96), np.random.default_rng([seed, 4])) for month in MONTHS
    ]

    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(14.6, 12.4), dpi=100)
        axes = figure.subplots(
            len(CLASSES) + 1,
            len(MONTHS) + 1,
            gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0.075, "right": 0.998, "top": 0.98, "bottom": 0.005},
        )
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for column, name in enumerate((*MONTHS, "extent of 2020-01")):
            axes[0, column].set_title(name, fontsize=7, pad=2)
        for row, name in enumerate((*CLASSES, "one island\nin 13 months")):
            axes[row, 0].set_ylabel(
                name.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=8, labelpad=4
            )
        for row, label in enumerate(CLASSES):
            shown = [first.get((label, month)) for month in MONTHS]
            for axis, found in zip(axes[row], shown, strict=False):
                if found is not None:
                    axis.imshow(found.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if shown[-1] is not None:
                axes[row, -1].imshow(shown[-1].mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for axis, pixels in zip(axes[-1], drift, strict=False):
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes[-1, -1].set_visible(False)
        partial = file.with_name(f".{file.stem}.partial-{os.getpid()}.png")
        try:
            figure.savefig(colour := io.BytesIO(), format="png")
            Image.open(colour).convert("L").save(partial, optimize=True)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
