"""Split gradients of wide depthwise kernels, and fused optimizers: `python -m benchmarks.depthwise_step`.

Training steps of EfficientNet-Lite0 with Adam, batches of 32, one thread, by image size and freeze depth: as a trial
trains, and with PyTorch's own gradient and optimizer loop. The two are timed in turn; a row is the ratio of their
medians. Rows go to benchmarks/results/depthwise_step.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from benchmarks.results_file import write_rows
from lightning_modules.networks import backbones
from lightning_modules.networks.freezing import freeze
from lightning_modules.training.optimizers import build_optimizer

CASES = ((96, (0, 2, 4)), (224, (2, 4, 5)))
ROUNDS = 7


def training_step(size: int, depth: int, *, plain: bool) -> Callable[[], None]:
    """A step of training, as a trial takes it or as PyTorch alone does."""
    unchanged = patch.object(backbones, "split_wide_gradients") if plain else nullcontext()
    with unchanged:
        net = backbones.build("efficientnet_lite0", classes=6, size=(size, size))
    freeze(net, depth)
    net.train()
    with torch.no_grad():
        images = torch.rand(32, 3, size, size).contiguous(memory_format=torch.channels_last)
        activations = net.prefix(images, depth).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(32) % 6
    if plain:
        optimizer: torch.optim.Optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-4)
    else:
        optimizer = build_optimizer("adam", net.parameters(), lr_factor=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net.suffix(activations, depth), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def main() -> int:
    """Measure, print, write."""
    torch.set_num_threads(1)
    table, rows = Table("size", "freeze depth", "PyTorch's own", "a trial's", "ratio"), []
    for size, depths in CASES:
        for depth in depths:
            steps = [training_step(size, depth, plain=plain) for plain in (True, False)]
            seconds: tuple[list[float], list[float]] = ([], [])
            for number in range(ROUNDS + 1):
                for step, found in zip(steps, seconds, strict=True):
                    began = time.perf_counter()
                    step()
                    if number:  # the first is warm-up
                        found.append(time.perf_counter() - began)
            own, ours = map(statistics.median, seconds)
            table.add_row(str(size), str(depth), f"{own * 1000:.0f} ms", f"{ours * 1000:.0f} ms", f"{own / ours:.2f}")
            what = f"step at {size} px, freeze depth {depth}: PyTorch's own against a trial's"
            ratio = round(own / ours, 3)
            rows.append({"what": what, "value": ratio, "unit": "ratio", "goal": None, "better": "higher"})
    Console().print(table)
    write_rows("depthwise_step", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
