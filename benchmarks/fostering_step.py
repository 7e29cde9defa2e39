"""A training step with CAM fostering against a plain one: `python -m benchmarks.fostering_step [NETWORK ...] [batch=N]`

Forward, loss, backward and optimizer step of a whole network (nothing frozen, random weights, Adam) on a batch at
192 x 192 pixels, with beta 1 and without, through the same `Classifier.training_step` that trials use. The two are
timed in turn on one thread, and the ratio is the median of the rounds' own ratios; on a CPU, seconds are those of the
process, so that whoever else uses the machine hardly counts. Rows go to benchmarks/results/fostering_step.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results_file import read_rows, write_rows
from lightning_modules.networks.backbones import build
from lightning_modules.networks.freezing import block_flops
from lightning_modules.training.allocator import keep_freed_memory
from lightning_modules.training.classifier import Classifier
from lightning_modules.training.fostering import Fostering, target_block

SIZE, BATCH, CLASSES, ROUNDS = (192, 192), 32, 20, 7
GOAL = 1.05
# Network -> target blocks; the last is None. Only the last conv has a goal: behind an earlier block the rest of the
# network is run and differentiated once more.
CASES: dict[str, tuple[str | None, ...]] = {
    "resnet50": (None,),
    "efficientnet_lite0": (None, "stage6", "stage4"),
    "vgg16": (None,),
}
Step = Callable[[], None]


def stepper(
    name: str, block: str | None, beta: float, device: torch.device, batch: int
) -> tuple[Step, tuple[int, ...]]:
    """A training step, and the forward operations by block."""
    net = build(name, classes=CLASSES, size=SIZE, weights="none", seed=0).to(device)
    flops = block_flops(net, SIZE)
    fostering = Fostering(net, target_block(net, block), beta) if beta else None
    model = Classifier(net, 0, "adam", 1.0, fostering=fostering).to(device).train()
    optimizer = model.configure_optimizers()
    torch.manual_seed(0)
    images = torch.rand(batch, 3, *SIZE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES

    def step() -> None:
        optimizer.zero_grad()
        model.training_step((net.prefix(images, 0), labels, 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step, flops


def seconds(step: Step, device: torch.device) -> float:
    """Of one step."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure(name: str, block: str | None, device: torch.device, batch: int) -> dict[str, Any]:
    """One row of the results."""
    plain, flops = stepper(name, block, 0.0, device, batch)
    fostered, _ = stepper(name, block, 1.0, device, batch)
    for step in (plain, fostered, plain, fostered):
        step()
    pairs = []
    for turn in range(ROUNDS):
        first, second = (plain, fostered) if turn % 2 == 0 else (fostered, plain)
        times = {id(step): seconds(step, device) for step in (first, second)}
        pairs.append((times[id(fostered)], times[id(plain)]))
    ratios = [one / other for one, other in pairs]
    net = build(name, classes=CLASSES, size=SIZE, weights="none")
    tail = sum(flops[target_block(net, block) + 1 :]) / sum(flops)
    return {
        "what": f"fostering step / plain step, {name}, {block or 'last conv'}",
        "value": round(statistics.median(ratios), 4),
        "unit": "ratio",
        "goal": GOAL if block is None else None,
        "better": "lower",
        "lowest": round(min(ratios), 4),
        "highest": round(max(ratios), 4),
        "plain_s": round(statistics.median(other for _, other in pairs), 3),
        "tail_share": round(tail, 5),
        "device": device.type,
        "batch": batch,
        "size": list(SIZE),
    }


def main(names: list[str]) -> int:
    """Measure the networks named, or all; exit status 1 if a goal is missed."""
    batch = BATCH
    for argument in [name for name in names if name.startswith("batch=")]:
        if not argument.removeprefix("batch=").isdecimal() or int(argument.removeprefix("batch=")) < 2:
            print(f"fostering_step: batch must be a whole number >= 2, got {argument!r}", file=sys.stderr)
            return 2
        batch = int(argument.removeprefix("batch="))
        names = [name for name in names if name != argument]
    if unknown := [name for name in names if name not in CASES]:
        print(f"fostering_step: unknown network {unknown[0]!r}; accepted: {', '.join(CASES)}", file=sys.stderr)
        return 2
    keep_freed_memory()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("what", "ratio", "lowest..highest", "goal", "plain step", "share of operations behind the block")
    rows = {row["what"]: row for row in read_rows("fostering_step")}
    missed = False
    for name in names or list(CASES):
        for block in CASES[name]:
            row = measure(name, block, device, batch)
            rows[row["what"]] = row
            missed |= row["goal"] is not None and row["value"] > row["goal"]
            table.add_row(
                row["what"], f"{row['value']:.3f}", f"{row['lowest']:.3f}..{row['highest']:.3f}",
                f"<= {row['goal']}" if row["goal"] else "", f"{row['plain_s']:.2f} s", f"{row['tail_share']:.4f}",
            )  # fmt: skip
            write_rows("fostering_step", list(rows.values()))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
