from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from explain.evidence import SCORERS

E4 = SCORERS["agreement_of_change"]


@pytest.fixture
def changed(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> Callable[[int, int], Any]:
    def change(count: int, other: int) -> Any:
        """Maps changed by noise of seed 1, and again by noise of another seed."""
        start = [maps + 2 for maps in make_maps(count, seed=0)]
        one, two = ([a + b for a, b in zip(start, make_maps(count, seed=s), strict=True)] for s in (1, other))
        return make_material(make_pass(start), make_pass(one), make_pass(two))

    return change


def test_the_same_change_speaks_for_thawing(changed: Callable[..., Any]) -> None:
    scores = E4(changed(60, 1))
    np.testing.assert_allclose(scores.values, -1, atol=1e-6)
    assert (scores.z < -5).all()


def test_unrelated_changes_are_chance(changed: Callable[..., Any]) -> None:
    scores = E4(changed(200, 2))
    assert (scores.values > -0.2).all()
    assert (np.abs(scores.z) < 3.5).all()


def test_opposite_changes_speak_for_freezing(make_material: Any, make_pass: Any, make_maps: Any) -> None:
    start = [torch.full((12, 5, 5), 9.0) for _ in range(3)]
    moved = [maps - maps.mean(dim=(1, 2), keepdim=True) for maps in make_maps(12, seed=0)]
    up, down = ([a + sign * b for a, b in zip(start, moved, strict=True)] for sign in (1, -1))
    scores = E4(make_material(make_pass(start), make_pass(up), make_pass(down)))
    np.testing.assert_allclose(scores.values, 1, atol=1e-4)


def test_the_scale_of_a_map_is_no_change(changed: Callable[..., Any], make_pass: Any) -> None:
    found = changed(20, 2)
    wanted = E4(found).values
    for record in found.again.records:
        record.cam.mul_(5)
    np.testing.assert_allclose(E4(found).values, wanted, atol=1e-6)


def test_dead_and_unchanged_maps_are_left_out(changed: Callable[..., Any]) -> None:
    found = changed(12, 1)
    found.after.records[0].cam[2] = 0
    found.again.records[1].cam.copy_(found.before.records[1].cam)
    scores = E4(found)
    np.testing.assert_allclose(scores.values, [-1, np.nan, -1], atol=1e-6)
    assert scores.notes == (
        "block stem: 1 of 6 maps are dead or did not change",
        "block middle: 6 of 6 maps are dead or did not change",
    )
