"""What trust by freeze depth changes in a search, replayed on depth tables: `python -m benchmarks.trust [TASK ...]`.

Each split is replayed with the evidence that was collected on it, and without, from the same seeds. A trial counts as

- *let on* when trust lets it pass a rung where the plain rule would not, then or when the study ends;
- *stopped* when the plain rule would have let it pass at some time, and with trust it never does.

Beside them: how many of those let on were below the median of the others' scores at that epoch (which the median rule
stops), and how many of those stopped were not (which it keeps). What it gained or cost is the difference to the plain
rule in the winner's quality and in epochs of training everything, for trust as a whole, for its two directions alone
(trust above 1, trust below 1), and for the trust of the same numbers in permuted block order, its null; and, for trust
as a whole, the difference to that null.
Intervals: bootstrap over splits, then replays. Rows go to benchmarks/results/trust.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.evidence_tables import read_evidence
from benchmarks.finished_tables import DepthTable, read_table, tabled
from benchmarks.replay import interval
from benchmarks.replay_engine import TRIALS, Replay, Strategy, replay
from benchmarks.results_file import write_rows
from search.evidence.trust import LEAST_TRUST, MOST_TRUST, Trust, trust_from_scores
from search.study.promotion import PromotionRule, Standing, rungs

__all__ = ["Decisions", "WatchedRule", "table_scores"]

REPEATS, FACTOR = 20, 3
VARIANTS = ("trust", "only above 1", "only below 1", "permuted blocks")


@dataclass
class Decisions:
    """Where trust and the plain rule part ways in one replay: (slot, rung) each.

    Attributes:
        let_on: trust lets it pass, the plain rule does not.
        let_on_below_median: of these, below the median of the others at that epoch.
        stopped: the other way round.
        stopped_above_median: of these, not below that median.
        won: whether a trial that was let on won.
    """

    let_on: set[tuple[int, int]] = field(default_factory=set)
    let_on_below_median: set[tuple[int, int]] = field(default_factory=set)
    stopped: set[tuple[int, int]] = field(default_factory=set)
    stopped_above_median: set[tuple[int, int]] = field(default_factory=set)
    won: bool = False


class WatchedRule(PromotionRule):
    """The rule with trust, which keeps what the plain one says at every decision."""

    def __init__(self, at: Sequence[int], factor: float, trust: Trust) -> None:
        super().__init__(at, factor, trust=trust)
        self.plain = PromotionRule(at, factor)
        self._owing: dict[tuple[int, int], bool] = {}
        self._plainly: dict[tuple[int, int], bool] = {}
        self._last: list[Standing] = []

    def next(self, trials: Sequence[Standing], *, closing: bool = False) -> int | None:
        """As the rule with trust says."""
        self._last = list(trials)
        for trial in trials:
            if trial.waiting and self.plain.passes(trial, trials, closing=closing):
                self._plainly[trial.slot, trial.epoch] = _below_median(trial, trials)
        slot = super().next(trials, closing=closing)
        if slot is not None:
            trial = next(t for t in trials if t.slot == slot)
            if self.owes_to_trust(trial, trials, closing=closing):
                self._owing[slot, trial.epoch] = _below_median(trial, trials)
        return slot

    def decisions(self, epochs: int) -> Decisions:
        """What was found, once the replay has ended."""
        found = Decisions()
        won = max((t for t in self._last if t.epoch == epochs), key=lambda t: (max(t.scores.values()), t.freeze_depth))
        for (slot, rung), below in self._owing.items():
            trial = next(t for t in self._last if t.slot == slot)
            then = [
                replace(t, scores={e: v for e, v in t.scores.items() if e <= rung}, waiting=True)
                for t in self._last
                if rung in t.scores
            ]
            if not self.plain.passes(next(t for t in then if t.slot == slot), then, closing=True):
                found.let_on.add((slot, rung))
                found.won = found.won or trial is won
                if below:
                    found.let_on_below_median.add((slot, rung))
        for (slot, rung), below in self._plainly.items():
            if next(t for t in self._last if t.slot == slot).epoch == rung:
                found.stopped.add((slot, rung))
                if not below:
                    found.stopped_above_median.add((slot, rung))
        return found


def _below_median(trial: Standing, trials: Sequence[Standing]) -> bool:
    others = [t.scores[trial.epoch] for t in trials if trial.epoch in t.scores and t.slot != trial.slot]
    return bool(others) and trial.scores[trial.epoch] < float(np.median(others))


def table_scores(row: dict[str, Any]) -> dict[str, np.ndarray]:
    """E2 and E3 above their nulls, by block, of one line of a task's evidence."""
    found = {}
    for name in ("cam_stability", "train_validation_disagreement"):
        value, null = (np.array(row["scorers"][name][part], float) for part in ("values", "null_mean"))
        found[name] = value - null  # None became NaN
    return found


def _trust(variant: str, scores: dict[str, np.ndarray], rng: np.random.Generator) -> Trust:
    blocks = len(next(iter(scores.values())))
    if variant == "permuted blocks":
        order = rng.permutation(blocks)
        scores = {name: x[order] for name, x in scores.items()}
    trust = trust_from_scores(scores, tuple(f"block {b + 1}" for b in range(blocks)))
    low = 1.0 if variant == "only above 1" else LEAST_TRUST
    high = 1.0 if variant == "only below 1" else MOST_TRUST
    return Trust(tuple(min(max(v, low), high) for v in trust.values), trust.reasons)


def _played(table: DepthTable, place: int, seed: int, trust: Trust) -> tuple[Replay, Decisions]:
    epochs = table.val.shape[-1]
    rule = WatchedRule(rungs(epochs, table.batches), FACTOR, trust)
    run = replay(table, Strategy("watched", rule=lambda _: rule), place, seed)
    return run, rule.decisions(epochs)


def measure(name: str) -> list[dict[str, Any]]:
    """One row a variant; none where no complete split has evidence."""
    evidence = {row["split"]: row for row in read_evidence(name) if row["null"] == "none"}
    table = read_table(name)
    places = [place for place, split in enumerate(table.splits) if split in evidence]
    if not places:
        return []
    plain = {(p, s): replay(table, Strategy("plain"), p, s) for p in places for s in range(REPEATS)}
    rows: list[dict[str, Any]] = []
    differences: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for variant in VARIANTS:
        gains, costs, values = [], [], []
        decisions: list[Decisions] = []
        for place in places:
            scores = table_scores(evidence[table.splits[place]])
            gain, cost = [], []
            for seed in range(REPEATS):
                trust = _trust(variant, scores, np.random.default_rng([place, seed, 5]))
                run, found = _played(table, place, seed, trust)
                gain.append(100 * (run.winner - plain[place, seed].winner))
                cost.append(float(run.cost[-1] - plain[place, seed].cost[-1]))
                decisions.append(found)
            gains.append(gain)
            costs.append(cost)
            values.append(trust.values)
        differences[variant] = np.array(gains), np.array(costs)
        rows.append(
            {
                "task": name, "variant": variant, "splits": len(places), "replays": len(decisions),
                "trials": TRIALS, "mean_trust": [round(float(v), 3) for v in np.mean(values, axis=0)],
                "plain_epochs": round(float(np.mean([r.cost[-1] for r in plain.values()])), 2),
                "winner_points": [round(v, 3) for v in interval(gains)],
                "epochs": [round(v, 3) for v in interval(costs)],
                "won_by_let_on": sum(d.won for d in decisions),
                **{
                    part: round(float(np.mean([len(getattr(d, part)) for d in decisions])), 3)
                    for part in ("let_on", "let_on_below_median", "stopped", "stopped_above_median")
                },
            }
        )  # fmt: skip
    points, epochs = (a - b for a, b in zip(differences[VARIANTS[0]], differences[VARIANTS[-1]], strict=True))
    rows[0]["winner_points_over_permuted"] = [round(v, 3) for v in interval(points.tolist())]
    rows[0]["epochs_over_permuted"] = [round(v, 3) for v in interval(epochs.tolist())]
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    shown = Table(
        "variant", "let on (below median)", "stopped (above median)", "winner, points", "epochs", "let-on trial won"
    )
    for row in rows:
        points, epochs = row["winner_points"], row["epochs"]
        shown.add_row(
            row["variant"],
            f"{row['let_on']:.2f} ({row['let_on_below_median']:.2f})",
            f"{row['stopped']:.2f} ({row['stopped_above_median']:.2f})",
            f"{points[0]:+.2f} ({points[1]:+.2f} to {points[2]:+.2f})",
            f"{epochs[0]:+.1f} ({epochs[1]:+.1f} to {epochs[2]:+.1f})",
            f"{row['won_by_let_on']} of {row['replays']}",
        )
    title = (
        f"{first['task']}: {first['splits']} splits x {REPEATS} replays of {TRIALS} trials, against the plain rule, "
        f"which takes {first['plain_epochs']:.1f} epochs. Mean trust by depth: "
        + " ".join(f"{v:.2f}" for v in first["mean_trust"])
    )
    over = [first[f"{name}_over_permuted"] for name in ("winner_points", "epochs")]
    line = "Trust against permuted blocks: " + ", ".join(
        f"{mean:+.2f} {unit} ({low:+.2f} to {high:+.2f})"
        for (mean, low, high), unit in zip(over, ("points", "epochs"), strict=True)
    )
    Console().print(title, shown, line, sep="\n")


def main(names: list[str]) -> int:
    """Replay the tasks named, or all that have tables."""
    try:
        names = tabled(names)
    except ValueError as error:
        print(f"trust: {error}", file=sys.stderr)
        return 2
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            measured = measure(name)
        except SystemExit as incomplete:
            print(incomplete, file=sys.stderr)
            continue
        if not measured:
            print(f"trust: no evidence of a complete split of {name}", file=sys.stderr)
            continue
        _print(measured)
        rows += measured
    if not rows:
        return 2
    write_rows("trust", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
