"""The experiments of the two source documents: `python -m benchmarks.experiments [DATA ...]`, or `just experiments`.

Runs the thesis's experiments (`experiment=thesis_*`) at small sizes on NEU, magnetic tile and the simulated set, goes
on where it stopped, and writes docs/results/sources.md with its figures from the MLflow runs in mlruns/experiments: the
thesis's tables beside ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import DATA, refusal

ROOT = Path("mlruns") / "experiments"
EXPERIMENT = "thesis"
TILES = ROOT / "magnetic_tile" / "tiles.csv"
# Fifteen images a class to train on; tested on the newest month, or on a fifth of the tiles.
SMALL = (
    "data.size=[64,64]",
    "data.fit=stretch",
    "data.max_train_per_class=15",
    "data.validation_fraction=0.06",
    "data.views=2",
    "trainer.batch_size=16",
    "trainer.batch_norm_images=64",
    "trainer.accelerator=cpu",
    "executor.threads=1",
    f"tracking.root={ROOT}",
    f"tracking.experiment={EXPERIMENT}",
)
DATA_SETS = {
    "neu": ("data=manifest", f"data.path={DATA}/neu/manifest.csv"),
    "simulated": ("data=simulated", "data.max_train_per_class=8"),  # of eleven classes
    "magnetic_tile": ("data=manifest", f"data.path={TILES}", "data.outside=allow", "data.fit=pad"),
}
EPOCHS = {"lenet": 30, "random": 10, "transfer": 8, "finetune": 10, "rates": 8}
_OWN = {"random": ("model.width=0.25",)}
PARTS = ("transfer", "finetune", "rates", "lenet", "random")


def overrides(data: str, part: str) -> list[str]:
    """Arguments of `python -m search` for one experiment on one data set."""
    return [
        f"experiment=thesis_{part}", *SMALL, *DATA_SETS[data], f"trainer.epochs={EPOCHS[part]}", *_OWN.get(part, ()),
    ]  # fmt: skip


def run(data: str, part: str) -> None:
    """Run, or go on with, one experiment of a data set."""
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.thesis.experiment import run_thesis

    if data == "magnetic_tile":
        grouped_by_tile(TILES)
    print(f"{data}: {part}", flush=True)
    run_thesis(compose_settings(overrides(data, part)), Console(width=120))


def main(arguments: list[str]) -> int:
    """Run the data sets named, or all, and write the page of all that have runs."""
    if why := refusal(arguments, DATA_SETS):
        print(f"experiments: {why}", file=sys.stderr)
        return 2
    for part in PARTS:
        for data in arguments or list(DATA_SETS):
            run(data, part)
    from benchmarks.experiments_page import write_page

    print(f"written: {write_page(ROOT, EXPERIMENT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
