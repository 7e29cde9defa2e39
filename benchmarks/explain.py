"""Cost of maps at all five blocks of VGG-16, as ratios against captum, pytorch-grad-cam and one training step.

Run from the repository root: `python benchmarks/explain.py`. Every call (captum makes five, one a layer) is timed by
itself, in an order that turns from round to round, so that whatever else the machine does falls on all of them and no
call always follows the same other; a value is the ratio of the medians over rounds, captum's being summed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
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


def candidates(batch: int, size: int) -> dict[str, list[Callable[[], object]]]:
    """The calls that are timed, by name, on the same images and weights."""
    torch.manual_seed(0)
    model = torchvision.models.vgg16(num_classes=11).eval()
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 11, (batch,))
    layers = [model.get_submodule(block) for block in BLOCKS]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def ours() -> object:
        return block_maps(model, images, BLOCKS, labels)

    def captum(layer: torch.nn.Module) -> object:
        return LayerGradCam(model, layer).attribute(images, labels, relu_attributions=True)

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

    return {
        "explain": [ours],
        "captum": [partial(captum, layer) for layer in layers],
        "pytorch-grad-cam": [grad_cam],
        "training step": [training_step],
    }


def operations(calls: list[Callable[[], object]]) -> int:
    """Counted floating-point operations of all calls."""
    with FlopCounterMode(display=False) as counter:
        for call in calls:
            call()
    return int(counter.get_total_flops())


def seconds(runs: dict[str, list[Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Wall time by name: the sum over its calls of each call's median, after one unmeasured round."""
    calls = [(name, place) for name, of_name in runs.items() for place in range(len(of_name))]
    times: dict[tuple[str, int], list[float]] = {call: [] for call in calls}
    for turn in range(rounds + 1):
        shift = turn % len(calls)
        for name, place in calls[shift:] + calls[:shift]:
            start = time.perf_counter()
            runs[name][place]()
            if turn:
                times[name, place].append(time.perf_counter() - start)
    return {
        name: sum(statistics.median(times[name, place]) for place in range(len(of_name)))
        for name, of_name in runs.items()
    }


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
    counted = {name: operations(calls) for name, calls in runs.items()}
    times = seconds(runs, options.rounds)
    rows, missed = [], False
    table = Table(title=f"VGG-16, five blocks, {options.batch} x {options.size} px, {options.threads} threads")
    for column in ("what", "value", "goal", "by operations", "seconds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, (rival, goal) in GOALS.items():
        value = times["explain"] / times[rival]
        rows.append({"what": what, "value": round(value, 3), "unit": "ratio", "goal": goal, "better": "lower"})
        missed |= value > goal
        table.add_row(
            what,
            f"{value:.3f}",
            f"<= {goal:.2f}",
            f"{counted['explain'] / counted[rival]:.3f}",
            f"{times['explain']:.2f} / {times[rival]:.2f}",
        )
    Console().print(table)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
