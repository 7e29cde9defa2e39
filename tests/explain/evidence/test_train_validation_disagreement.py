from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor, nn

from explain.evidence import SCORERS, depth_scores, gather
from explain.evidence.train_validation_disagreement import kolmogorov_smirnov

E3 = SCORERS["train_validation_disagreement"]
BLOCKS = ("stem", "middle", "deep")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_ks_is_that_of_scipy(drawn: list[tuple[int, bool]]) -> None:
    values = np.array([float(value) for value, _ in drawn])
    members = np.array([member for _, member in drawn])
    members[0], members[-1] = True, False
    found = kolmogorov_smirnov(values, np.stack([members, ~members]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its p-value, which is not used
        wanted = ks_2samp(values[members], values[~members], method="asymp").statistic
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    np.testing.assert_allclose(kolmogorov_smirnov(np.exp(values), members[None]), wanted, atol=1e-12)


def test_exchangeable_images_are_chance(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    maps = make_pass(make_maps(120, seed=0))
    scores = E3(make_material(maps, maps))
    assert (np.abs(scores.z) < 3).all()
    assert (scores.null_mean > 0.05).all()  # two halves of one set differ too


def test_the_null_is_calibrated(make_material: Any, make_pass: Any, make_maps: Any) -> None:
    """Over random halves of one set, z has mean 0 and spread 1."""
    maps = make_pass(make_maps(48, seed=0))
    generator = torch.Generator().manual_seed(0)
    found = []
    for seed in range(60):
        halves = [torch.randperm(24, generator=generator) < 12 for _ in range(2)]
        training = torch.stack(halves, dim=1).flatten()  # within each of the two classes, which alternate
        found.append(E3(make_material(maps, maps, training=training), draws=100, seed=seed).z)
    assert np.abs(np.mean(found)) < 0.3
    assert 0.75 < np.std(found) < 1.25


def test_maps_that_differ_between_the_halves_are_far_from_chance(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    maps = make_maps(60, seed=0)
    found = make_material(make_pass(maps), make_pass(maps))
    sharp = torch.zeros(5, 5)
    sharp[1:3, 1:3] = 50
    record = found.after.records[1]
    record.cam[found.training] += sharp
    scores = E3(found)
    assert scores.values[1] == pytest.approx(1)
    assert scores.z[1] > 10
    assert (np.abs(scores.z[[0, 2]]) < 3).all()
    assert depth_scores(scores).values[1:].argmax() == 1  # disagreement counts for freezing the block


def test_classes_of_unequal_halves_are_no_disagreement(make_material: Callable[..., Any], make_pass: Any) -> None:
    """One class has sharp maps and is mostly in the training half: the null, drawn within classes, has that too."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(80, 5, 5, generator=generator)
    labels = torch.arange(80) // 40
    maps[labels == 1, 2, 2] += 40
    training = torch.cat([torch.arange(40) < 10, torch.arange(40) < 30])
    passed = make_pass([maps])
    scores = E3(make_material(passed, passed, labels=labels, training=training))
    assert scores.values[0] > 0.4
    assert abs(scores.z[0]) < 3


def test_a_network_that_memorised_is_far_from_its_null_and_one_that_did_not_is_not(
    tune: Callable[..., nn.Module], make_net: Callable[..., nn.Module]
) -> None:
    # By construction: 32 points of 768 numbers each are separable whatever their labels; other noise is not learnt.
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 2
    training = (torch.arange(64) // 2) % 2 == 0
    start = make_net(0, classes=2, width=24)
    memorised = tune(start, images[training], labels[training], steps=150, seed=0, rate=0.05)
    right = memorised(images).argmax(1) == labels
    assert right[training].float().mean() > 0.95
    assert right[~training].float().mean() < 0.75
    options: dict[str, Any] = {"shuffles": 0, "gradients": False, "method": "hirescam"}
    never = E3(gather(start, BLOCKS, images, labels, training, after=start, **options))
    after = E3(gather(start, BLOCKS, images, labels, training, after=memorised, **options))
    assert np.abs(never.z).max() < 4 < after.z.min()


def test_dead_maps_are_left_out_and_single_cells_have_no_score(
    make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Callable[..., list[Tensor]]
) -> None:
    maps = make_maps(12, seed=0)
    maps[0][0] = 0
    maps[1][:] = 0
    maps[2] = maps[2][:, :1, :1]
    scores = E3(make_material(make_pass(maps), make_pass(maps)))
    assert np.isnan(scores.values).tolist() == [False, True, True]
    assert scores.notes == ("block stem: 1 of 12 maps are dead", "block middle: 12 of 12 maps are dead")


def test_the_sign_is_fixed_in_the_docstring() -> None:
    text = " ".join((E3.function.__doc__ or "").split())
    assert "Sign: +, fixed before any result was seen" in text
    assert "disagreement counts for freezing" in text
