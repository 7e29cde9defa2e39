"""Months that arrive one by one: `python -m examples.a_year_of_months [simulated|magnetic_tile] [key=value ...]`.

Three policies meet the same months, each through `python -m search.retrain`, from the same first champion (three
months):

- never: the champion stays (`retrain.depth=none`);
- always: a whole search a month from the pre-trained network (`retrain.depth=search`), whose winner is put to work
  whatever a comparison says;
- ours: `retrain.depth=auto`, promoted by the rule or not.

The score is what a plant would see: the model in charge after month m answers the images of month m + 1, which no model
has been trained, chosen or compared on yet (those of plates or tiles trained on before are left out). A promotion is
right when the challenger is no worse than the champion there, a refusal when it is no better. Rows go to
examples/a_year_of_months/results/NAME.json.
"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from examples.a_year_of_months.scoring import Month, paired, rows_of, scores, show, summary, wanted
from lightning_modules.simulated.generator import CLASSES, write

RESULTS = Path(__file__).parent / "results"
ROOT = Path("mlruns") / "a_year_of_months"
TILES = Path("..") / "shared" / "data" / "magnetic_tile"
# Small images, three trials without pruning, shallow freezes only. Tried first, on all eleven simulated classes (15
# training images each in three months): eight trials by successive halving at all depths, of 6 and of 15 epochs, five
# by the median rule, three without. An epoch is six steps then: depths that pay late were stopped, and every first
# champion had half of all images right.
BUDGET = (
    "data.size=[64,64]", "data.fit=stretch", "space.freeze_depth=[0,4]", "search.trials=3", "search.pruner=none",
    "search.evidence=false", "trainer.epochs=10", "tracking.report=false", "retrain.start_months=3",
    "retrain.trials=3", "retrain.epochs=4",
)  # fmt: skip
DATA: dict[str, tuple[str, ...]] = {
    "simulated": ("data=manifest", f"data.path={ROOT}/simulated.images/six.csv"),
    "magnetic_tile": (
        "data=manifest", f"data.path={ROOT}/magnetic_tile.csv", "data.outside=allow", "data.fit=pad",
        "data.min_per_class=2",
    ),
}  # fmt: skip
POLICIES = {"never": "none", "always": "search", "ours": "auto"}


def write_simulated(folder: Path) -> None:
    """Every second class of the simulated set, about 110 images a month."""
    if (folder / "six.csv").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write(folder, images=2600)
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["label"] in CLASSES[::2]]
    with (folder / "six.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, ("path", "label", "month", "group"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_tiles(file: Path) -> None:
    """The magnetic tiles with the acquisition condition as month and the tile as group."""
    from benchmarks.localisation_data import grouped_by_tile

    grouped = file.with_suffix(".groups.csv")
    grouped_by_tile(grouped)
    with grouped.open(encoding="utf-8", newline="") as lines:
        tile = {row["path"]: row["group"] for row in csv.DictReader(lines)}
    with (TILES / "manifest.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label", "month", "group"))
        for row in rows:
            path = str(TILES.resolve() / row["path"])
            month = f"2020-{int(row['group'].removeprefix('exp')) + 1:02d}"
            writer.writerow((path, row["label"], month, tile[path]))


def run(name: str, policy: str, extra: list[str]) -> list[Month]:
    """All months of a policy, through the command line; continues where an earlier call stopped."""
    root = ROOT / name / policy
    settings = [*DATA[name], *BUDGET, *extra, f"retrain.depth={POLICIES[policy]}", f"tracking.root={root}"]
    done = subprocess.run([sys.executable, "-m", "search.retrain", *settings], check=False)  # noqa: S603
    if done.returncode not in (0, 1):  # 1: a month was refused
        raise SystemExit(done.returncode)
    with sqlite3.connect(root / "retraining.db") as ledger:
        rows = ledger.execute(
            "SELECT month, outcome, reason, champion_before, champion_after, challenger, numbers FROM months "
            "WHERE state = 'done' ORDER BY month"
        ).fetchall()
    months = [Month(*row[:-1], json.loads(row[-1])) for row in rows]
    last = max(place for place, one in enumerate(months) if one.outcome == "bootstrap")
    return months[last:]


def main(arguments: list[str]) -> int:
    """Run all policies on the data named; what has been done is not done again."""
    names = [a for a in arguments if a in DATA] or ["simulated"]
    extra = [a for a in arguments if "=" in a]
    if wrong := [a for a in arguments if a not in DATA and "=" not in a]:
        print(
            f"a_year_of_months: unknown data {wrong[0]!r}; accepted: {', '.join(DATA)} and key=value", file=sys.stderr
        )
        return 2
    for name in names:
        if name == "magnetic_tile":
            if not (TILES / "manifest.csv").is_file():
                print(f"a_year_of_months: magnetic_tile needs {TILES}", file=sys.stderr)
                return 2
            ROOT.mkdir(parents=True, exist_ok=True)
            write_tiles(ROOT / "magnetic_tile.csv")
        else:
            write_simulated(ROOT / "simulated.images")
        ledgers = {policy: run(name, policy, extra) for policy in POLICIES}
        chosen = {policy: wanted(policy, months) for policy, months in ledgers.items()}
        right = scores([*DATA[name], *BUDGET, *extra], ROOT / name, chosen)
        rows = rows_of(ledgers, right)
        totals = summary(rows)
        differences = [paired(right, ledgers, "ours", "always"), paired(right, ledgers, "ours", "never")]
        show(name, rows, totals, differences)
        RESULTS.mkdir(exist_ok=True)
        result = {
            "settings": [*DATA[name], *BUDGET, *extra],
            "months": rows,
            "year": totals,
            "differences": differences,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
