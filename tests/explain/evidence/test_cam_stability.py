from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explain.evidence import SCORERS, gather
from explain.evidence.map_correlation import correlations

E2 = SCORERS["cam_stability"]
BLOCKS = ("stem", "middle", "deep")


def test_correlations_are_those_of_numpy() -> None:
    one, other = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    stacked = np.corrcoef(one.flatten(1).numpy(), other.flatten(1).numpy())
    np.testing.assert_allclose(correlations(one, other), stacked[:4, 4:], atol=1e-6)
    np.testing.assert_allclose(correlations(one * 1e-30, other * 1e30), stacked[:4, 4:], atol=1e-6)


def test_an_unchanged_network_is_stable(planted: Any, networks: tuple[nn.Module, ...]) -> None:
    scores = E2(gather(networks[0], BLOCKS, *planted, after=copy.deepcopy(networks[0]), shuffles=0, gradients=False))
    np.testing.assert_allclose(scores.values, 1, atol=1e-9)
    assert (scores.z > 3).all()
    assert (scores.null_mean < 0.9).all()


def test_an_unchanged_prefix_is_stable_in_the_control_and_moves_in_cam(
    planted: Any, networks: tuple[nn.Module, ...]
) -> None:
    after = copy.deepcopy(networks[0])
    after.middle = networks[1].middle
    found = gather(networks[0], BLOCKS, *planted, after=after, shuffles=0, gradients=False)
    control = E2(found, maps="control").values
    assert control[0] == pytest.approx(1)
    assert (control[1:] < 0.9999).all()
    assert E2(found).values[0] < 0.9999  # its gradients come through the block that changed


def test_unrelated_maps_are_chance(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    found = make_material(make_pass(make_maps(120, seed=0)), make_pass(make_maps(120, seed=1)))
    scores = E2(found)
    assert (np.abs(scores.values) < 0.1).all()
    assert (np.abs(scores.z) < 3.5).all()


def test_what_all_images_share_is_in_the_null(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    """Every map bright in the middle: the correlation is high, and so is the null; z says chance."""
    shared = torch.zeros(5, 5)
    shared[2, 2] = 20
    one, other = ([maps + shared for maps in make_maps(120, seed=seed)] for seed in (0, 1))
    scores = E2(make_material(make_pass(one), make_pass(other)))
    assert (scores.values > 0.9).all()
    assert (scores.null_mean > 0.9).all()
    assert (np.abs(scores.z) < 3.5).all()


def test_only_validation_images_count_and_scale_does_not(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    maps = make_maps(12, seed=0)
    found = make_material(make_pass(maps), make_pass([7 * one for one in maps]))
    for one in found.after.records:
        one.cam[found.training] = 0
    np.testing.assert_allclose(E2(found).values, 1)
    assert E2(found).notes == ()


def test_dead_and_constant_maps_are_left_out(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    maps, changed = make_maps(12, seed=0), make_maps(12, seed=0)
    changed[0][2] = 0
    changed[0][3] = 4
    changed[1][:] = 0
    scores = E2(make_material(make_pass(maps), make_pass(changed)))
    np.testing.assert_allclose(scores.values, [1, np.nan, 1])
    assert scores.notes == (
        "block stem: 2 of 6 maps are dead or constant",
        "block middle: 6 of 6 maps are dead or constant",
    )
    assert np.isnan(scores.z).tolist() == [False, True, False]


@pytest.mark.parametrize("size", [1, 5])
def test_one_validation_image_or_one_cell_has_no_null(
    size: int,
    make_material: Callable[..., Any],
    make_pass: Callable[..., Any],
    make_maps: Callable[..., list[Tensor]],
) -> None:
    maps = make_maps(3, seed=0, size=size)
    scores = E2(make_material(make_pass(maps), make_pass(maps)))
    np.testing.assert_allclose(scores.values, np.nan if size == 1 else 1)
    assert np.isnan(scores.z).all()
