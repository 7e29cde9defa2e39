"""Pruned by maps: `python -m benchmarks.maps [cost|ranks] [draws=N]`, on the tables of `benchmarks.map_tables`.

The test that docs/results/maps_registered.md registers: its arms are replayed on the driver of `python -m search`, with
trials that are looked up, at equal seconds. A table that is not whole is replayed at the freeze depths that it has, and
marked so; while any is missing, results are partial.

`cost` says what asking for the maps costs, in a trial's own epochs. `ranks` gives rank correlations of loss, statistics
and J at each rung with the test score, over all configurations of a table.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import optuna
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from benchmarks.map_tables import FACTORS, MAPS, OPTIMIZERS
from benchmarks.student_interval import interval
from benchmarks.table_executor import SilentListener, SilentTracker, TableExecutor
from explain.evidence.joint import joint, summed
from explain.evidence.trial_registry import TRIAL_STATISTICS
from lightning_modules.networks.blocknet import BlockNet
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.maps_promotion import MapsPromotionRule
from search.study.promotion import PromotionRule
from search.study.record import StudyRecord
from search.study.spending import Spending
from search.trial.result import TrialParams
from search.trial.rungs import rungs
from search.trial.space import build_space

Floats = NDArray[np.float64]
Configuration = tuple[int, str, float]
Maps = Mapping[int, dict[str, dict[str, float]]]
TRIALS, DRAWS, MOST = (8, 24), 40, 400
FACTOR = 3
NAMES = tuple(TRIAL_STATISTICS)
RIVAL = ("mirrored_answers",)
MARGIN = -0.2


@dataclass(frozen=True)
class Arm:
    """One way to compare trials at the rungs.

    Attributes:
        statistics: that S sums; None compares by `search.judge` alone.
        share: of the cost of the maps that it pays.
        permuted: whose statistics a configuration has: its own, those of any other, or of one of its freeze depth.
    """

    name: str
    statistics: tuple[str, ...] | None
    share: float = 0.0
    permuted: str = "own"


ARMS = (
    Arm("judge alone", None),
    Arm("loss alone", ()),
    Arm("loss + mirrored answers", RIVAL, 0.5),
    Arm("J", NAMES, 1.0),
    Arm("J, S permuted", NAMES, 1.0, "any"),
    Arm("J, S permuted within depth", NAMES, 1.0, "depth"),
)


@dataclass(frozen=True, eq=False)
class MapTable:
    """One split of a task, as far as it is filled.

    Attributes:
        head: what it was made of.
        rows: configuration -> its line, of the freeze depths that are whole.
    """

    name: str
    head: dict[str, Any]
    rows: dict[Configuration, dict[str, Any]]

    @property
    def depths(self) -> tuple[int, int]:
        """Range of its freeze depths."""
        return min(k for k, *_ in self.rows), len(self.head["flops"]) - 1

    @property
    def whole(self) -> bool:
        """Whether no freeze depth is missing."""
        return self.depths[0] == 0

    @property
    def at(self) -> tuple[int, ...]:
        """Its rungs."""
        return rungs(self.head["epochs"], self.batches)

    @property
    def batches(self) -> int:
        """Training steps in an epoch."""
        return -(-int(self.head["train"]) // int(self.head["batch_size"]))

    @cached_property
    def epoch_cost(self) -> Floats:
        """(L + 1,) epochs of training everything that an epoch costs, scoring included (`finished_tables`)."""
        flops = np.array(self.head["flops"], float)
        return np.array([flops[k:].sum() for k in range(len(flops))]) / flops.sum() * (1 + self._scored)

    @cached_property
    def prefix_cost(self) -> Floats:
        """(L + 1,) the same, for computing what is frozen once."""
        flops = np.array(self.head["flops"], float)
        return np.array([flops[:k].sum() for k in range(len(flops))]) / flops.sum() * (5 + self._scored) / 3

    @property
    def _scored(self) -> float:
        return (self.head["validation"] + min(self.head["train"], 256)) / self.head["train"] / 3

    @cached_property
    def map_ratio(self) -> dict[int, float]:
        """Freeze depth -> seconds of the maps at a rung / seconds of an epoch, medians over its configurations."""
        found = {}
        for depth in range(self.depths[0], self.depths[1] + 1):
            here = [row for (k, *_), row in self.rows.items() if k == depth]
            maps = [s for row in here for s in row["map_seconds"].values()]
            found[depth] = float(np.median(maps) / np.median([s for row in here for s in row["seconds"][1:]]))
        return found

    def nearest(self, params: TrialParams) -> Configuration:
        """The configuration that a trial is looked up as: the nearest factor on a log scale."""
        away = np.abs(np.log(np.array(FACTORS)) - np.log(params.lr_factor))
        return params.freeze_depth, params.optimizer, FACTORS[int(away.argmin())]

    def curve(self, column: str, key: Configuration, worst: float) -> Floats:
        """(epochs,) of one configuration; a diverged one has the worst value from there on."""
        values = np.full(int(self.head["epochs"]), worst)
        given = [worst if v is None or not np.isfinite(v) else v for v in self.rows[key][column]]
        values[: len(given)] = given
        if "stopped" in self.rows[key]:
            values[max(len(given) - 1, 0) :] = worst
        return values

    def maps(self, key: Configuration) -> Maps:
        """Rung -> statistics of one configuration."""
        return {int(step): maps for step, maps in self.rows[key]["maps"].items()}

    def shuffled(self, how: str, rng: np.random.Generator) -> dict[Configuration, Configuration]:
        """Whose statistics each configuration has."""
        keys = list(self.rows)
        if how == "own":
            return {key: key for key in keys}
        groups = [keys] if how == "any" else [[k for k in keys if k[0] == depth] for depth in {k[0] for k in keys}]
        return {
            key: group[place] for group in groups for key, place in zip(group, rng.permutation(len(group)), strict=True)
        }


def read(file: Path) -> MapTable | None:
    """A table as far as whole freeze depths reach from the deepest; None where none is."""
    head, *lines = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    rows = {(row["k"], row["optimizer"], row["factor"]): row for row in lines}
    whole = {}
    for depth in range(len(head["flops"]) - 1, -1, -1):
        here = {key: row for key, row in rows.items() if key[0] == depth}
        if len(here) < len(OPTIMIZERS) * len(FACTORS):
            break
        whole |= here
    return MapTable(file.stem, head, whole) if whole else None


@dataclass(frozen=True)
class Found:
    """What one search found: test macro F1 of its winner in points, epochs until it was there and in all, who won."""

    test: float
    until: float
    spent: float
    won: Configuration
    trials: int = field(default=0)


def search(table: MapTable, arm: Arm, seed: int, *, trials: int = MOST, seconds: float | None = None) -> Found:
    """One search.

    Args:
        seed: searches of a table with the same seed draw alike.
        trials: of the study.
        seconds: of the table, after which no more trials are asked for; None goes by `trials`.
    """
    whose = table.shuffled(arm.permuted, np.random.default_rng([seed, 5]))
    executor = TableExecutor(
        lambda params: table.curve("val", table.nearest(params), 0.0),
        lambda depth: float(table.epoch_cost[depth]),
        lambda depth: float(table.prefix_cost[depth]),
        losses=lambda params: table.curve("val_loss", table.nearest(params), float("inf")),
        maps=lambda params: table.maps(whose[table.nearest(params)]) if arm.statistics else {},
        map_cost=lambda depth: arm.share * table.map_ratio[depth] * float(table.epoch_cost[depth]),
    )
    study = optuna.create_study(direction="maximize")
    deepest = table.depths[1]
    net = SimpleNamespace(
        num_blocks=deepest, deepest=deepest, attention_block=None, pretrained=True, architecture=table.name
    )
    settings = Settings()
    settings = replace(
        settings,
        seed=seed,
        search=replace(settings.search, trials=trials, budget=None if seconds is None else f"{seconds:.6f}s"),
        space=replace(settings.space, optimizers=OPTIMIZERS, freeze_depth=table.depths),
        trainer=replace(settings.trainer, epochs=int(table.head["epochs"])),
    )
    space = build_space(settings.space, cast(BlockNet, net))
    rule = _rule(table, arm, space.in_full)
    with (
        patch("search.study.driver.build_promotion", lambda *_, **__: rule),
        patch("search.study.driver.Spending", partial(Spending, clock=lambda: executor.bill)),
    ):
        driver = SearchStudy(
            settings, space, study, SilentTracker(), "study", SilentListener(), batches=table.batches,
            epoch_cost=lambda params: float(table.epoch_cost[params.freeze_depth]),
        )  # fmt: skip
        driver.run(executor)
    record = StudyRecord(study)
    winner = record.best()
    assert winner is not None  # noqa: S101 - trial 0 runs in full
    ends = [s.bill for s in executor.spent if s.params == winner.params and s.epoch == len(winner.scores) - 1]
    won = table.nearest(winner.params)
    return Found(100 * float(table.rows[won].get("test", 0.0)), ends[0], executor.bill, won, len(record.finished()))


def _rule(table: MapTable, arm: Arm, in_full: int) -> PromotionRule:
    if arm.statistics is None:
        return PromotionRule(table.at, FACTOR, judge="score", in_full=range(in_full))
    return MapsPromotionRule(table.at, FACTOR, in_full=range(in_full), statistics=arm.statistics)


def compare(tables: list[MapTable], draws: int) -> None:
    """Print each arm at equal seconds, and the differences that the rules ask for."""
    for trials in TRIALS:
        found: dict[str, list[list[Found]]] = defaultdict(list)
        for table in tables:
            plain = [search(table, ARMS[0], seed, trials=trials) for seed in range(draws)]
            seconds = float(np.mean([one.spent for one in plain]))
            for arm in ARMS:
                found[arm.name].append([search(table, arm, seed, seconds=seconds) for seed in range(draws)])
        _print_arms(tables, found, f"Equal seconds: those of {trials} trials by the judge alone")


def _print_arms(tables: list[MapTable], found: dict[str, list[list[Found]]], title: str) -> None:
    compared = (
        ("judge alone", "minus judge alone"),
        ("loss + mirrored answers", "minus its rival"),
        ("J, S permuted", "minus permuted S"),
    )
    names = [f"{t.name}{'' if t.whole else f' (k >= {t.depths[0]})'}" for t in tables]
    shown = Table(
        "arm",
        *names,
        *(f"{name}, pooled" for _, name in compared),
        "trials",
        "epochs until found",
        "same winner as J",
        title=title,
    )
    means = {arm: np.array([np.mean([one.test for one in of]) for of in runs]) for arm, runs in found.items()}
    for arm, runs in found.items():
        every = [one for of in runs for one in of]
        same = np.mean(
            [a.won == b.won for of, other in zip(runs, found["J"], strict=True) for a, b in zip(of, other, strict=True)]
        )
        gains = ["" if other == arm else _gain(means[arm] - means[other]) for other, _ in compared]
        shown.add_row(
            arm, *(f"{mean:.2f}" for mean in means[arm]), *gains, f"{np.mean([one.trials for one in every]):.1f}",
            f"{np.mean([one.until for one in every]):.1f}", f"{same:.0%}",
        )  # fmt: skip
    Console(width=200).print(shown)
    low, _ = interval(means["J"] - means["judge alone"])
    print(f"Lower end of J minus judge alone: {low:+.2f} points; the margin is {MARGIN:+.1f}.")


def _gain(gains: Floats) -> str:
    low, high = interval(gains)
    return f"{gains.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def ranks(tables: list[MapTable]) -> None:
    """Print Spearman's correlation with the test score, and the partial one given the log loss."""
    for table in tables:
        keys = [key for key, row in table.rows.items() if "test" in row]
        truth = np.array([table.rows[key]["test"] for key in keys])
        shown = Table(
            f"{table.name}, {len(keys)} configurations, k >= {table.depths[0]}", *(f"epoch {at}" for at in table.at)
        )
        for name, values in _measures(table, keys).items():
            shown.add_row(
                name, *(f"{_spearman(v, truth):+.2f} ({_partial(v, truth, loss):+.2f})" for v, loss in values)
            )
        Console(width=140).print(shown)


def _measures(table: MapTable, keys: list[Configuration]) -> dict[str, list[tuple[Floats, Floats]]]:
    """What may order configurations -> (values, -loss) at each rung."""
    found: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    measures: dict[str, Callable[[list[float], list[dict[str, dict[str, float]]]], Floats]] = {
        "-loss": lambda losses, _: -np.array(losses),
        **{name: lambda _, maps, name=name: summed(maps, (name,)) for name in NAMES},  # type: ignore[misc]
        "S": lambda _, maps: summed(maps, NAMES),
        "loss + mirrored answers": lambda losses, maps: joint(losses, maps, [0] * len(maps), RIVAL),
        "J": lambda losses, maps: joint(losses, maps, [0] * len(maps), NAMES),
    }
    for at in table.at:
        losses = [float(table.curve("val_loss", key, 1e4)[at - 1]) for key in keys]
        maps = [dict(table.maps(key).get(at, {})) for key in keys]
        for name, measure in measures.items():
            found[name].append((measure(losses, maps), -np.array(losses)))
    return found


def _spearman(one: Floats, other: Floats) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1]) if np.ptp(one) > 0 else float("nan")


def _partial(one: Floats, other: Floats, given: Floats) -> float:
    """Of ranks, given the ranks of a third; not a number where one of them is that third."""
    ab, ac, bc = _spearman(one, other), _spearman(one, given), _spearman(other, given)
    rest = (1 - ac**2) * (1 - bc**2)
    return float((ab - ac * bc) / rest**0.5) if rest > 1e-9 else float("nan")


def cost(tables: list[MapTable]) -> None:
    """Print seconds of the maps at a rung / seconds of an epoch, by freeze depth and over the mean trial."""
    for table in tables:
        each = {
            k: np.mean([np.median(r["seconds"][1:]) for (d, *_), r in table.rows.items() if d == k])
            for k in table.map_ratio
        }
        mean = sum(table.map_ratio[k] * each[k] for k in each) / sum(each.values())
        by_depth = ", ".join(f"k={k}: {ratio:.2f}" for k, ratio in sorted(table.map_ratio.items()))
        print(f"{table.name}: a rung's maps / an epoch of the mean trial {mean:.3f} (goal 0.10); {by_depth}")


def main(arguments: list[str]) -> int:
    """Print what was asked for, of all tables that there are."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draws = next((int(a.removeprefix("draws=")) for a in arguments if a.startswith("draws=")), DRAWS)
    rest = [a for a in arguments if not a.startswith("draws=")]
    if rest not in ([], ["cost"], ["ranks"]):
        print(f"maps: accepted is cost, ranks, draws=N or nothing, got {rest[0]!r}", file=sys.stderr)
        return 2
    tables = [table for file in sorted(MAPS.glob("*.jsonl")) if (table := read(file)) is not None]
    if not tables:
        print("maps: there is no table; python -m benchmarks.map_tables makes them", file=sys.stderr)
        return 2
    if rest:
        (cost if rest == ["cost"] else ranks)(tables)
    else:
        compare(tables, draws)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
