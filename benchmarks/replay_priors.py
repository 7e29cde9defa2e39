"""Strategies that begin with a prior over freeze depths, and the nulls of that: what `benchmarks.replay` adds.

Priors are made as a search makes them, from the scores that `benchmarks.evidence_tables` keeps, with the calibration
fitted on the other data sets; where there is no other one, uncalibrated, and the row says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.calibrate_prior import calibration_without, data_set, evidence_rows, prior_of
from benchmarks.evidence_tables import read_evidence
from benchmarks.finished_tables import TABLES, DepthTable
from benchmarks.similarity_tables import read_similarity
from benchmarks.table_search import Hint, Strategy
from search.evidence.calibration import BLIND, PARTS, Calibration, Row

__all__ = ["prior_strategies"]


def prior_strategies(table: DepthTable) -> tuple[list[Strategy], tuple[str, ...]]:
    """Strategies for one task, and the data sets their priors were fitted on; none where it has no evidence.

    Every complete split of the table must have its row of evidence; those that have not get no hint, at no cost.
    """
    rows = evidence_rows(table.name)
    if len(rows) < len(table.splits):
        return [], ()
    everything = [row for folder in TABLES.iterdir() if folder.is_dir() for row in evidence_rows(folder.name).values()]
    calibration = calibration_without(data_set(table.name), everything) or _uncalibrated(everything)
    made = list(_strategies(table, rows, calibration))
    return made, calibration.fitted_on


def _strategies(table: DepthTable, rows: dict[int, Row], calibration: Calibration) -> Iterator[Strategy]:
    costs = {raw["split"]: _costs(raw, table) for raw in read_evidence(table.name) if raw["null"] == "none"}
    for row in read_similarity(table.name):
        if row["split"] in costs:
            costs[row["split"]]["advisor"] = row["forward_passes"] / 3 / table.train
    everywhere = set.intersection(*(set(row.scores) for row in rows.values()))
    names = [name for name in next(iter(rows.values())).scores if name not in BLIND and name in everywhere]

    def strategy(label: str, hint: Callable[[DepthTable, int], Hint]) -> Strategy:
        return Strategy(f"prior: {label}", hint=hint)

    for name in (*BLIND, *names, "evidence"):
        yield strategy(name, partial(_hint, calibration, name, rows, costs))
    yield strategy("evidence, reversed", partial(_reversed, calibration, rows, costs))
    yield strategy("evidence, blocks permuted", partial(_permuted, calibration, rows, costs))
    for null, label in (("labels", "labels shuffled"), ("weights", "random weights")):
        nulls = evidence_rows(table.name, null)
        if len(nulls) >= len(table.splits):
            yield strategy(f"evidence, {label}", partial(_hint, calibration, "evidence", nulls, costs))


Costs = dict[int, dict[str, float]]


def _hint(
    calibration: Calibration, name: str, rows: dict[int, Row], costs: Costs, table: DepthTable, place: int
) -> Hint:
    split = table.splits[place]
    return Hint(prior_of(calibration, name, rows[split]), costs[split].get(name, 0.0))


def _reversed(calibration: Calibration, rows: dict[int, Row], costs: Costs, table: DepthTable, place: int) -> Hint:
    """The adversary: the most probable depth changes its probability with the least probable one, and so on."""
    hint = _hint(calibration, "evidence", rows, costs, table, place)
    assert hint.probabilities is not None  # noqa: S101 - `_hint` always has some
    order = np.argsort(hint.probabilities, kind="stable")
    turned = np.empty_like(hint.probabilities)
    turned[order] = hint.probabilities[order[::-1]]
    return Hint(turned, hint.cost)


def _permuted(calibration: Calibration, rows: dict[int, Row], costs: Costs, table: DepthTable, place: int) -> Hint:
    """s(k) in another order of the depths: what steering without knowledge is worth."""
    split = table.splits[place]
    order = np.random.default_rng([split, 9]).permutation(table.depths)
    scores = {name: s[order] for name, s in rows[split].scores.items()}
    return _hint(calibration, "evidence", {split: replace(rows[split], scores=scores)}, costs, table, place)


def _costs(raw: dict[str, Any], table: DepthTable) -> dict[str, float]:
    """Epochs of training everything that each scorer costs alone, and all of them together ("evidence").

    A forward pass is a third of a training image; a backward pass without weight gradients counts as two.
    """
    whole = (raw["cost"]["forward_passes"] + 2 * raw["cost"]["backward_passes"]) / 3 / table.train
    seconds = raw["cost"]["seconds"]
    alone = {name: whole * min(one["seconds"] / seconds, 1.0) for name, one in raw["scorers"].items()}
    return alone | {"evidence": whole}


def _uncalibrated(rows: list[Row]) -> Calibration:
    """Every scorer believed alike: tau 1 on s(k) divided by its own spread, and no static preference."""
    names = {name for row in rows for name in row.scores if name not in BLIND}
    return Calibration((1 / 9,) * 9, dict.fromkeys(names, 1.0), {}, dict.fromkeys(PARTS, 1.0), (), "uncalibrated")
