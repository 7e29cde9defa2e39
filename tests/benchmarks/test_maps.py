"""Replays of the arms on a made-up table: each runs on the real driver, pays for its maps and picks what is planted."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks import maps
from benchmarks.map_tables import FACTORS, OPTIMIZERS, held

EPOCHS = 10


@pytest.fixture
def table(tmp_path: Path) -> maps.MapTable:
    """Equal losses everywhere; the larger the factor, the better the maps and the test."""
    rng = np.random.default_rng(0)
    head = {"flops": [4, 2, 1], "epochs": EPOCHS, "train": 64, "validation": 16, "batch_size": 8}
    lines = [json.dumps(head)]
    for k, optimizer, factor in product((2, 1, 0), OPTIMIZERS, FACTORS):
        of = {name: {"top": factor / 10 + 0.001 * float(rng.uniform())} for name in maps.NAMES}
        lines.append(
            json.dumps(
                {
                    "k": k, "optimizer": optimizer, "factor": factor, "val": [0.5] * EPOCHS,
                    "val_loss": [1.0] * EPOCHS, "seconds": [1.0] * EPOCHS, "maps": {1: of, 2: of, 4: of, 8: of},
                    "map_seconds": dict.fromkeys((1, 2, 4, 8), 0.1), "test": round(0.5 + factor / 10, 3),
                }
            )
        )  # fmt: skip
    file = tmp_path / "made-net-0.jsonl"
    file.write_text("\n".join(lines) + "\n" + '{"k": 0, half')
    found = maps.read(file)
    assert found is not None and found.whole
    return found


def test_maps_find_what_is_planted_in_them_and_cost_what_was_measured(table: maps.MapTable) -> None:
    assert table.map_ratio == {0: pytest.approx(0.1), 1: pytest.approx(0.1), 2: pytest.approx(0.1)}
    judge, joint = (next(a for a in maps.ARMS if a.name == name) for name in ("judge alone", "J"))
    plain, found = ([maps.search(table, arm, seed, trials=24) for seed in range(3)] for arm in (judge, joint))
    assert all(one.trials == 24 for one in (*plain, *found))
    ranked = maps.search(table, joint, 0, seconds=plain[0].spent)
    assert ranked.spent >= plain[0].spent  # trials that run are brought to an end
    assert maps.search(table, joint, 0, trials=24) == found[0]
    # Of trials that were compared by their maps, those that ran in full after the first three have strong ones.
    assert np.mean([one.test for one in found]) >= np.mean([one.test for one in plain])


@pytest.mark.parametrize("how", ["any", "depth"])
def test_permuted_statistics_are_those_of_another_configuration(table: maps.MapTable, how: str) -> None:
    whose = table.shuffled(how, np.random.default_rng(1))
    assert sorted(whose) == sorted(whose.values()) == sorted(table.rows)
    assert any(key != other for key, other in whose.items())
    assert how == "any" or all(key[0] == other[0] for key, other in whose.items())


def test_ranks_say_what_was_planted(table: maps.MapTable) -> None:
    keys = list(table.rows)
    truth = np.array([table.rows[key]["test"] for key in keys])
    measures = maps._measures(table, keys)
    assert len(measures["S"]) == len(table.at)
    assert all(maps._spearman(values, truth) > 0.9 for values, _ in measures["S"])
    assert np.isnan(maps._spearman(measures["-loss"][0][0], truth))


def test_a_table_that_is_begun_reaches_as_far_as_whole_freeze_depths(table: maps.MapTable, tmp_path: Path) -> None:
    lines = (tmp_path / "made-net-0.jsonl").read_text().split("\n")
    (tmp_path / "begun.jsonl").write_text("\n".join(lines[:9]) + "\n")
    found = maps.read(tmp_path / "begun.jsonl")
    assert found is not None and not found.whole and found.depths == (2, 2)
    assert len(held(tmp_path / "begun.jsonl", table.head)) == 8
    with pytest.raises(SystemExit, match="made with other settings"):
        held(tmp_path / "begun.jsonl", {})
