"""Do the maps lie on the defects? By block and method, beside the controls that any claim must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.measures import energy_pointing, pointing_game

__all__ = ["CONTROL", "Localisation", "LocalisationRow", "bootstrap_intervals"]

CONTROL = "activation"
"""The method without gradients: it does not depend on the class."""

_RESAMPLES = 2000
_CHUNK = 100
_Interval = tuple[float, float, float]


@dataclass(frozen=True)
class LocalisationRow:
    """Means over the images that have a truth, each with its 95 % bootstrap interval (mean, low, high).

    Attributes:
        block: where the map was taken.
        images: with a truth and a map that is not dead; the means are over these.
        dead: share of dead maps.
        energy: share of the map's energy inside the truth.
        pointing: share of images whose highest point lies inside.
        random_energy: `energy` of the same network with its weights drawn anew.
        random_pointing: `pointing` of the same.
        over_control: `energy` minus that of the map without gradients, image by image.
        over_chance: `energy` minus the share of the image that the truth covers, image by image.
        over_random: `energy` minus `random_energy`, image by image.
    """

    block: str
    method: str
    images: int
    dead: float
    energy: _Interval
    pointing: _Interval
    random_energy: _Interval
    random_pointing: _Interval
    over_control: _Interval
    over_chance: _Interval
    over_random: _Interval


class Localisation:
    """Collects values image by image; memory is a few numbers an image.

    `CONTROL` must be among the methods.
    """

    def __init__(self, blocks: Sequence[str], methods: Sequence[str]) -> None:
        if CONTROL not in methods:
            raise ValueError(f"methods must hold {CONTROL}, got {', '.join(methods)}")
        self.blocks, self.methods = tuple(blocks), tuple(methods)
        self._rows: list[NDArray[np.float32]] = []
        self._chance: list[float] = []
        self._drawn: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._chance)

    def add(
        self,
        truths: Sequence[Tensor],
        maps: Mapping[tuple[str, str], Tensor],
        random_maps: Mapping[tuple[str, str], Tensor],
    ) -> None:
        """Take N images.

        Args:
            truths: masks in the frame of each image, bool (H, W), each with a true pixel.
            maps: (method, block) -> (N, h, w); pairs that no call holds get no row.
            random_maps: the same of the randomised network.
        """
        # Images of one size are measured at once.
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, truth in enumerate(truths):
            shapes.setdefault(tuple(truth.shape), []).append(place)
        values = np.full((len(truths), 4, len(self.methods), len(self.blocks)), np.nan, dtype=np.float32)
        self._drawn.update(maps)
        for places in shapes.values():
            truth = torch.stack([truths[place] for place in places])
            for m, method in enumerate(self.methods):
                for b, block in enumerate(self.blocks):
                    if (method, block) not in maps:
                        continue
                    for offset, source in ((0, maps), (2, random_maps)):
                        chosen = source[method, block][places]
                        values[places, offset, m, b] = energy_pointing(chosen, truth).numpy()
                        values[places, offset + 1, m, b] = pointing_game(chosen, truth).numpy()
        self._rows.extend(values)
        self._chance.extend(float(truth.double().mean()) for truth in truths)

    @property
    def chance(self) -> float:
        """Mean share of the image that the truth covers: what a uniform map scores; NaN without images."""
        return float(np.mean(self._chance)) if self._chance else float("nan")

    @property
    def covered(self) -> int:
        """Images more than half of which the truth covers."""
        return sum(share > 0.5 for share in self._chance)

    def rows(self, seed: int = 0) -> list[LocalisationRow]:
        """One row by block and method, in their order; empty without images."""
        if not self._rows:
            return []
        values = np.stack(self._rows)
        energy, pointing, random_energy, random_pointing = (values[:, k] for k in range(4))
        control = energy[:, self.methods.index(CONTROL)][:, None]
        chance = np.asarray(self._chance, dtype=np.float32)[:, None, None]
        columns = np.stack(
            [
                energy,
                pointing,
                random_energy,
                random_pointing,
                energy - control,
                energy - chance,
                energy - random_energy,
            ],
            axis=1,
        )
        flat = columns.reshape(len(values), -1)
        intervals = bootstrap_intervals(flat, seed=seed).reshape(3, *columns.shape[1:])
        found = []
        for b, block in enumerate(self.blocks):
            for m, method in enumerate(self.methods):
                if (method, block) not in self._drawn:
                    continue
                cells = [(float(c[0]), float(c[1]), float(c[2])) for c in intervals[:, :, m, b].T]
                alive = int((~np.isnan(energy[:, m, b])).sum())
                found.append(LocalisationRow(block, method, alive, 1 - alive / len(values), *cells))
        return found


def bootstrap_intervals(values: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.float64]:
    """Mean over images and the 2.5 and 97.5 percentiles of its bootstrap, image by image; NaN is left out.

    All columns share the resamples, so that differences of columns are paired. Values (images, columns) give
    (3, columns): mean, low, high; NaN for a column of NaN alone.
    """
    random = np.random.default_rng(seed)
    count = len(values)
    known = ~np.isnan(values)
    filled = np.where(known, values, 0).astype(np.float64)
    means = []
    for start in range(0, _RESAMPLES, _CHUNK):
        size = min(_CHUNK, _RESAMPLES - start)
        weights = random.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        means.append(_ratio(weights @ filled, weights @ known.astype(np.float64)))
    resampled = np.concatenate(means)
    result = np.full((3, values.shape[1]), np.nan)
    result[0] = _ratio(filled.sum(axis=0), known.sum(axis=0).astype(np.float64))
    some = known.any(axis=0)
    result[1:, some] = np.nanpercentile(resampled[:, some], (2.5, 97.5), axis=0)
    return result


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
