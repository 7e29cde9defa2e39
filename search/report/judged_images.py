"""A network and the images it is judged on: their probabilities, pictures and maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.attribution import METHODS, finite_maps
from explain.overlay import as_pixels
from explain.signals import BlockSignals, capture
from explain.subject import choose_blocks
from lightning_modules.errors import InputError
from lightning_modules.images.reading import Fit, read_image
from lightning_modules.networks.blocknet import BlockNet
from search.outcome.test_predictions import image_name
from search.pages.original_picture import Original
from search.report.false_associations import map_traits
from search.report.pictures import PICTURE_SIDE, PictureStore
from search.trial.task import Task

__all__ = ["METHOD", "JudgedImages", "RegionEvidence", "map_blocks", "original_picture"]

METHOD = "layercam"
"""In early blocks Grad-CAM degenerates to an edge map; LayerCAM does not."""

_BATCH = 32
_FEWEST_POSITIONS = 4  # of a side: a map of two by two says nothing of a place


@dataclass(frozen=True, eq=False)
class RegionEvidence:
    """Of one class, by place: maps (h, w), features (C,) of the region that the map marks, traits (6,)."""

    maps: dict[int, Tensor]
    regions: dict[int, Tensor]
    traits: dict[int, NDArray[np.float64]]

    def nearest(self, place: int, among: NDArray[np.int64]) -> tuple[int | None, float | None]:
        """The place whose region is most alike, by the cosine of the features, and the cosine."""
        others = [int(n) for n in among if int(n) in self.regions]
        if not others or place not in self.regions:
            return None, None
        region = self.regions[place]
        cosines = [float(torch.cosine_similarity(region, self.regions[n], dim=0)) for n in others]
        best = int(np.argmax(cosines))
        return others[best], cosines[best]


class JudgedImages:
    """Images in an order of their own: a *place* is a position in `rows`.

    Args:
        rows: of the task's index, (N,); of an image in tiles, the tile that decided, which is shown for it.
        probabilities: of the images, (N, K).
        labels: of the images, (N,).

    Attributes:
        predicted: (N,).
        confusion: (K, K) counts, row = true class.
        blocks: label -> module of the blocks that have maps.
        block: the last of them whose maps have at least 4 x 4 positions, or the last; empty without any.
        store: pictures made so far.
        notes: what the reader should know.
    """

    def __init__(
        self,
        task: Task,
        net: BlockNet,
        rows: NDArray[np.int64],
        probabilities: NDArray[np.float64],
        labels: NDArray[np.int64],
    ) -> None:
        self.task, self.rows, self.probabilities, self.labels = task, rows, probabilities, labels
        self._net = net
        self.predicted = probabilities.argmax(1)
        count = len(task.classes)
        cells = np.bincount(self.labels * count + self.predicted, minlength=count * count)
        self.confusion: NDArray[np.int64] = cells.reshape(count, count)
        self.store = PictureStore()
        self._read: dict[int, Original] = {}
        self.notes: tuple[str, ...] = ()
        size = task.settings.data.pixels
        self.blocks, left_out, self.block = map_blocks(net, size)
        if left_out:
            names = ", ".join(left_out)
            self.notes = (f"No maps of {names}: at {size[0]} x {size[1]} pixels a single position is left there.",)
        order = np.random.default_rng([task.settings.seed, 7]).permutation(len(rows))
        self._rank = {int(place): rank for rank, place in enumerate(order)}

    def some(self, places: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """At most so many of the places; of more a seeded choice, the same whatever else is asked."""
        return np.array(sorted(places.tolist(), key=self._rank.__getitem__)[:most], dtype=np.int64)

    def name(self, place: int) -> str:
        """Path of an image as the report shows it."""
        return image_name(self.task, int(self.rows[place]))

    def image(self, place: int) -> Tensor:
        """(3, H, W) in [0, 1], on the CPU."""
        return self._images(np.array([place]))[0].float().cpu()

    def picture(self, place: int, values: Tensor | None = None, side: int = PICTURE_SIDE) -> str:
        """Keep the picture of an image as it was taken, of a tile that part of it; returns its key in `store`.

        Args:
            values: map drawn over it, (h, w); None for the image alone.
            side: of the longer side, in pixels.
        """
        return self.store.add(self._original(place), values, side)

    def _original(self, place: int) -> Original:
        """As the network sees it where the file cannot be read any more."""
        if place not in self._read:
            self._read.clear()  # pictures of one image are made one after another
            found = original_picture(self.task, int(self.rows[place]))
            self._read[place] = found or Original(
                as_pixels(self.image(place)), self.task.settings.data.pixels, "stretch"
            )
        return self._read[place]

    def signals(
        self, places: NDArray[np.int64], targets: NDArray[np.int64], blocks: Mapping[str, str]
    ) -> list[BlockSignals]:
        """Of a few images, as the network is explained for the class `targets` of each."""
        modules = list(blocks.values())
        return list(capture(self._net, self._images(places), modules, torch.from_numpy(targets.copy())).blocks)

    def evidence(self, places: NDArray[np.int64], target: int) -> RegionEvidence:
        """Maps of one class at `block`."""
        found = RegionEvidence({}, {}, {})
        if not self.block or not len(places):
            return found
        module = {self.block: self.blocks[self.block]}
        for part in np.array_split(places, -(-len(places) // _BATCH)):
            (signals,) = self.signals(part, np.full(len(part), target, dtype=np.int64), module)
            maps = finite_maps(METHODS[METHOD](signals))
            weights = maps / maps.sum(dim=(1, 2), keepdim=True).clamp_min(1e-30)
            regions = torch.einsum("nhw,nchw->nc", weights, signals.activations.float()).cpu()
            traits = map_traits(self._images(part).float().cpu(), maps.cpu())
            for n, place in enumerate(part.tolist()):
                found.maps[place], found.regions[place], found.traits[place] = maps[n].cpu(), regions[n], traits[n]
        return found

    def _images(self, places: NDArray[np.int64]) -> Tensor:
        rows = self.rows[places]
        return self.task.inputs(rows, np.zeros_like(rows))


def original_picture(task: Task, row: int) -> Original | None:
    """The picture of a row as it was taken, of a tile that part of it; None where the file cannot be read any more."""
    index, data = task.index, task.settings.data
    try:
        pixels = read_image(index.records[row].path, max_pixels=data.max_pixels, known=index.value_range)
    except InputError:
        return None
    if index.tiles is not None:
        top, left, height, width = index.tiles.boxes[row].tolist()
        pixels = pixels[top : top + height, left : left + width]
    return Original(pixels, data.pixels, cast("Fit", data.fit))


def map_blocks(net: BlockNet, size: tuple[int, int]) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Which blocks have maps, and the one whose maps are shown where there is room for one.

    Args:
        size: height and width of the images.

    Returns:
        label -> module of those that have, first to last; labels of the others; the last whose maps have at least 4 x 4
        positions, or the last, or nothing without any.
    """
    try:
        blocks, left_out = choose_blocks(net, {n: f"blocks.{n}" for n in net.block_names}, size, None)
    except ValueError:  # not one block has more than one position
        blocks, left_out = {}, net.block_names
    return blocks, left_out, _shown_block(net, blocks, size)


@torch.no_grad()
def _shown_block(net: BlockNet, blocks: Mapping[str, str], size: tuple[int, int]) -> str:
    shown = list(blocks)[-1] if blocks else ""
    values = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), 0)
    for name, block in net.blocks.named_children():
        values = block(values)
        if name in blocks and min(values.shape[2:]) >= _FEWEST_POSITIONS:
            shown = name
    return shown
