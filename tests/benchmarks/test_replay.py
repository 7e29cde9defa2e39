"""Replays on a made-up table whose best configuration is known, and the files the tables are kept in."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import depth_tables, finished_tables, replay
from benchmarks.depth_tables import held
from benchmarks.finished_tables import DepthTable, read_table
from benchmarks.replay import best_quality, cost_to_reach, expected_cost, interval
from benchmarks.table_search import Hint, Replay, Strategy

DEPTHS, EPOCHS = 9, 10


def _table(best: int = 3, splits: int = 4, noise: float = 0.0) -> DepthTable:
    """Scores that fall with the distance from depth `best`, optimizer 1 and factor 1, and rise with the epochs."""
    rng = np.random.default_rng(0)
    k, o, f, e = np.meshgrid(np.arange(DEPTHS), np.arange(3), np.arange(3), np.arange(EPOCHS), indexing="ij")
    score = 0.9 - 0.03 * abs(k - best) - 0.02 * abs(o - 1) - 0.02 * abs(f - 1) - 0.1 * np.exp(-e)
    curves = (
        score[None] + rng.normal(0, noise, (2, splits, *score.shape)) if noise else np.stack([[score] * splits] * 2)
    )
    cost = np.linspace(1, 0.01, DEPTHS)
    return DepthTable(
        "made up", DEPTHS, ("momentum", "nag", "adam"), (0.3, 1.0, 3.0), curves[0], curves[1], cost, 1 - cost
    )


@pytest.fixture(autouse=True)
def _quiet() -> None:
    pytest.importorskip("optuna").logging.set_verbosity(40)


def test_a_replay_pays_for_what_it_trains_and_keeps_the_best() -> None:
    table = _table()
    run = replay.replay(table, Strategy("all", {"sampler": "random", "pruner": "none"}), 0, 0, trials=20)
    assert (np.diff(run.cost) > 0).all() and (np.diff(run.quality) >= 0).all()
    assert run.cost[0] == pytest.approx(EPOCHS * table.epoch_cost[4] + table.prefix_cost[4])  # trial 0: the middle
    assert run.cost[-1] < table.grid_cost


def test_the_same_seed_replays_the_same_and_pruning_is_cheaper() -> None:
    table = _table(noise=0.01)
    halving = Strategy("halving")
    one, two = (replay.replay(table, halving, 1, 5) for _ in range(2))
    assert one.cost.tolist() == two.cost.tolist() and one.quality.tolist() == two.quality.tolist()
    full = replay.replay(table, Strategy("none", replay.NO_PRUNING), 1, 5)
    assert one.cost[-1] < full.cost[-1]


@pytest.mark.parametrize("depth", [0, 3, 8])
def test_a_fixed_depth_asks_for_no_other(depth: int) -> None:
    table = _table()
    run = replay.replay(table, Strategy("fixed", replay.NO_PRUNING, freeze_depth=(depth, depth)), 0, 0, trials=27)
    expected = 27 * EPOCHS * table.epoch_cost[depth] + table.prefix_cost[depth]
    assert run.cost[-1] == pytest.approx(expected)
    assert run.quality[-1] <= 0.9 - 0.03 * abs(depth - 3)


@pytest.mark.slow
def test_a_prior_on_the_best_depth_finds_it_sooner_than_one_on_the_worst() -> None:
    """While it has weight: TPE alone, which comes after it, may leave a depth that was tried often."""
    table = _table()

    def hint(depth: int, table: DepthTable, split: int) -> Hint:
        weights = np.full(table.depths, 0.2 / table.depths)
        weights[depth] += 0.8
        return Hint(weights)

    goal = best_quality(table, 0) - 0.01
    cost = {}
    for depth in (3, 0):
        runs = [
            replay.replay(table, Strategy("p", {"prior_trials": 1000}, hint=partial(hint, depth)), 0, seed)
            for seed in range(24)
        ]
        cost[depth] = expected_cost(cost_to_reach([runs], [goal], table.grid_cost)[0], draws=10)[0]
    assert cost[3] < cost[0]


def test_a_strategy_that_gives_up_is_not_cheap() -> None:
    """Costs 1, 2 and 9, the last without success: 12 for two that got there."""
    runs = [
        [
            Replay(np.array([0.5, cost]), np.array([0.1, quality]), quality, (0, 0))
            for cost, quality in ((1.0, 0.9), (2.0, 0.9), (9.0, 0.2))
        ]
    ]
    spent, reached = cost_to_reach(runs, [0.8], grid=10.0)
    assert reached == pytest.approx(2 / 3)
    mean, low, high = expected_cost(spent)
    assert mean == pytest.approx(0.6) and low < mean < high
    never = [[Replay(np.array([1.0]), np.array([0.1]), 0.1, (0,))]]
    assert expected_cost(cost_to_reach(never, [0.8], 1.0)[0])[0] == float("inf")


def test_the_best_quality_is_found_on_splits_that_do_not_score_it() -> None:
    assert best_quality(_table(), 0) == pytest.approx(0.9, abs=1e-3)
    flattered = _table(noise=0.1, splits=8)
    assert best_quality(flattered, 0) < flattered.test[1:].mean(0).max()  # the maximum of noise is too high
    alone = _table(noise=0.1, splits=1)
    place = np.unravel_index(alone.val[0].argmax(), alone.val[0].shape)
    assert best_quality(alone, 0) == alone.test[0][place] < alone.test.max()


def test_an_interval_holds_its_mean_and_is_a_point_without_spread() -> None:
    mean, low, high = interval([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [0.0, 1.0, 5.0]])
    assert low < mean < high
    assert interval([[2.0, 2.0], [2.0, 2.0]]) == (2.0, 2.0, 2.0)


def test_a_table_is_read_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished_tables, "TABLES", tmp_path)
    read_table.cache_clear()
    head = {"task": "t", "flops": [3, 2, 1], "epochs": 2, "train": 60, "validation": 60}
    rows = [
        {"k": k, "optimizer": o, "factor": f, "val": [0.1 * k, 0.2], "test": [0.3, 0.4], "val_loss": [1.0, None]}
        for k in range(3) for o in ("adam", "nag") for f in (0.3, 1.0)
    ]  # fmt: skip
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "0.jsonl").write_text("\n".join(json.dumps(r) for r in [head, *rows]) + "\n")
    (tmp_path / "t" / "1.jsonl").write_text("\n".join(json.dumps(r) for r in [head, *rows[:-1]]) + "\n")
    (tmp_path / "t" / "2.jsonl").write_text(json.dumps(head) + "\n")  # only begun
    table = read_table("t")
    assert table.val.shape == (1, 3, 2, 2, 2)
    assert table.val[0, 2, 0, 0].tolist() == [0.2, 0.2]
    assert table.epoch_cost[0] > table.epoch_cost[1] > table.epoch_cost[2] > 0
    assert table.prefix_cost[0] == 0
    read_table.cache_clear()
    with pytest.raises(SystemExit, match="no complete table of missing"):
        read_table("missing")


def test_a_half_written_line_is_cut_off_and_other_settings_are_refused(tmp_path: Path) -> None:
    head = {"task": "t", "seed": 0}
    file = tmp_path / "t" / "0.jsonl"
    assert held(file, head) == set()
    row = {"k": 1, "optimizer": "nag", "factor": 1.0}
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n" + json.dumps(row)[:10])
    assert held(file, head) == {(1, "nag", 1.0)}
    assert file.read_text().endswith("1.0}\n")
    with pytest.raises(SystemExit, match="made with other settings"):
        held(file, {**head, "seed": 1})


def test_every_configuration_is_asked_for_once() -> None:
    asked = list(depth_tables.configurations(depth_tables.TASKS["neu_10"], 8))
    assert len(asked) == len(set(asked)) == 9 * 9
    assert asked[0][0] == 8 and asked[-1][0] == 0
