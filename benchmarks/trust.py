"""What trust by freeze depth changes in a search, replayed on depth tables: `python -m benchmarks.trust [TASK ...]`.

Each split is replayed (`benchmarks.table_search`) with the evidence that was collected on it and with
`search.trust=evidence`, and without, from the same seeds; what the evidence costs is left out. A trial counts as

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
from functools import partial
from typing import Any

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.evidence_tables import read_evidence
from benchmarks.finished_tables import DepthTable, Floats, read_table, tabled
from benchmarks.replay import REPEATS, interval
from benchmarks.results_file import write_rows
from benchmarks.table_executor import SilentListener
from benchmarks.table_search import TRIALS, Hint, Replay, Strategy, block_evidence, replay
from search.evidence.trust import LEAST_TRUST, MOST_TRUST, Trust, trust_from_scores
from search.settings.schema import SearchSettings
from search.study.promotion import PromotionRule, Standing
from search.trial.result import EpochReport, TrialParams
from search.trial.rungs import rungs

__all__ = ["Decisions", "PlainRuleBeside", "table_scores"]

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


class PlainRuleBeside(SilentListener):
    """Listener of a study with trust that asks the rule without trust at every decision.

    Args:
        plain: the rule without trust.
        trials: of the study.
    """

    def __init__(self, plain: PromotionRule, trials: int = TRIALS) -> None:
        self._plain, self._most = plain, trials
        self._trials: dict[int, Standing] = {}
        self._asked: dict[int, bool] = {}  # slot at a rung, of which the verdict is not known -> what the rule says
        self._owing: dict[tuple[int, int], bool] = {}
        self._plainly: dict[tuple[int, int], bool] = {}

    def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:  # noqa: ARG002
        """See `StudyListener`."""
        self._trials[slot] = Standing(slot, params.freeze_depth, {}, waiting=False)

    def epoch(self, slot: int, report: EpochReport) -> None:
        """See `StudyListener`."""
        before, step = self._trials[slot], report.step + 1
        if self._asked.pop(slot, True) is False:  # it was let on at once
            self._owing[slot, before.epoch] = _below_median(before, self._all)
        self._trials[slot] = replace(
            before, scores={**before.scores, step: report.value}, waiting=step in self._plain.at
        )
        if step in self._plain.at:
            self._asked[slot] = self._passes(slot)
        self._trials[slot] = replace(self._trials[slot], waiting=False)

    def trial_waits(self, slot: int, value: float) -> None:  # noqa: ARG002
        """See `StudyListener`."""
        self._trials[slot] = replace(self._trials[slot], waiting=True)
        self._stays(slot)

    def trial_goes_on(self, slot: int, params: TrialParams, epochs: int) -> None:  # noqa: ARG002
        """See `StudyListener`."""
        if not self._passes(slot):
            self._owing[slot, epochs] = _below_median(self._trials[slot], self._all)
        self._trials[slot] = replace(self._trials[slot], waiting=False)

    def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:  # noqa: ARG002
        """See `StudyListener`."""
        self._stays(slot)
        self._trials[slot] = replace(self._trials[slot], waiting=False)

    def waiting(self) -> None:
        """See `StudyListener`."""
        for slot, trial in self._trials.items():
            if trial.waiting and self._passes(slot):
                self._plainly[slot, trial.epoch] = _below_median(trial, self._all)

    def decisions(self, winner: int) -> Decisions:
        """What was found, once the study has ended.

        Args:
            winner: slot of the trial that won.
        """
        found = Decisions()
        for (slot, rung), below in self._owing.items():
            then = [
                replace(t, scores={e: v for e, v in t.scores.items() if e <= rung}, waiting=True)
                for t in self._all
                if rung in t.scores
            ]
            if not self._plain.passes(next(t for t in then if t.slot == slot), then, closing=True):
                found.let_on.add((slot, rung))
                found.won = found.won or slot == winner
                if below:
                    found.let_on_below_median.add((slot, rung))
        for (slot, rung), below in self._plainly.items():
            if self._trials[slot].epoch == rung:
                found.stopped.add((slot, rung))
                if not below:
                    found.stopped_above_median.add((slot, rung))
        return found

    @property
    def _all(self) -> list[Standing]:
        return [trial for trial in self._trials.values() if trial.scores]

    def _passes(self, slot: int) -> bool:
        return self._plain.passes(self._trials[slot], self._all, closing=len(self._trials) >= self._most)

    def _stays(self, slot: int) -> None:
        """It waits or is stopped at the rung it came to, if it came to one."""
        if self._asked.pop(slot, False):
            trial = self._trials[slot]
            self._plainly[slot, trial.epoch] = _below_median(trial, self._all)


def _below_median(trial: Standing, trials: Sequence[Standing]) -> bool:
    others = [t.scores[trial.epoch] for t in trials if trial.epoch in t.scores and t.slot != trial.slot]
    return bool(others) and trial.scores[trial.epoch] < float(np.median(others))


def table_scores(row: dict[str, Any]) -> dict[str, Floats]:
    """E2 and E3 above their nulls, by block, of one line of a task's evidence."""
    found = {}
    for name in ("cam_stability", "train_validation_disagreement"):
        value, null = (np.array(row["scorers"][name][part], float) for part in ("values", "null_mean"))
        found[name] = value - null  # None became NaN
    return found


def _rule(table: DepthTable, trust: Trust | None = None) -> PromotionRule:
    at = rungs(table.val.shape[-1], table.batches)
    return PromotionRule(at, SearchSettings().halving_factor, trust=trust, in_full=(0,))


def _trust(scores: dict[str, Floats]) -> Trust:
    blocks = len(next(iter(scores.values())))
    return trust_from_scores(scores, tuple(f"block {b + 1}" for b in range(blocks)))


def _strategy(variant: str, scores: dict[str, Floats]) -> tuple[Strategy, Trust]:
    trust, setting = _trust(scores), {"trust": "evidence"}
    hint = Hint(scorers={name: block_evidence(name, x) for name, x in scores.items()})
    strategy = Strategy(variant, setting, hint=lambda *_: hint)
    if variant.startswith("only"):
        low = 1.0 if variant == "only above 1" else LEAST_TRUST
        high = 1.0 if variant == "only below 1" else MOST_TRUST
        trust = Trust(tuple(min(max(v, low), high) for v in trust.values), trust.reasons)
        strategy = replace(strategy, rule=partial(_rule, trust=trust))
    return strategy, trust


def _played(table: DepthTable, place: int, seed: int, strategy: Strategy) -> tuple[Replay, Decisions]:
    beside = PlainRuleBeside(_rule(table))
    run = replay(table, strategy, place, seed, listener=beside)
    return run, beside.decisions(run.won)


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
                order = np.arange(table.depths - 1)
                if variant == "permuted blocks":
                    order = np.random.default_rng([place, seed, 5]).permutation(order)
                strategy, trust = _strategy(variant, {n: x[order] for n, x in scores.items()})
                run, found = _played(table, place, seed, strategy)
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
