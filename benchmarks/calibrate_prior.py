"""Fits what the priors are made with: `python -m benchmarks.calibrate_prior [write]`.

Reads every complete depth table that has evidence (`benchmarks.evidence_tables`) and prints, for each data set left out
of the fit, what each prior is worth there: the expected quality of a freeze depth drawn from it against one drawn
uniformly, in points, and how far its mode stays behind the best depth. Tasks cut from the same pictures are one data
set; planted tasks are looked at, never fitted on. With `write`, search/evidence/calibration.json is
replaced by the fit on all data sets, if there are at least two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import search.evidence.calibration
from benchmarks.evidence_tables import read_evidence
from benchmarks.finished_tables import TABLES, DepthTable, Floats, read_table
from benchmarks.planted_tasks import PLANTED
from benchmarks.results_file import write_rows
from benchmarks.similarity_tables import read_similarity
from explain.evidence.advisor import advise
from explain.evidence.prior import LEAST_FLOOR
from search.evidence.calibration import BLIND, Calibration, Row, fit
from search.evidence.record import prior_mode

__all__ = ["calibration_without", "data_set", "depth_gains", "evidence_rows", "prior_of"]

FILE = Path(search.evidence.calibration.__file__).with_suffix(".json")


def data_set(task: str) -> str:
    """Which pictures a task is made of."""
    return "neu" if task.startswith("neu") or task in PLANTED else task


def depth_gains(table: DepthTable, place: int, scored_on: NDArray[np.int64] | None = None) -> Floats:
    """(depths,) quality of the configuration with the best validation score at each depth in a split.

    Args:
        table: the curves.
        place: of the split in the table's arrays.
        scored_on: places of the splits whose mean test score is the quality; None for all *other* ones.
    """
    quality = table.test[table.without(place) if scored_on is None else scored_on].mean(0)
    gains = np.zeros(table.depths)
    for depth in range(table.depths):
        best = np.unravel_index(table.val[place, depth].argmax(), table.val.shape[2:])
        gains[depth] = quality[depth][best]
    return gains


def evidence_rows(task: str, null: str = "none") -> dict[int, Row]:
    """What the scorers said on the complete splits of a task, by split.

    Args:
        task: name of its table.
        null: "none", or which null is read instead.
    """
    try:
        table = read_table(task)
    except SystemExit:
        return {}
    found = {}
    advisor = {row["split"]: _advised(row, table.depths) for row in read_similarity(task)}
    for raw in read_evidence(task):
        if raw["null"] == null and raw["split"] in table.splits:
            scores = {name: _numbers(one["depth_scores"]) for name, one in raw["scorers"].items()}
            trivial = {"deepest": np.eye(table.depths)[-1], "monotone": np.linspace(0, 1, table.depths)}
            if raw["split"] in advisor and null == "none":
                scores["advisor"] = advisor[raw["split"]]
            gains = depth_gains(table, table.splits.index(raw["split"]))
            found[raw["split"]] = Row(task, scores | trivial | {"static": np.zeros(table.depths)}, gains)
    return dict(sorted(found.items()))


def _advised(row: Mapping[str, Any], depths: int) -> Floats:
    """s(k) of the scorer `advisor` on one split."""
    advice = advise(
        depths - 1,
        images_per_class=row["images_per_class"],
        gain=float("nan") if row["gain"] is None else row["gain"],
        distance=row["distance"],
    )
    return np.asarray(-np.abs(np.arange(depths) - advice.depth) / (depths - 1), dtype=np.float64)


def calibration_without(name: str, rows: Iterable[Row]) -> Calibration | None:
    """The calibration that a task of data set `name` may be judged by; None where there is no other data set."""
    others = [row for row in rows if data_set(row.task) != name and row.task not in PLANTED]
    return fit(others, f"without {name}") if others else None


def prior_of(calibration: Calibration, name: str, row: Row) -> Floats:
    """The prior that a scorer, "evidence" or "uniform" gives on a split, (depths,)."""
    depths = len(row.gains)
    if name == "uniform":
        return np.full(depths, 1 / depths)
    return calibration.prior(name, row.scores, LEAST_FLOOR).probabilities


def judge(calibration: Calibration, name: str, rows: Sequence[Row]) -> dict[str, float]:
    """Mean gain over uniform in expectation, and regret of the mode, in points."""
    expected, regret = [], []
    for row in rows:
        pi = prior_of(calibration, name, row)
        expected.append(100 * float(pi @ row.gains - row.gains.mean()))
        regret.append(100 * float(row.gains.max() - row.gains[prior_mode(pi, 0, len(pi) - 1)]))
    return {"gain": round(float(np.mean(expected)), 3) + 0.0, "regret": round(float(np.mean(regret)), 3) + 0.0}


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _report(rows: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    everything = [row for of in rows.values() for row in of]
    names = ["uniform", *BLIND, *(n for n in everything[0].scores if n not in BLIND), "evidence"]
    results: list[dict[str, Any]] = []
    for task, of in rows.items():
        calibration = calibration_without(data_set(task), everything)
        if calibration is None:
            Console().print(f"{task}: no other data set to fit on, so nothing is left out; not judged")
            continue
        shown = Table("prior", "gain over uniform, points", "regret of its mode, points", "tau")
        for name in names:
            if name == "advisor" and any(name not in row.scores for row in of):
                continue  # python -m benchmarks.similarity_tables has not measured this task
            found = judge(calibration, name, of)
            tau = calibration.joint if name == "evidence" else calibration.taus.get(name, "")
            shown.add_row(name, f"{found['gain']:+.2f}", f"{found['regret']:.2f}", str(tau if tau != "" else "-"))
            results.append(
                {"task": task, "prior": name, "splits": len(of), "fitted_on": calibration.fitted_on, **found}
            )
        title = f"{task}: {len(of)} splits, fitted on {', '.join(calibration.fitted_on)}"
        Console().print(title, shown, sep="\n")
    return results


def main(arguments: list[str]) -> int:
    """Fit, judge and, with `write`, replace the file."""
    if unknown := [a for a in arguments if a != "write"]:
        print(f"calibrate_prior: unknown argument {unknown[0]!r}; accepted: write", file=sys.stderr)
        return 2
    names = sorted(folder.name for folder in TABLES.iterdir() if folder.is_dir())
    rows = {name: of for name in names if (of := list(evidence_rows(name).values()))}
    if not rows:
        print(
            "calibrate_prior: no complete table has evidence; run python -m benchmarks.evidence_tables", file=sys.stderr
        )
        return 2
    results = _report(rows)
    real = [row for name, of in rows.items() if name not in PLANTED for row in of]
    sets = sorted({data_set(row.task) for row in real})
    counts = ", ".join(f"{name} ({len(of)} splits)" for name, of in rows.items() if name not in PLANTED)
    calibration = fit(real, f"Fitted on {counts} by benchmarks/calibrate_prior.py.") if real else None
    if calibration is not None:
        Console().print(json.dumps(calibration.to_json(), indent=1), highlight=False, markup=False)
    if "write" in arguments:
        if calibration is None or len(sets) < 2:
            print(f"calibrate_prior: needs two data sets, there is {', '.join(sets) or 'none'}", file=sys.stderr)
            return 2
        FILE.write_text(json.dumps(calibration.to_json(), indent=1) + "\n", encoding="utf-8")
        write_rows("priors", results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
