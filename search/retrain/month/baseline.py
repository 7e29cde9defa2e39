"""What a champion shows of a set of images: kept from its promotion, measured again each month, and compared.

n images in the sample, C classes, L blocks; block l puts out C_l channels; d penultimate features.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from explain.attribution import METHODS
from explain.measures.concentration import dispersion, elliptical_area_12, normalised_entropy
from explain.signals import capture
from lightning_modules.errors import InputError, printable
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.whole_file import whole_file

__all__ = ["MEASURES", "Baseline", "measure_baseline"]

MEASURES = {"entropy": normalised_entropy, "area": elliptical_area_12, "dispersion": dispersion}
"""Measures of a LayerCAM map of the predicted class that are compared by block, under their short names."""

Floats = NDArray[np.float32]

_FORMAT = 1
_ARRAYS = ("features", "brightness", "contrast", "confidence", "labels", "predicted", "groups")


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a champion shows of a sample of images.

    Attributes:
        counts: class name -> images in the whole set, not in the sample only.
        features: input of the network's last linear layer (pooled output of the last block where there is none),
            float32, (n, d).
        block_features: by block, the mean over positions of its output, float32, (n, C_l) each.
        brightness: mean pixel, in [0, 1], (n,).
        contrast: standard deviation of the pixels, in [0, 0.5], (n,).
        confidence: probability of the predicted class, (n,).
        labels: true classes, int64, (n,).
        predicted: predicted classes, int64, (n,).
        groups: number of the image's group (images of one plate, coil or lot), int64, (n,).
        measures: "entropy" (ce / ln(h w)), "area" (12 ca) and "dispersion" (cd) of the LayerCAM map of the predicted
            class, float32, (L, n) each; NaN for a dead map and for what a map of one position cannot say.
    """

    classes: tuple[str, ...]
    counts: Mapping[str, int]
    blocks: tuple[str, ...]
    features: Floats
    block_features: tuple[Floats, ...]
    brightness: Floats
    contrast: Floats
    confidence: Floats
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    groups: NDArray[np.int64]
    measures: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> int:
        """How many images of the sample the champion has right."""
        return int((self.labels == self.predicted).sum())

    def save(self, path: Path) -> None:
        """Write an .npz file that holds no pickle, in one step: it is complete or not there."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"block_features_{number}": one for number, one in enumerate(self.block_features)}
        arrays |= {f"measure_{name}": one for name, one in self.measures.items()}
        arrays |= {
            "counted": np.array(list(self.counts), str),
            "counts": np.array(list(self.counts.values()), np.int64),
        }
        arrays |= {"classes": np.array(self.classes, str), "blocks": np.array(self.blocks, str)}
        archive = io.BytesIO()  # a signal in the middle of an archive on disk makes zipfile complain of a closed file
        np.savez_compressed(archive, format=np.array(_FORMAT), **arrays)
        with whole_file(path) as temporary:
            temporary.write_bytes(archive.getvalue())

    @staticmethod
    def load(path: Path) -> Baseline:
        """What `save` wrote.

        Raises:
            InputError: no such file, or one that is damaged or something else.
        """
        try:
            # Opened here, since numpy does not close what turns out to be no archive.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise ValueError("another format")
                blocks = tuple(str(name) for name in file["blocks"])
                return Baseline(
                    classes=tuple(str(name) for name in file["classes"]),
                    counts=MappingProxyType(
                        {str(k): int(v) for k, v in zip(file["counted"], file["counts"], strict=True)}
                    ),
                    blocks=blocks,
                    block_features=tuple(file[f"block_features_{number}"] for number in range(len(blocks))),
                    measures=MappingProxyType({name: file[f"measure_{name}"] for name in MEASURES}),
                    **{name: file[name] for name in _ARRAYS},
                )
        except Exception as error:  # of whatever kind a damaged file brings about, in NumPy and in zipfile
            raise InputError(f"{printable(path)} is not a readable drift baseline ({type(error).__name__})") from error


def measure_baseline(
    net: BlockNet,
    images: Iterable[Tensor],
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    groups: Sequence[object] | None = None,
    limit: int = 512,
    seed: int = 0,
) -> Baseline:
    """Run the champion once, forward and backward, over at most `limit` of the images.

    Give it images that the champion was *not* trained on: it is surer of those, and looks at them otherwise, so a new
    month would differ from them by that alone.

    Args:
        images: batches (B, 3, H, W) in [0, 1], floating point, on any device.
        labels: true classes of all of them in the same order, integers in 0..C-1, (N,).
        groups: which plate, coil or lot each image is of; images of one group count as one thing wherever chance is
            drawn. None: each image is a group.
        limit: largest sample; of more images a random one is drawn.

    Raises:
        ValueError: no image, batches and labels that differ in number, labels out of range, or answers that are not
            finite.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if truth.ndim != 1 or not len(truth):
        raise ValueError(f"labels must be at least one class index (N,), got shape {truth.shape}")
    if truth.min() < 0 or truth.max() >= len(classes):
        raise ValueError(f"labels must be in 0..{len(classes) - 1}, got {truth.min()}..{truth.max()}")
    if groups is not None and len(groups) != len(truth):
        raise ValueError(f"groups must name a group for each of {len(truth)} images, got {len(groups)}")
    rows = np.sort(np.random.default_rng(seed).permutation(len(truth))[:limit])
    parts: list[dict[str, NDArray[np.float64]]] = []
    seen = 0
    for batch in images:
        inside = rows[(rows >= seen) & (rows < seen + len(batch))] - seen
        seen += len(batch)
        if len(inside):
            parts.append(_measure(net, batch[torch.from_numpy(inside).to(batch.device)]))
    if seen != len(truth):
        raise ValueError(f"images must be as many as labels ({len(truth)}), got {seen}")
    found = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    if not np.isfinite(found["confidence"]).all():
        raise ValueError("net must answer with finite numbers, got NaN or infinity")
    numbers = np.arange(len(truth)) if groups is None else np.unique([str(g) for g in groups], return_inverse=True)[1]
    counts = np.bincount(truth, minlength=len(classes))
    blocks = net.block_names
    return Baseline(
        classes=tuple(classes),
        counts=MappingProxyType({name: int(count) for name, count in zip(classes, counts, strict=True)}),
        blocks=blocks,
        features=np.ascontiguousarray(found["features"].T, np.float32),
        block_features=tuple(np.ascontiguousarray(found[f"block {name}"].T, np.float32) for name in blocks),
        brightness=found["brightness"].astype(np.float32),
        contrast=found["contrast"].astype(np.float32),
        confidence=found["confidence"].astype(np.float32),
        labels=truth[rows],
        predicted=found["predicted"].astype(np.int64),
        groups=numbers[rows].astype(np.int64),
        measures=MappingProxyType({name: found[name].astype(np.float32) for name in MEASURES}),
    )


def _measure(net: BlockNet, images: Tensor) -> dict[str, NDArray[np.float64]]:
    """Everything of one batch, images along the last axis."""
    images = images.to(net.mean.device)
    entered: list[Tensor] = []
    linear = [module for module in net.head.modules() if isinstance(module, nn.Linear)]
    hooks = [one.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])) for one in linear[-1:]]
    try:
        captured = capture(net, images, [f"blocks.{name}" for name in net.block_names])
    finally:
        for hook in hooks:
            hook.remove()
    pooled = [signals.activations.detach().float().mean(dim=(2, 3)) for signals in captured]
    maps = [_finite(METHODS["layercam"](signals)) for signals in captured]
    pixels = images.detach().double().flatten(1)
    sure = captured.logits.double().softmax(dim=1).max(dim=1)
    features = entered[-1].detach().float().flatten(1) if entered else pooled[-1]
    found = {
        "features": features.T,
        "brightness": pixels.mean(dim=1),
        "contrast": pixels.std(dim=1, correction=0),
        "confidence": sure.values,
        "predicted": sure.indices,
    }
    found |= {f"block {name}": one.T for name, one in zip(net.block_names, pooled, strict=True)}
    found |= {name: torch.stack([measure(one) for one in maps]) for name, measure in MEASURES.items()}
    return {name: values.double().cpu().numpy() for name, values in found.items()}


def _finite(maps: Tensor) -> Tensor:
    """Maps (N, h, w) with those that are not finite made dead."""
    broken = ~torch.isfinite(maps).flatten(1).all(dim=1)
    return maps.masked_fill(broken[:, None, None], 0.0)
