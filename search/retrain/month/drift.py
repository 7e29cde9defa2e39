"""What has changed between the champion's baseline and a month of new images. It annotates a month; it gates nothing.

Every p-value is from the same random permutations: which images are old and which are new is drawn again, whole groups
at a time, and each statistic computed anew, so ties, rare classes and images of one plate need no approximation. n
images in both samples, L blocks, P permutations. Nothing here loads torch but through `baseline`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explain.evidence.train_validation_disagreement import kolmogorov_smirnov
from search.retrain.month.baseline import MEASURES, Baseline, measure_baseline
from search.significance import chi_square, holm, memberships, p_value, squared_mmd

__all__ = ["LEVEL", "Baseline", "BlockShift", "Drift", "Shift", "compare_drift", "measure_baseline"]

LEVEL = 0.05
"""Adjusted p-values below it count as a change: one month in twenty is named where nothing changes, by family."""

Numbers = NDArray[np.float64]
Members = NDArray[np.bool_]

_SCALARS = {"brightness": "brightness", "contrast": "contrast", "confidence": "the champion's confidence"}


@dataclass(frozen=True)
class Shift:
    """One statistic of old against new.

    Attributes:
        name: features, label_mix, brightness, contrast or confidence.
        statistic: squared MMD of the features (>= 0 in expectation, 0 without drift, at most 2); Pearson's chi-square
            of the classes; largest distance of two distribution functions (KS, in [0, 1]) of the others.
        p_value: of the permutations, at least 1 / (P + 1).
        adjusted: after Holm over these five.
        old: mean of the old images, where it is one number an image; else NaN.
        new: mean of the new ones.
    """

    name: str
    statistic: float
    p_value: float
    adjusted: float
    old: float = math.nan
    new: float = math.nan

    @property
    def seen(self) -> bool:
        """Whether it is more than chance."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class BlockShift:
    """How far one block's maps have moved.

    Attributes:
        block: its name.
        statistic: the largest KS distance of its measures, in [0, 1].
        p_value: of the permutations, of that largest one.
        adjusted: after Holm over the L blocks.
        measures: KS distance by measure (entropy, area, dispersion).
    """

    block: str
    statistic: float
    p_value: float
    adjusted: float
    measures: dict[str, float]

    @property
    def seen(self) -> bool:
        """Whether it is more than chance."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class Drift:
    """Everything that was compared.

    Attributes:
        images: in the old sample, and in the new one.
        groups: likewise; as many as images where no groups are known.
        permutations: P.
        shifts: features, label_mix, brightness, contrast, confidence.
        blocks: by block, first to last.
        counts: class -> (old images, new images), of the whole sets, in the order of the old classes, then new ones.
    """

    images: tuple[int, int]
    groups: tuple[int, int]
    permutations: int
    shifts: tuple[Shift, ...]
    blocks: tuple[BlockShift, ...]
    counts: dict[str, tuple[int, int]]

    def __getitem__(self, name: str) -> Shift:
        """A shift by name; KeyError if there is none."""
        return {shift.name: shift for shift in self.shifts}[name]

    def lines(self) -> list[str]:
        """What has changed, a sentence each; what has not, in the last one."""
        said = []
        for name, words in _SCALARS.items():
            shift = self[name]
            if shift.seen:
                said.append(
                    f"{words[0].upper()}{words[1:]} {'rose' if shift.new > shift.old else 'fell'} from "
                    f"{shift.old:.3f} to {shift.new:.3f} (KS {shift.statistic:.2f}, {_p(shift.adjusted)})."
                )
        if self["label_mix"].seen:
            said.append(f"The mix of classes changed ({_p(self['label_mix'].adjusted)}): {self._moved()}.")
        if (shift := self["features"]).seen:
            said.append(
                f"What the champion computes of the images changed (MMD² {shift.statistic:.4f}, {_p(shift.adjusted)})."
            )
        if moved := [block for block in self.blocks if block.seen]:
            shown = ", ".join(f"{block.block} (KS {block.statistic:.2f})" for block in moved)
            said.append(f"Where blocks look changed in {len(moved)} of {len(self.blocks)}: {shown}.")
        still = [{**_SCALARS, "label_mix": "the mix of classes", "features": "the champion's features"}[shift.name]
                 for shift in self.shifts if not shift.seen]  # fmt: skip
        still += [] if moved else ["where its blocks look"]
        if still:
            said.append(
                f"No change shown of {', '.join(still)}, with {self.images[0]} old and {self.images[1]} new images."
            )
        return said

    def metrics(self) -> dict[str, float]:
        """Flat numbers for MLflow; what is not known is left out."""
        found = {"drift_images_old": float(self.images[0]), "drift_images_new": float(self.images[1])}
        for shift in self.shifts:
            found[f"drift_{shift.name}"] = shift.statistic
            found[f"drift_{shift.name}_p"] = shift.adjusted
            for when in ("old", "new"):
                if not math.isnan(mean := getattr(shift, when)):
                    found[f"drift_{shift.name}_{when}"] = mean
        for block in self.blocks:
            found[f"drift_maps/{block.block}"] = block.statistic
            found[f"drift_maps_p/{block.block}"] = block.adjusted
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        shifts = [
            {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in asdict(s).items()
            }
            for s in self.shifts
        ]
        return {**asdict(self), "shifts": shifts}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Drift:
        """What `to_json` gave, also after a way through JSON."""
        given: list[dict[str, Any]] = [
            {name: math.nan if value is None else value for name, value in one.items()} for one in values["shifts"]
        ]
        return Drift(
            images=(values["images"][0], values["images"][1]),
            groups=(values["groups"][0], values["groups"][1]),
            permutations=values["permutations"],
            shifts=tuple(Shift(**one) for one in given),
            blocks=tuple(BlockShift(**one) for one in values["blocks"]),
            counts={name: (old, new) for name, (old, new) in values["counts"].items()},
        )

    def _moved(self) -> str:
        """The three classes whose share moved most."""
        old, new = (max(1, sum(pair[which] for pair in self.counts.values())) for which in (0, 1))
        shares = {name: (a / old, b / new) for name, (a, b) in self.counts.items()}
        most = sorted(shares, key=lambda name: -abs(shares[name][1] - shares[name][0]))[:3]
        return ", ".join(f"{name} {shares[name][0]:.0%} → {shares[name][1]:.0%}" for name in most)


def compare_drift(baseline: Baseline, new: Baseline, *, seed: int = 0, permutations: int = 500) -> Drift:
    """Compare two samples as the same champion shows them.

    MMD² is the unbiased estimate with a Gaussian kernel exp(-|x - y|² / (2 h²)), h the median distance of all pairs
    (Gretton et al. 2012, JMLR 13). Where images of one group are alike, only whole groups are permuted.

    Args:
        baseline: the old images.
        new: the new ones, measured with the same champion.
        seed: of the permutations.
        permutations: P, >= 99; p-values cannot be below 1 / (P + 1).

    Raises:
        ValueError: other blocks or features, fewer than two images in one of them, or too few permutations.
    """
    if baseline.blocks != new.blocks or baseline.features.shape[1:] != new.features.shape[1:]:
        raise ValueError(f"new must be of the same network ({', '.join(baseline.blocks)}), got {', '.join(new.blocks)}")
    if min(len(baseline), len(new)) < 2:
        raise ValueError(f"both samples must hold at least 2 images, got {len(baseline)} and {len(new)}")
    if permutations < 99:
        raise ValueError(f"permutations must be at least 99, got {permutations}")
    groups = np.concatenate([baseline.groups, new.groups + baseline.groups.max() + 1])
    is_new = np.arange(len(groups)) >= len(baseline)
    members = memberships(groups, is_new, permutations, np.random.default_rng(seed))

    names = list(dict.fromkeys([*baseline.counts, *new.counts]))
    labels = [names.index(one.classes[label]) for one in (baseline, new) for label in one.labels]
    found: dict[str, tuple[Numbers, float, float]] = {
        "features": (squared_mmd(np.concatenate([baseline.features, new.features]), members), math.nan, math.nan),
        "label_mix": (chi_square(np.array(labels), members), math.nan, math.nan),
    }
    for name in _SCALARS:
        old, recent = (getattr(one, name).astype(np.float64) for one in (baseline, new))
        draws = kolmogorov_smirnov(np.concatenate([old, recent]), members)
        found[name] = (draws, float(old.mean()), float(recent.mean()))
    p_values = [p_value(draws) for draws, _, _ in found.values()]
    shifts = tuple(
        Shift(name, float(draws[0]), p, adjusted, old, recent)
        for (name, (draws, old, recent)), p, adjusted in zip(found.items(), p_values, holm(p_values), strict=True)
    )
    return Drift(
        images=(len(baseline), len(new)),
        groups=(len(np.unique(baseline.groups)), len(np.unique(new.groups))),
        permutations=permutations,
        shifts=shifts,
        blocks=_block_shifts(baseline, new, members),
        counts={name: (baseline.counts.get(name, 0), new.counts.get(name, 0)) for name in names},
    )


def _block_shifts(baseline: Baseline, new: Baseline, members: Members) -> tuple[BlockShift, ...]:
    statistics, p_values = [], []
    for number in range(len(baseline.blocks)):
        by_measure = []
        for name in MEASURES:
            both = np.concatenate([one.measures[name][number] for one in (baseline, new)])
            # All measures are >= 0; a dead map is beyond the least of them, so that dying maps are a shift.
            values: Numbers = np.nan_to_num(both.astype(np.float64), nan=-1.0)
            by_measure.append(kolmogorov_smirnov(values, members))
        statistics.append({name: float(draws[0]) for name, draws in zip(MEASURES, by_measure, strict=True)})
        p_values.append(p_value(np.max(by_measure, axis=0)))
    return tuple(
        BlockShift(block, max(one.values()), p, adjusted, one)
        for block, one, p, adjusted in zip(baseline.blocks, statistics, p_values, holm(p_values), strict=True)
    )


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"
