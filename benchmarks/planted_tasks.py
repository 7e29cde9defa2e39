"""Tasks whose best freeze depth is known by construction: 0, in the middle, or L (science: a prior must move to each).

All are cut from the NEU pictures (four quarters each, so no picture is lost on resizing):

- `planted_0`: the true classes, in the signs of a checkerboard: neighbouring pixels carry the picture once as it is and
  once inverted, and over it lies another picture, drawn at random, as it is. Frozen, the network sees the other
  picture; what its first block was never trained to see must be thawed to be seen. Views are neither shifted nor
  mirrored, which would change the signs. (Tried first and dropped: inverted, with the pixels of 4 x 4 tiles permuted,
  best at depth 4; a checkerboard seen through shifted views, depths 0 and 4 alike; a colour pattern to which the first
  convolution hardly answers, which ten epochs did not learn at any depth.)
- `planted_middle`: labels made by a teacher that keeps the first half of the pre-trained blocks and has random ones
  behind them. The first half is exactly what the labels are made of; what follows is not.
- `planted_L`: labels made by the whole pre-trained network. A linear head on frozen blocks can be exact, and every
  thawed weight can only add noise.

A teacher's labels are the quadrants of two principal components of its pooled features (four classes), without the
third of the images nearest to a border.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.real_images import DATA
from lightning_modules.networks.backbones import build
from lightning_modules.networks.batch_norm import reestimate_batch_norm
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.freezing import freeze

__all__ = ["PLANTED", "write_planted"]

PLANTED = ("planted_0", "planted_middle", "planted_L")
SIDE, KEPT = 96, 2 / 3
CONTRAST, FAINTEST = 21.0, 4.0  # grey levels: of what is mixed, and a spread below which a picture is empty


def quarters() -> tuple[NDArray[np.uint8], list[str], list[str]]:
    """(N, 96, 96) pictures, their NEU classes and the pictures they were cut from."""
    with (DATA / "neu" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cut, labels, sources = [], [], []
    for row in rows:
        with Image.open(DATA / "neu" / row["path"]) as image:
            grey = np.asarray(image.convert("L"))
        for top in (0, 100):
            for left in (0, 100):
                cut.append(grey[top + 2 : top + 2 + SIDE, left + 2 : left + 2 + SIDE])
                labels.append(row["label"])
                sources.append(Path(row["path"]).stem)
    return np.stack(cut), labels, sources


def hidden(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, 96, 96) each picture times a checkerboard of signs, under another one: low frequencies become the highest.

    `128 + CONTRAST (other + (-1)^(row + column) picture)` in grey levels, both standardised, cut to 0..255.
    """
    others = np.random.default_rng(0).permutation(len(pictures))
    sign = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, -1, 1).astype(np.float32)
    mixed = np.empty_like(pictures)
    for row, other in enumerate(others):
        picture, cover = (_standardised(pictures[place]) for place in (row, other))
        mixed[row] = np.clip(128 + CONTRAST * (cover + sign * picture), 0, 255).round().astype(np.uint8)
    return mixed


def _standardised(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = picture.astype(np.float32)
    return (values - values.mean()) / max(float(values.std()), FAINTEST)


def teacher(kept: int) -> BlockNet:
    """The pre-trained network with its first `kept` blocks, and random ones behind them."""
    net = build("efficientnet_lite0", classes=4, size=(SIDE, SIDE), weights="imagenet", seed=0)
    other = build("efficientnet_lite0", classes=4, size=(SIDE, SIDE), weights="none", seed=1)
    for position in range(kept, net.num_blocks):
        net.blocks[position].load_state_dict(other.blocks[position].state_dict())
    return net


@torch.no_grad()
def teacher_labels(pictures: NDArray[np.uint8], kept: int) -> NDArray[np.int64]:
    """(N,) class 0..3 of each picture, -1 for those near a border."""
    net = teacher(kept).eval()
    batches = [
        torch.from_numpy(part)
        .float()
        .div(255)[:, None]
        .expand(-1, 3, -1, -1)
        .contiguous(memory_format=torch.channels_last)
        for part in np.array_split(pictures, -(-len(pictures) // 128))
    ]
    freeze(net, kept)
    if kept < net.num_blocks:  # random blocks without statistics of their own would give noise or nothing
        reestimate_batch_norm(net, [net.prefix(x, kept) for x in batches[:8]], kept)
    pooled = torch.cat([net.eval().prefix(x, net.num_blocks).mean((2, 3)) for x in batches]).double().numpy()
    centred = pooled - pooled.mean(0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 2000)], full_matrices=False)
    scores = centred @ axes[:2].T
    scores = (scores - np.median(scores, 0)) / scores.std(0)
    labels: NDArray[np.int64] = (scores[:, 0] > 0) * 2 + (scores[:, 1] > 0)
    distance = np.abs(scores).min(1)
    return np.where(distance >= np.quantile(distance, 1 - KEPT), labels, -1)


def write_planted(name: str, folder: Path) -> Path:
    """Write the pictures of a planted task and a manifest, once; returns the manifest. Quarters stay together."""
    manifest = folder / name / "manifest.csv"
    if manifest.exists():
        return manifest
    pictures, classes, sources = quarters()
    if name == "planted_0":
        pictures = hidden(pictures)
        labels = classes
    else:
        num_blocks = teacher(0).num_blocks
        found = teacher_labels(pictures, num_blocks if name == "planted_L" else num_blocks // 2)
        labels = ["" if label < 0 else f"teacher{label}" for label in found]
    (folder / name / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (picture, label, source) in enumerate(zip(pictures, labels, sources, strict=True)):
        if label:
            path = folder / name / "pictures" / f"{number:05d}.png"
            Image.fromarray(picture).save(path)
            lines.append((f"pictures/{path.name}", label, source))
    temporary = manifest.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "group"))
        writer.writerows(lines)
    temporary.replace(manifest)
    return manifest
