"""How far each scorer is trusted, learned on depth tables of other data sets by `python -m benchmarks.calibrate_prior`.

pi(k) = (1 - eps) softmax_k(ln pi0(k) + tau s(k) / scale) + eps / (L+1). pi0 is a table over *relative* depth k / L; tau
and scale belong to a scorer. With gains g(k), the quality of the best configuration at depth k in a table, they
maximise

    J = mean over splits of [ E_pi g - T KL(pi || pi0) ] - ridge tau^2

at eps = 0: a conditional logit whose free parameters are few and bounded. T is a difference in quality that counts as
noise. For pi0 the same with a uniform start has the closed form pi0(k) ~ exp(mean g(k) / T). Where more of a scorer
does not help, tau = 0: then it says nothing. L is the number of blocks; freeze depths k run from 0 to L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from explain.evidence import DepthPrior, depth_prior
from explain.evidence.registry import used_as
from explain.evidence.scores import Numbers

__all__ = ["BLIND", "PARTS", "Calibration", "Row", "fit", "load", "objective", "standardised"]

PARTS = used_as("part")
"""What the prior "evidence" is the sum of, each with a tau of its own."""

BLIND = used_as("blind")
"""Priors that look at no image."""

NOISE = 0.02
"""T: two points of macro F1, about what the quality of one depth differs by between splits of NEU."""

_BY_DEFINITION = tuple(name for name in used_as("blind", "similarity") if name != "static")
_FILE = Path(__file__).with_suffix(".json")
_GRID = 9  # places of relative depth in the static table
_TAUS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_RIDGE = 0.0005  # of tau^2, in units of quality: tau = 1 must be worth a twentieth of a point


@dataclass(frozen=True)
class Calibration:
    """What the priors are made with.

    Attributes:
        table: static prior over relative depths 0, 1/8, .., 1, together 1.
        taus: by scorer, >= 0, when it is used alone; one without has no weight.
        scales: by scorer, > 0: spread of s(k) over the depths; without one, s(k) is divided by its own spread.
        joint: by member of `PARTS`, >= 0, when they are used together; likewise.
        fitted_on: tables it was fitted on; empty if it is not calibrated.
        about: in a sentence or two, for readers.
    """

    table: tuple[float, ...]
    taus: Mapping[str, float]
    scales: Mapping[str, float]
    joint: Mapping[str, float]
    fitted_on: tuple[str, ...]
    about: str

    def static(self, blocks: int) -> Numbers:
        """The static prior for a network of L blocks, (L+1,), together 1."""
        found = np.interp(np.linspace(0, 1, blocks + 1), np.linspace(0, 1, len(self.table)), self.table)
        return np.asarray(found / found.sum(), dtype=np.float64)

    def combined(self, scores: Mapping[str, Numbers]) -> Numbers:
        """s(k) of "evidence", (L+1,): the sum of tau s / scale over the parts that were scored; NaN where none knows.

        Args:
            scores: s(k) by scorer, (L+1,) each; of one part at least.
        """
        parts = [self.joint.get(name, 0.0) * self._scaled(name, scores[name]) for name in PARTS if name in scores]
        stacked = np.stack(parts)
        return np.where(np.isfinite(stacked).any(axis=0), np.nansum(stacked, axis=0), np.nan)

    def prior(self, name: str, scores: Mapping[str, Numbers], floor: float) -> DepthPrior:
        """The prior that a scorer gives.

        Args:
            name: a scorer, or "evidence".
            scores: s(k) by scorer, (L+1,) each; positive = better.
            floor: eps, in [0.2, 1].
        """
        if name == "evidence":
            s = self.combined(scores)
            return depth_prior(s, eps=floor, pi0=self.static(len(s) - 1))
        s = scores[name]
        if name in _BY_DEFINITION:  # neither calibrated nor helped by the table
            return depth_prior(standardised(s), eps=floor)
        tau = 0.0 if name == "static" else self.taus.get(name, 0.0)
        found = depth_prior(self._scaled(name, s), tau=tau, eps=floor, pi0=self.static(len(s) - 1))
        return replace(found, notes=(*found.notes, *self.without_weight(name)))

    def without_weight(self, name: str) -> tuple[str, ...]:
        """Sentences about a scorer whose prior is the static one, and about parts that add nothing to "evidence"."""
        if name == "evidence":
            return tuple(f"{part} is not calibrated and has no weight" for part in PARTS if part not in self.joint)
        if name == "static" or name in _BY_DEFINITION or self.taus.get(name, 0.0):
            return ()
        why = "did not help on other data sets" if name in self.taus else "is not calibrated"
        return (f"{name} {why} and has no weight: its prior is the static one",)

    def _scaled(self, name: str, s: Numbers) -> Numbers:
        return standardised(s, self.scales.get(name))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = TypeAdapter(Calibration).dump_python(self, mode="json")
        return found


@dataclass(frozen=True, eq=False)
class Row:
    """What is known of one split of one task.

    Attributes:
        scores: s(k) by scorer, (L+1,) each.
        gains: quality of the best configuration by depth, in [0, 1], (L+1,).
    """

    task: str
    scores: Mapping[str, Numbers]
    gains: Numbers


def standardised(s: Numbers, scale: float | None = None) -> Numbers:
    """(s - mean over the known depths) / scale; without a scale, / their standard deviation. NaN stays NaN.

    All known depths are 0 where they do not differ.
    """
    known = np.isfinite(s)
    if not known.any():
        return s
    centred = s - s[known].mean()
    spread = float(centred[known].std())
    if spread <= 1e-12 * max(1.0, float(np.abs(s[known]).max())):
        return np.where(known, 0.0, np.nan)
    return np.asarray(centred / (scale or spread), dtype=np.float64)


def objective(pi: Numbers, pi0: Numbers, gains: Numbers) -> float:
    """E_pi g - T KL(pi || pi0) of one split, g relative to its mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(pi > 0, np.log(pi / pi0), 0.0)
    return float(pi @ (gains - gains.mean()) - NOISE * (pi @ ratio))


def fit(rows: Sequence[Row], about: str = "") -> Calibration:
    """Fit the static table, and tau and scale of every scorer.

    Every task counts alike, whatever its number of splits.

    Args:
        rows: splits of one or more tasks.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one split, got none")
    tasks = tuple(dict.fromkeys(row.task for row in rows))
    weights = np.array([1 / sum(other.task == row.task for other in rows) / len(tasks) for row in rows])
    grid = np.linspace(0, 1, _GRID)
    curves = [np.interp(grid, np.linspace(0, 1, len(row.gains)), row.gains - row.gains.mean()) for row in rows]
    table = np.exp(np.clip(weights @ np.stack(curves) / NOISE, -6, 6))
    names = list(dict.fromkeys(name for row in rows for name in row.scores if name not in BLIND))
    scales = {name: scale for name in names if (scale := _scale(rows, weights, name)) > 0}
    plain = Calibration(tuple(float(v) for v in table / table.sum()), {}, scales, {}, tasks, about)
    taus = {name: _best(plain, rows, weights, (name,))[0] for name in names}
    parts = tuple(part for part in PARTS if part in names)
    joint = _best(plain, rows, weights, parts)
    joint_taus = dict.fromkeys(PARTS, 0.0) | dict(zip(parts, joint, strict=True))
    return Calibration(plain.table, taus, scales, joint_taus, tasks, about)


def _scale(rows: Sequence[Row], weights: Numbers, name: str) -> float:
    """Root of the mean variance of s(k) over the depths."""
    found = [(w, float(np.nanvar(row.scores[name]))) for w, row in zip(weights, rows, strict=True)
             if name in row.scores and np.isfinite(row.scores[name]).any()]  # fmt: skip
    return float(np.sqrt(np.average([v for _, v in found], weights=[w for w, _ in found]))) if found else 0.0


def _best(plain: Calibration, rows: Sequence[Row], weights: Numbers, names: tuple[str, ...]) -> tuple[float, ...]:
    """The taus that are best together, on a grid: exact, bounded, and the smaller one of equals."""
    prepared = []
    for weight, row in zip(weights, rows, strict=True):
        pi0 = plain.static(len(row.gains) - 1)
        parts = [standardised(row.scores[n], plain.scales.get(n)) for n in names if n in row.scores]
        absent = np.zeros((len(names) - len(parts), len(row.gains)))
        stacked = np.vstack([*[np.nan_to_num(part) for part in parts], absent])
        prepared.append((weight, pi0, stacked, row.gains))
    best, found = -np.inf, (0.0,) * len(names)
    for taus in product(_TAUS, repeat=len(names)):
        value = -_RIDGE * float(np.sum(np.square(taus)))
        for weight, pi0, stacked, gains in prepared:
            logits = np.log(pi0) + np.array(taus) @ stacked
            pi = np.exp(logits - logits.max())
            value += weight * objective(pi / pi.sum(), pi0, gains)
        if value > best + 1e-12:
            best, found = value, taus
    return found


@cache
def load(file: Path = _FILE) -> Calibration:
    """The calibration of this version."""
    return TypeAdapter(Calibration).validate_json(file.read_bytes())
