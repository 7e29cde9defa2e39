"""Peak memory of `python -m explain` on 10,000 images, as a ratio to that on 100.

Run from the repository root: `python benchmarks/explain_memory.py`. Both runs are processes of their own on simulated
images with one model (random weights: memory does not depend on what they have learnt); the peak is the largest
resident set the kernel saw.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from lightning_modules import backbones
from lightning_modules.model_file import ModelCard, TrainedModel, save_model
from lightning_modules.simulated import CLASSES, simulate

RESULTS = Path(__file__).parent / "results" / "explain_memory.json"
GOAL = 1.05


def peak(images: Path, model: Path, out: Path) -> tuple[float, float]:
    """Largest resident set in MiB, and seconds, of one run of the command."""
    started = time.monotonic()
    words = [sys.executable, "-m", "explain", f"images={images}", f"model={model}", f"out={out}"]
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, words, os.environ, file_actions=silent)
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024, time.monotonic() - started


def main() -> int:
    """Measure, print the table, write the row; exit status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=100, help="images of the short run")
    parser.add_argument("--many", type=int, default=10_000, help="images of the long run")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    options = parser.parse_args()
    size = (options.size, options.size)
    table = Table(title=f"python -m explain, EfficientNet-Lite0, {options.size} px, eight blocks")
    for column in ("images", "peak MiB", "seconds"):
        table.add_column(column, justify="right")
    measured = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        net = backbones.build("efficientnet_lite0", classes=len(CLASSES), size=size, weights="none")
        card = ModelCard("efficientnet_lite0", tuple(CLASSES), size, "stretch", 65_535, 50_000_000, 0, {})
        save_model(folder / "model", TrainedModel(net, card))
        for count in (options.few, options.many):
            images = folder / str(count)
            images.mkdir()
            for number, one in enumerate(simulate(count, size, seed=0)):
                Image.fromarray(one.pixels).save(images / f"{number:05d}.png")
            mebibytes, seconds = peak(images, folder / "model", folder / f"out{count}")
            measured.append(mebibytes)
            table.add_row(str(count), f"{mebibytes:.0f}", f"{seconds:.0f}")
    ratio = measured[1] / measured[0]
    Console().print(table)
    Console().print(f"ratio {ratio:.3f}, goal <= {GOAL:.2f}")
    what = f"peak memory of explaining {options.many} images / of {options.few}"
    row = {"what": what, "value": round(ratio, 3), "unit": "ratio", "goal": GOAL, "better": "lower"}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([row], indent=2) + "\n")
    return int(ratio > GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
