"""Peak memory of a command on few and on many images: processes of their own, on simulated images, one model.

The model has random weights: memory does not depend on what they have learnt. The peak is the largest resident set
the kernel saw.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from rich.table import Table

from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model
from lightning_modules.simulated.generator import CLASSES, simulate

__all__ = ["measure", "peak"]


def peak(words: Sequence[str]) -> tuple[float, float]:
    """Largest resident set in MiB, and seconds, of one silent run of `python WORDS`.

    Raises:
        SystemExit: it failed.
    """
    started = time.monotonic()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [sys.executable, *words], os.environ, file_actions=silent)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"python {' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024, time.monotonic() - started


def measure(
    folder: Path, command: Callable[[Path, Path, int], Sequence[str]], counts: Sequence[int], side: int, table: Table
) -> list[float]:
    """Peak MiB of a command on each count of images; a row of the table each.

    Args:
        folder: where images and model are written.
        command: words behind `python` for (images, model, count).
        counts: of images.
        side: height and width of the images in pixels.
        table: of the columns images, peak MiB, seconds.
    """
    size = (side, side)
    net = backbones.build("efficientnet_lite0", classes=len(CLASSES), size=size, weights="none")
    card = ModelCard("efficientnet_lite0", tuple(CLASSES), size, "stretch", 65_535, 50_000_000, 0, {})
    save_model(folder / "model", TrainedModel(net, card))
    measured = []
    for count in counts:
        images = folder / str(count)
        images.mkdir()
        for number, one in enumerate(simulate(count, size, seed=0)):
            Image.fromarray(one.pixels).save(images / f"{number:05d}.png")
        mebibytes, seconds = peak(command(images, folder / "model", count))
        measured.append(mebibytes)
        table.add_row(f"{count:,}", f"{mebibytes:.0f}", f"{seconds:.0f}")
    return measured
