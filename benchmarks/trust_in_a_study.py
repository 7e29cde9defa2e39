"""Where trust and the median rule part ways in a logged study: `python -m benchmarks.trust_in_a_study [key=value ...]`.

Runs a search with `search.trust=evidence` through the command line (NEU, ten images a class, unless settings are given)
and reads its journal: trials that went on although the median rule would have stopped them there, trials that were
stopped although it would have kept them, which of these trust decided, and what each gained or cost. The median rule
is Optuna's: stop what is below the median of the others' scores at that epoch. Rows go to
benchmarks/results/trust_in_a_study.json.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.real_images import DATA
from benchmarks.results_file import write_rows
from search.settings.schema import SearchSettings
from search.study.opening import open_study
from search.study.record import StudyRecord, TrialRecord

_NEU = ("data=manifest", f"data.path={DATA}/neu/manifest.csv", "data.test=rest", "data.max_train_per_class=10",
        "data.size=[96,96]", "data.fit=stretch")  # fmt: skip


def decisions(trials: list[TrialRecord]) -> list[dict[str, Any]]:
    """One row for each trial and epoch at which halving with trust and the median rule decide differently."""
    best = max(t.value for t in trials if t.outcome == "complete")
    rows = []
    for trial in trials:
        scores, reason = trial.scores, trial.reason
        owed = int(found[1]) if (found := re.search(r"at epoch (\d+)", trial.trusted)) else None
        for epoch in sorted(scores):
            others = [t.scores[epoch] for t in trials if t is not trial and epoch in t.scores]
            if not others:
                continue
            median = statistics.median(others)
            stopped = trial.outcome != "complete" and epoch == max(scores)
            row = {
                "trial": trial.slot, "freeze_depth": trial.freeze_depth, "epoch": epoch,
                "score": scores[epoch], "median": median,
            }  # fmt: skip
            if stopped and scores[epoch] >= median:
                rows.append(
                    {**row, "what": "stopped, median keeps", "by_trust": plain_lets_on(reason), "reason": reason}
                )
            elif not stopped and epoch == owed and scores[epoch] < median:
                after = {"epochs_after": max(scores) - epoch, "behind_best": best - max(scores.values())}
                rows.append({**row, "what": "let on, median stops", "by_trust": True, "reason": trial.trusted, **after})
    return rows


def plain_lets_on(reason: str) -> bool:
    """Whether the rule without trust would have let a trial on that was stopped, from its reason: A of N are ahead."""
    found = re.search(r"(\d+) of (\d+) other", reason)
    return found is not None and int(found[1]) < int((int(found[2]) + 1) / SearchSettings().halving_factor)


def main(arguments: list[str]) -> int:
    """Search, read, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "mlruns"
        settings = [*(arguments or _NEU), "search.trust=evidence", "search.study=trust", f"tracking.root={root}"]
        if (code := subprocess.run([sys.executable, "-m", "search", *settings], check=False).returncode) != 0:  # noqa: S603
            return code
        rows = decisions(StudyRecord(open_study(root, "trust")).finished())
    table = Table("trial", "freeze depth", "epoch", "score", "median", "what", "why")
    for row in rows:
        table.add_row(
            *(str(row[k]) for k in ("trial", "freeze_depth", "epoch")), f"{row['score']:.3f}", f"{row['median']:.3f}",
            str(row["what"]), str(row["reason"]),
        )  # fmt: skip
    Console().print(table)
    write_rows("trust_in_a_study", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
