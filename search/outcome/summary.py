"""What is printed when a search ends: what was shown, where it is weak, what won, and where the report is.

How trials compare, what the evidence said and all scores with their intervals stand in the report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_modules.errors import printable
from search.command_line.plain_line import print_line
from search.invocation import typed
from search.study.bought import DEFAULT_SLOT
from search.study.judge import best_seen
from search.study.progress import spoken_params
from search.study.record import StudyRecord, TrialRecord, Winner
from search.study.run import StudyRun
from search.trial.result import TrialParams
from search.verdict import judge, words
from search.words import spoken, times

__all__ = ["print_networks", "print_result", "print_where", "print_winner", "titled_table"]

_SHOWN = 5  # weak classes
_WEAK = 0.9  # share of a class's images that are right, below which it is named


def titled_table(title: str) -> Table:
    """An empty table as a search prints it."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def print_result(run: StudyRun) -> None:
    """How many of the test images are right, in words, and which classes are weak."""
    table = run.tracker.artifact(run.parent, "test/confusion.json")
    if not table.is_file():
        run.say("There are no test images, so nothing is known of it beyond validation.")
        return
    logged = json.loads(table.read_text(encoding="utf-8"))
    classes, counts = logged["columns"][1:], [row[1:] for row in logged["data"]]
    if (verdict := judge(classes, counts)) is None:
        return
    print_line(run.console, f"Result: {words(verdict)}")
    rows = [(row[place] / sum(row), row[place], sum(row), name)
            for place, (name, row) in enumerate(zip(classes, counts, strict=True)) if sum(row)]  # fmt: skip
    weak = sorted(row for row in rows if row[0] < _WEAK)
    if len(weak) > 1:
        shown = ", ".join(f"{printable(name)} {right} of {images}" for _, right, images, name in weak[:_SHOWN])
        rest = f" and {len(weak) - _SHOWN} more" if len(weak) > _SHOWN else ""
        print_line(run.console, f"Weak classes, images right: {shown}{rest}.")


def print_networks(console: Console, record: StudyRecord, metric: str) -> None:
    """The best score of each network, in the order of their first trials; nothing where there is one."""
    trials = record.finished()
    if any(trial.network for trial in trials):
        print_line(console, _by_network(trials, metric))


def _by_network(trials: Sequence[TrialRecord], metric: str) -> str:
    parts = []
    for name in dict.fromkeys(trial.network for trial in trials):
        here = [trial for trial in trials if trial.network == name]
        if (best := best_seen(here)) is not None:
            early = ", stopped early" if best.outcome != "complete" else ""
            parts.append(f"{name} {best.value:.4f} (of {len(here)} trials, trial {best.slot}{early})")
    return f"Best {spoken(metric)} by network: {'; '.join(parts)}."


def print_winner(console: Console, winner: Winner, reads: int) -> None:
    """What won, and what the search bought; `reads`: of the test images, once a winner."""
    trained = "training and validation images" if winner.refit else "training images"
    together = ""
    if len(winner.members) > 1:
        others = ", ".join(map(str, winner.members[1:]))
        together = f"; it answers together with trial{'s'[: len(winner.members) - 2]} {others}, trained alike"
    print_line(
        console,
        f"Winner: trial {winner.slot}, {spoken_params(TrialParams(**winner.params))}, trained for "
        f"{winner.trained_for} on {winner.images[0]} {trained}{together}.",
    )
    if winner.bought is not None:
        same = winner.members in ((), (DEFAULT_SLOT,))
        line = "The winner is the default trial alone: the search bought nothing." if same else winner.bought.describe()
        print_line(console, line)
    if winner.test is not None:
        scores = ", ".join(f"{spoken(name)} {winner.test[name]:.4f}" for name in ("accuracy", "macro_f1"))
        print_line(console, f"Test scores on {winner.images[1]} images, read {times(reads)}: {scores}.")


def print_where(run: StudyRun, winner: Winner, report: Path | None) -> None:
    """Where report and model are, and the command that shows the trials."""
    root = run.settings.tracking.root
    if report is not None:
        print_line(run.console, f"Report: {printable(report)}")
    print_line(run.console, _where_model(run, winner))
    elsewhere = run.settings.tracking.uri is not None
    print_line(run.console, f"All trials: {run.tracker.uri if elsewhere else typed('ui', root=root)}")


def _where_model(run: StudyRun, winner: Winner) -> str:
    name = run.settings.tracking.model_name
    version, where = winner.version, f"models:/{name}/{winner.version}"
    if run.tracker.versions(name).get(version) != winner.run_id:
        return f"Model: version {version} of {name} was deleted by hand; search.fresh=true makes one anew."
    if run.tracker.aliases(name).get("challenger") == version:
        where = f"models:/{name}@challenger"
    return f"Model: {where} (version {version})."
