"""What checking a file costs beside what is done with it: `python -m benchmarks.digests`.

1,800 grey images of 200 x 200 pixels (as NEU) at 128 x 128: the first call decodes, the later ones check the store of
pixels. A shard of activations at the fourth cut of EfficientNet-Lite0: written, checked, and read once in batches of
32. Medians of five. Rows go to benchmarks/results/digests.json.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results_file import write_rows
from lightning_modules.array_file import map_array, write_array
from lightning_modules.images.store import load_images
from lightning_modules.whole_file import check_digest

IMAGES, SIDE, SIZE = 1800, 200, (128, 128)
SHARD = (1800, 12, 12, 40)  # rows, height, width, channels of float16


def seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Median of some calls."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Measure, print, write."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="thawline-") as folder:
        root, cache = Path(folder) / "images", Path(folder) / "cache"
        for number in range(IMAGES):
            place = root / "ab"[number % 2] / f"{number:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            smooth = rng.normal(128, 40, (SIDE // 8, SIDE // 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(smooth).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place)

        def load() -> None:
            load_images("folder", root, size=SIZE, cache=cache)

        decode = seconds(load, 1)
        again = seconds(load)
        store = next((cache / "images").glob("*/pixels.npy"))
        check = seconds(lambda: check_digest(store))
        shard = Path(folder) / "cut4-0.npy"
        values = rng.integers(-(2**15), 2**15, SHARD, np.int16)
        parts = [values[start : start + 32] for start in range(0, len(values), 32)]
        write = seconds(lambda: write_array(shard, parts, len(values)))
        check_shard = seconds(lambda: check_digest(shard))
        stored, order = map_array(shard), rng.permutation(len(values))

        def read() -> None:
            for start in range(0, len(order), 32):
                stored[np.sort(order[start : start + 32])].view(np.float16).astype(np.float32)

        one_pass = seconds(read)
        rows = [
            ("digest of the pixels / decoding them", check / decode, "ratio", 0.05),
            ("digest of the pixels / opening the set again", check / again, "ratio", 0.25),
            ("digest of the pixels", check / store.stat().st_size * 1e9, "s/GB", None),
            ("digest of a shard / writing it", check_shard / write, "ratio", None),
            ("digest of a shard / reading it once in batches", check_shard / one_pass, "ratio", None),
            ("digest of a shard", 1e3 * check_shard / len(values), "ms/image", None),
        ]
        for what, value, unit, _ in rows:
            print(f"{what}: {value:.3f} {unit}")
        write_rows("digests", [
            {"what": what, "value": round(value, 4), "unit": unit, "goal": goal, "better": "lower"}
            for what, value, unit, goal in rows
        ])  # fmt: skip


if __name__ == "__main__":
    main()
