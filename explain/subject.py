"""The model under explanation, and what one pass over a batch says about its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explain import MAP_MEASURES, METHODS, SuperpixelExplanation, cam, capture, spatial_blocks
from explain.attribution import finite_maps
from explain.hooks import observing
from explain.method_names import ATTENTION, CAM

__all__ = [
    "MEASURED",
    "BatchExplanation",
    "ImageExplanation",
    "Subject",
    "choose_blocks",
    "described_measures",
    "explain_batch",
    "measure",
]

MEASURED: Mapping[str, str] = {
    "entropy": "ce_normalised",
    "area": "ca12",
    "dispersion": "cd",
    "relative_difference": "relative_difference",
    "dead": "dead_map_rate",
}
"""Column name -> measure of `MAP_MEASURES`: the measures that cost next to nothing."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with what it takes to explain it on image files.

    Attributes:
        net: from images (N, 3, H, W) in [0, 1] to logits (N, K).
        blocks: label -> name of the module.
        read: from a path to one image (1, 3, H, W) in [0, 1]; ValueError where it cannot be read.
        size: H, W.
        fit: how images of another aspect ratio are brought to that size: stretch, pad or crop.
        minimum: smallest image side the network was made for, in pixels.
        temperature: what logits are divided by to give the probabilities that are shown.
        original: from a path to the picture as it was taken, uint8 of shape (H, W, 1) or (H, W, 3); None where the
            network is not shown whole pictures.
        attention: label of a block -> name of a module whose output (N, 1, h, w), >= 0, is the network's own attention
            map of that block's output.
    """

    net: nn.Module
    classes: tuple[str, ...]
    blocks: Mapping[str, str]
    read: Callable[[Path], Tensor]
    size: tuple[int, int]
    fit: str
    minimum: int
    device: torch.device
    name: str
    temperature: float = 1.0
    original: Callable[[Path], Any] | None = None
    attention: Mapping[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (N, K) of images (N, 3, H, W) in [0, 1]."""
        logits: Tensor = self.net(images.to(self.device))
        return (logits.float() / self.temperature).softmax(1)


@dataclass(frozen=True, eq=False)
class BatchExplanation:
    """One pass over N images.

    Attributes:
        probabilities: (N, K), on the CPU.
        targets: explained class of each image, int64, (N,).
        maps: (method, block) -> (N, h, w), on the CPU; a map that is not finite is all zeros. CAM is only where a
            block has a head, attention where the network has a map of its own.
    """

    probabilities: Tensor
    targets: Tensor
    maps: dict[tuple[str, str], Tensor]

    def only(self, places: Sequence[int]) -> BatchExplanation:
        """The same of some of the images."""
        chosen = list(places)
        maps = {key: values[chosen] for key, values in self.maps.items()}
        return BatchExplanation(self.probabilities[chosen], self.targets[chosen], maps)


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """What is drawn of one image.

    Attributes:
        image: (3, H, W) in [0, 1], as the network sees it.
        explained: class the maps explain, and its probability.
        truth: true class, where a table says it.
        maps: (method, block) -> (h, w).
        measures: (method, block) -> column of `MEASURED` -> value, NaN where it has none.
        defect: mask of its defects in the network's field of view, bool, at any resolution, where a table says it.
        lime: super-pixels, if asked for.
        stability: of the super-pixels over repeats, NaN without.
    """

    path: Path
    image: Tensor
    predicted: tuple[str, float]
    second: tuple[str, float]
    explained: tuple[str, float]
    truth: str | None
    maps: Mapping[tuple[str, str], Tensor]
    measures: Mapping[tuple[str, str], Mapping[str, float]]
    defect: Tensor | None = None
    lime: SuperpixelExplanation | None = None
    stability: float = float("nan")


def choose_blocks(
    net: nn.Module, blocks: Mapping[str, str], size: tuple[int, int], wanted: Sequence[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Blocks that are explained, and those left out because they put out a single position.

    Args:
        blocks: label -> name of the module, of all blocks, first to last.
        size: H, W of the images.
        wanted: labels; None for all that can be explained.

    Raises:
        ValueError: an unknown label, a block without positions, or no block that can be explained.
    """
    parameter = next(net.parameters(), None)
    device = parameter.device if parameter is not None else None
    spatial = set(spatial_blocks(net, torch.zeros(1, 3, *size, device=device)))
    usable = {label: module for label, module in blocks.items() if module in spatial}
    if not usable:
        raise ValueError(
            f"the model has no spatial block, so there is no map to draw: at {size[0]} x {size[1]} pixels "
            f"none of {', '.join(blocks) or 'its parts'} puts out more than one position"
        )
    if wanted is None:
        return usable, tuple(label for label in blocks if label not in usable)
    for label in wanted:
        if label not in blocks:
            raise ValueError(f"blocks must be among {', '.join(blocks)}, got {label!r}")
        if label not in usable:
            raise ValueError(
                f"block {label!r} puts out a single position at {size[0]} x {size[1]} pixels, which is no map; "
                f"blocks that can be explained: {', '.join(usable)}"
            )
    return {label: blocks[label] for label in blocks if label in wanted}, ()


def explain_batch(
    subject: Subject,
    images: Tensor,
    target: str | int | Tensor,
    methods: Sequence[str],
    *,
    head_of: Callable[[str], nn.Linear | None] = lambda _: None,
    net: nn.Module | None = None,
) -> BatchExplanation:
    """Maps of all blocks by several methods, from one forward and one backward pass.

    Args:
        images: (N, 3, H, W) in [0, 1].
        target: "predicted", or class indices.
        methods: keys of `METHODS`, cam, and attention, which does not depend on the class.
        head_of: from the label of a block to the head from which CAM is drawn there, None without.
        net: another network of the same build, such as a randomised copy.
    """
    modules = list(subject.blocks.values())
    explained, attention = subject.net if net is None else net, dict[str, Tensor]()
    with _keeping(explained, subject.attention if ATTENTION in methods else {}, attention):
        captured = capture(explained, images.to(subject.device), modules, target)
    maps = {}
    for method in methods:
        for label, signals in zip(subject.blocks, captured, strict=True):
            if method == ATTENTION:
                if label not in attention:
                    continue
                drawn = attention[label]
            elif method == CAM:
                head = head_of(label)
                if head is None:
                    continue
                drawn = cam(signals, head)
            else:
                drawn = METHODS[method](signals)
            maps[method, label] = finite_maps(drawn).cpu()
    probabilities = (captured.logits / subject.temperature).softmax(1).cpu()
    return BatchExplanation(probabilities, captured.targets.cpu(), maps)


@contextmanager
def _keeping(net: nn.Module, modules: Mapping[str, str], kept: dict[str, Tensor]) -> Iterator[None]:
    """Keep what each module puts out, (N, 1, h, w), as (N, h, w) under its label."""
    if not modules:
        yield
        return
    labels = {name: label for label, name in modules.items()}

    def keep(name: str, _: nn.Module, output: Any) -> None:
        kept[labels[name]] = output.detach().float()[:, 0]

    with observing(net, list(labels), keep):
        yield


def described_measures() -> list[dict[str, Any]]:
    """What a page says of each column of `MEASURED`: its key, the key in words, and the `Measure`."""
    return [
        {"key": key, "words": key.replace("_", " "), "measure": MAP_MEASURES[name]} for key, name in MEASURED.items()
    ]


def measure(maps: Tensor) -> dict[str, list[float]]:
    """Column of `MEASURED` -> value of each of the maps (N, h, w)."""
    return {column: MAP_MEASURES[name](maps).tolist() for column, name in MEASURED.items()}
