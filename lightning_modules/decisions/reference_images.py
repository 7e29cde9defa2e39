"""Whether an image is unlike anything that a network was trained on, and which training images are nearest to it.

R training images, M images to judge, N held-out ones, D features.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lightning_modules.decisions.conformal import SLACK, CalibrationScores, categories, fewest_groups
from lightning_modules.errors import InputError, printable

__all__ = ["NEIGHBOURS", "SHOWN", "ReferenceImages", "distances", "load_reference", "save_reference", "unit_length"]

NEIGHBOURS: Final = 3
"""The distance to this nearest training image counts, so that one odd training image does not speak for its like."""

SHOWN: Final = 3
"""Nearest training images that are named."""

_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ReferenceImages:
    """What a network computes of training images, and how far from these known kinds of images lie.

    Attributes:
        features: float16 (R, D), penultimate features of training images, of length 1.
        names: (R,) the images' files.
        distances: float32 (N,), see `distances`, of held-out images to the training images of the network that had not
            seen them.
        groups: int64 (N,): images of one group are not independent of one another.
    """

    features: NDArray[np.float16]
    names: tuple[str, ...]
    distances: NDArray[np.float32]
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Raises ValueError: shapes that do not fit, no image, or numbers that are not finite."""
        if self.features.ndim != 2 or len(self.features) != len(self.names) or not self.names:
            raise ValueError(f"features {self.features.shape} of {len(self.names)} images")
        if self.distances.ndim != 1 or self.distances.shape != self.groups.shape:
            raise ValueError(f"distances {self.distances.shape} in groups {self.groups.shape}")
        if not (np.isfinite(self.features).all() and np.isfinite(self.distances).all()):
            raise ValueError("numbers that are not finite")

    def limit(self, false_alarms: float) -> float:
        """The largest distance at which an image counts as one of a known kind.

        Of new images of known kinds, of new groups, at most the share `false_alarms` lies beyond it, if they are
        exchangeable with the held-out ones and the network is as near to its training images as those that answered
        these (conformal outlier detection: Laxhammar and Falkman 2010; Bates et al. 2023, doi 10.1214/22-AOS2244).

        Args:
            false_alarms: in (0, 1).

        Raises:
            InputError: too few held-out groups; says how many are needed and what can be had.
        """
        needed, known = fewest_groups(1 - false_alarms), len(np.unique(self.groups))
        if known < needed:
            least = math.ceil(1000 / (known + 1)) / 1000
            most = f"accepted are at least {least:g}" if known else "accepted is none"
            raise InputError(
                f"unknown={false_alarms:g} needs held-out images of at least {needed} groups (an image without a group "
                f"is one), the model has {known}; {most}"
            )
        scores = self.distances.astype(np.float64)
        one_kind = CalibrationScores(scores, np.zeros(len(scores), np.int64), self.groups)
        return categories(one_kind, 1, 1 - false_alarms)[0].limit + SLACK

    def judged(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[list[str]]]:
        """Of features (M, D) the distances (M,), and the files of the nearest training images, nearest first."""
        found, nearest = distances(unit_length(features), self.features)
        return found, [[self.names[place] for place in row] for row in nearest.tolist()]


def unit_length(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Features (M, D) divided by their lengths; zeros stay zeros."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled


def distances(
    features: NDArray[np.floating], reference: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """How far images are from reference images, both as features of length 1, (M, D) and (R, D), R >= 1.

    The distance of an image is the Euclidean one to its third nearest reference image, in [0, 2] (Sun et al. 2022,
    "Out-of-distribution detection with deep nearest neighbors", arXiv 2204.06507); of fewer than three, to the last.

    Returns:
        Distances (M,), and the positions of the nearest `SHOWN` reference images or all, (M, <= SHOWN), nearest first.
    """
    kept = min(max(NEIGHBOURS, SHOWN), len(reference))
    other = reference.astype(np.float32)
    found, nearest = [], []
    for start in range(0, len(features), _AT_ONCE):
        alike = features[start : start + _AT_ONCE].astype(np.float32) @ other.T
        places = np.argsort(-alike, axis=1, kind="stable")[:, :kept]
        cosine = np.take_along_axis(alike, places, axis=1)[:, min(NEIGHBOURS, kept) - 1]
        found.append(np.sqrt(np.maximum(2 - 2 * cosine, 0)))
        nearest.append(places[:, :SHOWN])
    if not found:
        return np.zeros(0, np.float32), np.zeros((0, min(SHOWN, kept)), np.int64)
    return np.concatenate(found).astype(np.float32), np.concatenate(nearest).astype(np.int64)


def save_reference(path: Path, reference: ReferenceImages) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(getattr(reference, name)) for name in ("features", "distances", "groups")}
    try:
        save_file(tensors, path, metadata={"names": json.dumps(reference.names, ensure_ascii=True)})
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error).split("\n")[0]) from error


def load_reference(path: Path) -> ReferenceImages:
    """Read what `save_reference` wrote.

    Raises:
        InputError: no such file, or not what was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = json.loads((file.metadata() or {})["names"])
            arrays = {name: file.get_tensor(name) for name in ("features", "distances", "groups")}
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no names of images")
        kinds = {name: array.dtype for name, array in arrays.items()}
        if kinds != {"features": np.float16, "distances": np.float32, "groups": np.int64}:
            raise ValueError("numbers of other kinds")
        return ReferenceImages(arrays["features"], tuple(map(printable, names)), arrays["distances"], arrays["groups"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        reason = printable(str(error).split("\n")[0])[:120]
        raise InputError(f"{printable(path)} does not hold reference images: {reason}") from None
