"""Thawline beside what users would take instead: `python -m benchmarks.peers [PEER ...] [TASK ...] [seeds=0,1,2]`.

Every peer starts from the same weights and is given the same image files in the same split, which the project's own
code draws; those that tune anything see training and validation images, the recipes train on both together. Each runs
in a process of its own with two threads on two cores and no GPU. Its seconds are wall time from the start of the
process to the trained model, with imports and reading images; predicting the test images, which happens once, is not in
them. Of Thawline they are those of the whole command, with everything that it writes, and its test too.

Rows go to benchmarks/results/peers.json; what is there is not run again. Beside names:

- `environment [fastai] [autogluon]` installs what is no dependency of the project (`benchmarks.peers.environment`);
- `table` prints the rows that are there; `figure` draws docs/images/peers.png;
- `short` runs an epoch or a trial or two of each, to see that they run, and keeps no row.
"""

from __future__ import annotations

import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.peers.contest import PEERS, THREADS, UNIT, compete
from benchmarks.peers.environment import ENVIRONMENTS, FOLDER, make
from benchmarks.peers.lists import TASKS
from benchmarks.peers.rows import Row, frontier, is_done, replaced, standings
from benchmarks.real_images import refusal
from benchmarks.results_file import read_rows, write_rows

_SEEDS = (0, 1, 2)


def print_tables(rows: list[Row], console: Console) -> None:
    """A table a task."""
    for task, (about, score) in TASKS.items():
        found = standings(rows, task, score, PEERS, UNIT)
        if not found:
            continue
        best = {one.peer for one in frontier(found)}
        table = Table("peer", score, "95 % interval", "seconds", f"/ {UNIT}", "seeds", "on the frontier", title=about)
        for one in found:
            words = PEERS[one.peer].about
            if one.failed:
                table.add_row(words, one.failed)
                continue
            interval = "" if one.interval is None else f"{one.interval[0]:.3f} to {one.interval[1]:.3f}"
            ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
            mark = "yes" if one.peer in best else ""
            table.add_row(words, f"{one.score:.3f}", interval, f"{one.seconds:.0f}", ratio, str(one.seeds), mark)
        console.print(table)


def _install(names: list[str]) -> int:
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        print(f"peers: unknown environment {unknown[0]!r}; accepted: {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or ENVIRONMENTS:
        try:
            make(name)
        except subprocess.CalledProcessError:
            print(f"peers: {name} could not be installed; its rows will say so", file=sys.stderr)
            failed = 1
    return failed


def _seeds(words: list[str]) -> tuple[int, ...]:
    """Of the last `seeds=`.

    Raises:
        ValueError: no whole numbers.
    """
    found = _SEEDS
    for word in words:
        found = tuple(int(number) for number in word.removeprefix("seeds=").split(","))
    return found


def main(arguments: list[str]) -> int:
    """Run what is named, or everything."""
    if arguments[:1] == ["environment"]:
        return _install(arguments[1:])
    console = Console()
    if arguments == ["table"]:
        print_tables(read_rows("peers"), console)
        return 0
    if arguments == ["figure"]:
        from benchmarks.peers.figure import draw

        console.print(f"drawn: {draw(read_rows('peers'))}")
        return 0
    names = [a for a in arguments if not a.startswith("seeds=") and a != "short"]
    short = "short" in arguments
    try:
        seeds = _seeds([a for a in arguments if a.startswith("seeds=")])
    except ValueError:
        print("peers: seeds must be whole numbers, as in seeds=0,1,2", file=sys.stderr)
        return 2
    if unknown := [name for name in names if name not in {**PEERS, **TASKS}]:
        accepted = ", ".join((*PEERS, *TASKS))
        print(f"peers: unknown peer or task {unknown[0]!r}; accepted: {accepted}", file=sys.stderr)
        return 2
    if why := refusal((), ()):
        print(f"peers: {why}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for seed in seeds:
        for task in [name for name in names if name in TASKS] or TASKS:
            for peer in [name for name in names if name in PEERS] or PEERS:
                if not short and is_done(read_rows("peers"), peer, task, seed):
                    continue
                row = compete(peer, task, seed, short=short)
                said = row.get("failed") or f"accuracy {row['accuracy']:.3f}, {row['seconds']:.1f} s"
                print(f"{peer} {task} {seed}: {said}", flush=True)
                rows.append(row)
                if not short:
                    write_rows("peers", replaced(read_rows("peers"), row))
    print_tables(rows if short else read_rows("peers"), console)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
