"""LIME, CAM and Grad-CAM in the thesis's arrangement (Figures 17 to 19): an image a row, its blocks side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from explain import METHODS, cam, capture, explain_superpixels, train_gap_head
from explain.fonts import use_fonts
from explain.gap_head import pooled_features
from explain.overlay import as_pixels, map_overlay, superpixel_overlay
from lightning_modules.networks.blocknet import BlockNet
from search.trial.task import Task

__all__ = ["maps_figures", "thesis_blocks"]

_STRIDES = (8, 16, 32)
"""Of the outputs of VGG-16's Block3, Block4 and Block5."""
_LIME_SAMPLES = 200
_ROWS = 12  # images a figure


def thesis_blocks(net: BlockNet, size: tuple[int, int]) -> tuple[str, ...]:
    """The blocks that stand for VGG-16's Block3, Block4 and Block5: the last ones at strides 8, 16 and 32.

    Fewer where the network does not shrink the image so far.
    """
    found: dict[int, str] = {}
    with torch.no_grad():
        net.eval()
        x = torch.zeros(1, 3, *size, device=net.mean.device)
        for place, name in enumerate(net.block_names):
            side = net.prefix(x, place + 1).shape[2]
            found[2 ** round(math.log2(size[0] / side))] = name
    return tuple(found[stride] for stride in _STRIDES if stride in found)


def maps_figures(task: Task, net: BlockNet, each: int) -> Mapping[str, Figure]:
    """Figures by name: LIME, CAM with trained heads, and Grad-CAM of the true class of test images.

    Heads for CAM are trained on pooled features of the training images, as the thesis retrained its network with global
    average pooling; the network itself is left as it is.

    Args:
        each: images of each class, the first in the order of the test set; a class without test images is left out.
    """
    test = task.splits.test
    rows = np.concatenate([test[task.index.labels[test] == k][:each] for k in range(len(task.classes))])
    blocks = thesis_blocks(net, task.settings.data.pixels)
    labels = torch.from_numpy(task.index.labels[rows]).to(task.device)
    images = task.inputs(rows, np.zeros_like(rows))
    names = {block: f"blocks.{block}" for block in blocks}
    signals = capture(net, images, list(names.values()), labels)
    heads = _heads(task, net, names)
    with torch.no_grad():
        right = net(images).argmax(1) == labels

    panels: list[list[tuple[str, NDArray[np.uint8]]]] = []
    shown = images.float().cpu()
    scale = max(1, math.ceil(128 / max(task.settings.data.pixels)))
    for place in range(len(rows)):
        lime = explain_superpixels(
            images[place],
            lambda batch: net(batch).softmax(1),
            int(labels[place]),
            samples=_LIME_SAMPLES,
            seed=task.settings.seed,
        )
        row = [("image", as_pixels(shown[place], scale)), ("LIME", superpixel_overlay(shown[place], lime, scale))]
        for title, maps in (
            ("CAM", [cam(one, heads[block]) for block, one in zip(blocks, signals, strict=True)]),
            ("Grad-CAM", [METHODS["gradcam"](one) for one in signals]),
        ):
            row += [
                (f"{title} {block}", map_overlay(shown[place], values[place].float().cpu(), scale))
                for block, values in zip(blocks, maps, strict=True)
            ]
        panels.append(row)
    words = [
        f"{task.classes[int(label)]}{'' if hit else ' (missed)'}"
        for label, hit in zip(labels.tolist(), right.tolist(), strict=True)
    ]
    parts = range(0, len(rows), _ROWS)
    return {
        f"maps_{start // _ROWS + 1}": _figure(panels[start : start + _ROWS], words[start : start + _ROWS])
        for start in parts
    }


def _heads(task: Task, net: BlockNet, names: Mapping[str, str]) -> dict[str, nn.Linear]:
    rows = task.splits.folds[0].train
    labels = torch.from_numpy(task.index.labels[rows])
    parts: dict[str, list[Tensor]] = {block: [] for block in names}
    for chosen in np.array_split(rows, -(-len(rows) // 64)):
        pooled = pooled_features(net, task.inputs(chosen, np.zeros_like(chosen)), list(names.values()))
        for block, name in names.items():
            parts[block].append(pooled[name].float().cpu())
    return {
        block: train_gap_head(torch.cat(found), labels, len(task.classes)).to(task.device)
        for block, found in parts.items()
    }


def _figure(panels: list[list[tuple[str, NDArray[np.uint8]]]], words: list[str]) -> Figure:
    use_fonts()
    columns = len(panels[0])
    figure = Figure(figsize=(1.25 * columns + 1.2, 1.25 * len(panels) + 0.5), layout="constrained", dpi=100)
    axes: Any = figure.subplots(len(panels), columns, squeeze=False)
    for line, (row, name) in enumerate(zip(panels, words, strict=True)):
        for place, (title, pixels) in enumerate(row):
            axis = axes[line, place]
            axis.imshow(pixels)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if line == 0:
                axis.set_title(title, fontsize=8, parse_math=False)
        axes[line, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
    figure.supxlabel(
        "LIME: bright super-pixels speak for the true class, dark ones against it; maps of the true class", fontsize=7.5
    )
    return figure
