"""Rows: what is done is not done again, what failed is; means, intervals, ratios and the frontier."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers.rows import Standing, frontier, is_done, replaced, standings


def row(peer: str, seed: int, score: float, seconds: float, task: str = "neu_10") -> dict[str, Any]:
    return {"peer": peer, "task": task, "seed": seed, "accuracy": score, "seconds": seconds}


def failure(peer: str, seed: int = 0) -> dict[str, Any]:
    return {"peer": peer, "task": "neu_10", "seed": seed, "failed": "no such network"}


def test_what_failed_is_tried_again() -> None:
    rows = [row("timm", 0, 0.9, 10), failure("fastai")]
    assert is_done(rows, "timm", "neu_10", 0)
    assert not is_done(rows, "timm", "neu_10", 1)
    assert not is_done(rows, "timm", "neu_40", 0)
    assert not is_done(rows, "fastai", "neu_10", 0)


def test_a_row_takes_the_place_of_its_own_kind_alone() -> None:
    rows = replaced([failure("fastai"), failure("fastai", 1), row("timm", 0, 0.9, 10)], row("fastai", 0, 0.8, 5))
    assert [(r["peer"], r["seed"], "failed" in r) for r in rows] == [
        ("fastai", 1, True),
        ("timm", 0, False),
        ("fastai", 0, False),
    ]


def test_standings() -> None:
    rows = [row("timm", seed, score, 10) for seed, score in enumerate((0.8, 0.9, 1.0))]
    rows += [row("optuna", 0, 0.5, 40), row("timm", 0, 0.1, 99, task="neu_40"), failure("autogluon")]
    optuna, timm, autogluon = standings(rows, "neu_10", "accuracy", ("optuna", "fastai", "timm", "autogluon"), "timm")
    assert optuna == Standing("optuna", 1, 0.5, None, 40, 4.0)
    assert (timm.seeds, timm.score, timm.ratio) == (3, pytest.approx(0.9), 1.0)
    # t(0.975, 2) = 4.3027 times the standard error 0.1 / sqrt(3)
    assert timm.interval == pytest.approx((0.9 - 0.2484, 0.9 + 0.2484), abs=1e-4)
    assert (autogluon.seeds, autogluon.failed) == (0, "no such network")


def test_no_ratio_where_the_unit_has_not_run_on_a_seed() -> None:
    rows = [row("timm", 0, 0.8, 10), row("optuna", 0, 0.5, 40), row("optuna", 1, 0.5, 40)]
    (optuna,) = standings(rows, "neu_10", "accuracy", ("optuna",), "timm")
    assert optuna.ratio is None


def test_the_frontier_is_what_none_beats() -> None:
    names = {"slow_poor": (50, 0.7), "slow_good": (60, 0.95), "fast": (1, 0.7), "same_time_worse": (1, 0.6)}
    found = [Standing(name, 3, score, None, seconds, None) for name, (seconds, score) in names.items()]
    found.append(Standing("failed", 0, 0.0, None, 0.0, None, "not here"))
    assert [one.peer for one in frontier(found)] == ["fast", "slow_good"]
