"""Cost of maps at all five blocks of VGG-16, as ratios against captum, pytorch-grad-cam and one training step.

Run from the repository root: `python benchmarks/explain.py`. The four are timed in turn, round after round, so that
whatever else the machine does falls on all of them; each value is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from explain import block_maps

BLOCKS = ["features.4", "features.9", "features.16", "features.23", "features.30"]
RESULTS = Path(__file__).parent / "results" / "explain.json"
GOALS = {
    "maps at all blocks / captum one layer at a time": ("captum", 0.30),
    "maps at all blocks / pytorch-grad-cam, all layers in one call": ("pytorch-grad-cam", 0.70),
    "maps at all blocks / one training step": ("training step", 0.80),
}


def candidates(batch: int, size: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name, on the same images and weights."""
    torch.manual_seed(0)
    model = torchvision.models.vgg16(num_classes=11).eval()
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 11, (batch,))
    layers = [model.get_submodule(block) for block in BLOCKS]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def ours() -> object:
        return block_maps(model, images, BLOCKS, labels)

    def captum() -> object:
        return [LayerGradCam(model, layer).attribute(images, labels, relu_attributions=True) for layer in layers]

    def grad_cam() -> object:
        with GradCAM(model, layers) as explainer:
            return explainer(images, [ClassifierOutputTarget(int(label)) for label in labels])

    def training_step() -> object:
        model.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.eval()
        optimizer.zero_grad()
        return loss

    return {"explain": ours, "captum": captum, "pytorch-grad-cam": grad_cam, "training step": training_step}


def operations(run: Callable[[], object]) -> int:
    """Counted floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def seconds(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall time by name and round, after one unmeasured run of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for place in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if place:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> int:
    """Measure, print the table, write the rows; exit status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="images a batch")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = candidates(options.batch, options.size)
    counted = {name: operations(run) for name, run in runs.items()}
    times = seconds(runs, options.rounds)
    rows, missed = [], False
    table = Table(title=f"VGG-16, five blocks, {options.batch} x {options.size} px, {options.threads} threads")
    for column in ("what", "value", "goal", "by operations", "seconds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, (rival, goal) in GOALS.items():
        value = statistics.median(ours / theirs for ours, theirs in zip(times["explain"], times[rival], strict=True))
        rows.append({"what": what, "value": round(value, 3), "unit": "ratio", "goal": goal, "better": "lower"})
        missed |= value > goal
        table.add_row(
            what,
            f"{value:.3f}",
            f"<= {goal:.2f}",
            f"{counted['explain'] / counted[rival]:.3f}",
            f"{statistics.median(times['explain']):.2f} / {statistics.median(times[rival]):.2f}",
        )
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
