"""The schedule of faults, its command line, and a sample of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import FAULTS, main, schedule
from tests.faults.ray_kills import RAY_KILLS

REPOSITORY = Path(__file__).parents[2]


def test_sixty_faults_are_of_every_kind_and_the_seed_decides() -> None:
    plan = schedule(0, 60)
    assert len(plan) == 60 and {name for name, _ in plan} == set(FAULTS)
    assert schedule(0, 60) == plan != schedule(1, 60)
    assert len({seed for _, seed in plan}) == 60


def test_twenty_faults_on_ray_are_of_every_kind_and_the_seed_decides() -> None:
    plan = schedule(0, 20, "ray")
    assert len(plan) == 20 and {name for name, _ in plan} == set(RAY_KILLS)
    assert schedule(0, 20, "ray") == plan != schedule(1, 20, "ray")
    assert len({name for name, _ in schedule(0, 5, "ray")}) == 5


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_has_different_kinds_one_of_them_with_workers(seed: int) -> None:
    names = [name for name, _ in schedule(seed, 10)]
    assert len(set(names)) == 10 and set(names) <= set(FAULTS)
    assert sum("worker" in name for name in names) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["seeds=1"],
            "accepted are suite=NAME seed=N faults=N lanes=N again=N,N only=NAME,NAME write=FILE, got 'seeds=1'",
        ),
        (["seed=-1"], "got 'seed=-1'"),
        (["faults=all"], "got 'faults=all'"),
        (["again=3"], "again= must be numbers, with write=FILE of an earlier run, got '3'"),
        (["only=earthquake"], "only= must name some of driver killed"),
        (["suite=moon"], "suite= must be one of machine, ray, got 'moon'"),
        (["suite=ray", "only=disk full"], "only= must name some of worker killed, .*, got 'disk full'"),
    ],
    ids=["unknown", "negative", "no number", "again of nothing", "no such fault", "no such suite", "no fault of Ray's"],
)
def test_bad_arguments(arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        main(arguments)


def test_the_table_of_the_documentation_is_the_result() -> None:
    result = json.loads((REPOSITORY / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))
    counts = {name: [0, 0] for name in FAULTS}
    for row in result["faults"]:
        counts[row["fault"]][0] += row["survived"]
        counts[row["fault"]][1] += 1
    text = (REPOSITORY / "docs" / "interruptions.md").read_text(encoding="utf-8")
    assert f"`{result['command']}`" in text
    listed = re.findall(r"^\| ([^|]+) \| ([0-9]+) / ([0-9]+) \|", text, re.MULTILINE)
    assert {name: [int(n), int(m)] for name, n, m in listed} == {
        **counts, "all": [result["survived"], result["injected"]]
    }  # fmt: skip
    assert result["injected"] >= 60 and all(m for _, m in counts.values())


@pytest.mark.slow
@pytest.mark.timeout(600)  # a minute where nothing else computes
def test_a_sample_is_survived() -> None:
    """The whole schedule is `just verify`; a fault is a search and a half, or more, so five stand for it here."""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    seed = os.environ.get("THAWLINE_FAULT_SEED", "3")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", f"seed={seed}", "faults=5", "lanes=2"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=590, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 of 5 survived" in done.stdout
