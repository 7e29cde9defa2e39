"""What is printed when a search ends: the best trials, the winner's test scores, where everything is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from search.outcome.log import EVIDENCE_FIGURE
from search.outcome.scorecard import ScorecardRow, SeenDepth, scorecard, seen_depths
from search.study.bought import DEFAULT_SLOT
from search.study.judge import best_seen, rank
from search.study.record import StudyRecord, TrialRecord, Winner, first_network, of_evidence
from search.study.run import StudyRun
from search.trial.result import TrialParams
from search.words import epoch_count, interval_known, times

__all__ = ["print_scorecard", "print_trials", "print_where", "print_winner", "titled_table"]

_WIDE = 80  # columns from which epochs and seconds are shown too
_NARROW = 60  # columns at which the scorecard has room for the first four of ten freeze depths


def titled_table(title: str) -> Table:
    """An empty table as a search prints it."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def print_trials(console: Console, record: StudyRecord, metric: str, top: int = 8) -> None:
    """The best trials of the study as a table, complete ones first; then how the evidence did beside them."""
    trials = record.finished()
    ranked = sorted(trials, key=rank)
    table = titled_table(f"Best {min(top, len(trials))} of {len(trials)} finished trials")
    longest = max((len(trial.network or "") for trial in trials), default=0)
    network = ["network"] if longest else []
    wide = console.width >= _WIDE + longest
    beta = ["beta"] if any(trial.params.fostering_beta is not None for trial in trials) else []
    cost = ["epochs", "seconds"] if wide else []
    names = ["trial", *network, "optimizer", "rate", "freeze", *beta, metric, *cost, "outcome"]
    for name in names:
        table.add_column(name, justify="left" if name in ("network", "optimizer", "outcome") else "right", no_wrap=True)
    for trial in ranked[:top]:
        params = trial.params
        cost = [str(trial.epochs), f"{trial.seconds:.0f}"] if wide else []
        table.add_row(
            str(trial.slot), *(params.network or "" for _ in network), params.optimizer, f"{params.learning_rate:.2g}",
            str(params.freeze_depth),
            *(f"{params.fostering_beta or 0:g}" for _ in beta), f"{trial.value:.4f}", *cost, trial.outcome,
        )  # fmt: skip
    console.print(table)
    if network:
        console.print(_by_network(trials, metric), highlight=False, soft_wrap=True)
    identity = record.identity or {}
    if (evidence := record.evidence) is not None and evidence.scorers:
        seen = seen_depths(of_evidence(trials, identity))
        if (first := first_network(identity)) is not None:
            console.print(f"The evidence below is of {first}, as are its depths.", highlight=False)
        print_scorecard(console, scorecard(evidence, seen), seen, evidence.depths, metric)


def _by_network(trials: Sequence[TrialRecord], metric: str) -> str:
    """The best score of each network, in the order of their first trials."""
    parts = []
    for name in dict.fromkeys(trial.network for trial in trials):
        here = [trial for trial in trials if trial.network == name]
        if (best := best_seen(here)) is not None:
            early = ", stopped early" if best.outcome != "complete" else ""
            parts.append(f"{name} {best.value:.4f} (of {len(here)} trials, trial {best.slot}{early})")
    return f"Best {metric} by network: {'; '.join(parts)}."


def print_winner(console: Console, winner: Winner, reads: int) -> None:
    """The winner's parameters and test scores with their intervals; `reads`: of the test images, once a winner."""
    params = TrialParams(**winner.params)
    trained = "training and validation images" if winner.refit else "training images"
    network = "" if params.network is None else f"{params.network}, "
    console.print(
        f"Winner: trial {winner.slot}, {network}{params.optimizer}, learning rate {params.learning_rate:.3g}, "
        f"freeze depth {params.freeze_depth}"
        + ("" if params.fostering_beta is None else f", fostering beta {params.fostering_beta:g}")
        + f"; trained for {epoch_count(winner.epochs)} on {winner.images[0]} {trained}.",
        highlight=False,
    )
    if len(winner.members) > 1:
        others = ", ".join(map(str, winner.members[1:]))
        console.print(f"It answers together with trials {others}, trained alike (search.members).", highlight=False)
    if winner.test is None or winner.intervals is None:
        console.print("There are no test images, so nothing is known of it beyond validation.")
        return
    table = titled_table(f"Test scores on {winner.images[1]} images, read {times(reads)}")
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for name, (low, high) in winner.intervals.items():
        interval = f"{low:.4f} to {high:.4f} ({'exact' if name == 'accuracy' else 'bootstrap'})"
        if not interval_known(name, low, high):
            interval = "unknown: no error to resample"
        table.add_row(name.replace("_", " "), f"{winner.test[name]:.4f}", interval)
    console.print(table)
    if winner.bought is not None:
        same = winner.members in ((), (DEFAULT_SLOT,))
        line = "The winner is the default trial alone: the search bought nothing." if same else winner.bought.describe()
        console.print(line, highlight=False, soft_wrap=True)


def print_where(run: StudyRun, winner: Winner, report: Path | None) -> None:
    """Where runs, model, study and report are, and the command that opens the UI."""
    tracking = run.settings.tracking
    root = tracking.root
    there = "" if root == Path("mlruns") else f" {quote(f'tracking.root={root}')}"
    picture = root / "artifacts" / winner.run_id / "artifacts" / EVIDENCE_FIGURE
    run.console.print(
        f"Runs: experiment {tracking.experiment!r} in {run.tracker.place}, parent run {winner.run_id}.\n"
        f"{_where_model(run, winner)}\n"
        f"Study: {root / 'studies'}, {run.record.name!r}.\n"
        + (f"Picture of the evidence: {picture}.\n" if picture.exists() else "")
        + (f"Report: {report}.\n" if report is not None else "")
        + (f"Look at it: {run.tracker.uri}" if tracking.uri is not None else f"Look at it: python -m search.ui{there}"),
        highlight=False,
        soft_wrap=True,
    )


def _where_model(run: StudyRun, winner: Winner) -> str:
    name = run.settings.tracking.model_name
    version, where = winner.version, f"models:/{name}/{winner.version}"
    if run.tracker.versions(name).get(version) != winner.run_id:
        return f"Model: version {version} of {name} was deleted by hand; search.fresh=true makes one anew."
    if run.tracker.aliases(name).get("challenger") == version:
        where = f"models:/{name}@challenger"
    return f"Model: {where} (version {version})."


def print_scorecard(
    console: Console, rows: Sequence[ScorecardRow], seen: Mapping[int, SeenDepth], depths: tuple[int, int], metric: str
) -> None:
    """How each scorer of the evidence did, and what was reached at each freeze depth.

    Args:
        depths: the space's range of freeze depths.
    """
    table = titled_table("What the evidence would have chosen")
    table.collapse_padding = True
    table.add_column("scorer", min_width=12)  # its words may stand on several lines, the numbers may not
    for name in ("depth", "order", "tau", "regret", "s"):
        table.add_column(name, justify="left" if name == "order" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.scorer.replace("_", " ") + (" *" if row.used else ""),
            "-" if row.chosen is None else str(row.chosen),
            _beginning(row.order, 8 + max(0, min(console.width, 120) - _NARROW)),
            "-" if math.isnan(row.tau) else f"{row.tau:.2f} ({row.depths})",
            "not tried" if row.regret is None else f"{row.regret:.4f}",
            f"{row.seconds:.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}",
        )
    console.print(table)
    untried = [str(k) for k in range(depths[0], depths[1] + 1) if k not in seen]
    reached = [f"{k}: {one.best:.4f}{' (early)' if one.stopped else ''}" for k, one in seen.items()]
    lines = [
        f"Best {metric} by freeze depth: {', '.join(reached)}"
        + (f"; not tried: {', '.join(untried)}" if untried else ""),
        "early: of a trial that was stopped early, the best it had reached"
        if any(o.stopped for o in seen.values())
        else "",
        "order: by the scorer's s(k); tau: Kendall's, of s(k) with these scores (over how many depths)",
        "regret: the best score of all depths minus that at the depth chosen; s: seconds this scorer alone would cost",
        "*: had a hand in which depths were tried" if any(row.used for row in rows) else "",
    ]
    console.print("\n".join(f"{line}." for line in lines if line), highlight=False)


def _beginning(order: Sequence[int], room: int) -> str:
    """As many depths as fit into `room` characters."""
    whole = " ".join(map(str, order))
    if len(whole) <= room:
        return whole or "-"
    return whole[: room - 2].rsplit(" ", 1)[0] + " .."
