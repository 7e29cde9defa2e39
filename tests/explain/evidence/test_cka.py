from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from explain.evidence import SCORERS, gather
from explain.evidence.cka import linear_cka

BLOCKS = ("stem", "middle", "deep")


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """tr(K H L H) / (n - 1)^2."""
    centring = np.eye(len(one)) - 1 / len(one)
    return float(np.trace(one @ one.T @ centring @ other @ other.T @ centring)) / (len(one) - 1) ** 2


def test_it_is_its_hsic_formula_and_its_feature_formula() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(12, 4)) + 3, rng.normal(size=(12, 7))
    wanted = hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))
    assert linear_cka(one, other)[0] == pytest.approx(wanted)
    x, y = one - one.mean(0), other - other.mean(0)
    by_features = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(one, other)[0] == pytest.approx(by_features)
    order = rng.permutation(12)
    assert linear_cka(one, other, order[None])[0] == pytest.approx(linear_cka(one, other[order])[0])


def test_rotation_scale_and_shift_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert linear_cka(one, one @ turn * 1e-9 + 1e-9)[0] == pytest.approx(1)
    assert linear_cka(one * 1e9, other)[0] == pytest.approx(linear_cka(one, other)[0])
    assert linear_cka(one, other)[0] == pytest.approx(linear_cka(other, one)[0])
    order = rng.permutation(20)
    assert linear_cka(one[order], other[order])[0] == pytest.approx(linear_cka(one, other)[0])


def test_constant_features_have_none() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(linear_cka(np.full((6, 2), 0.1), rng.normal(size=(6, 2)))).all()
    assert np.isnan(linear_cka(np.zeros((6, 2)), rng.normal(size=(6, 2)))).all()
    assert np.isnan(linear_cka(np.ones((1, 2)), np.ones((1, 2)))).all()


def test_an_unchanged_prefix_scores_one(planted: Any, networks: tuple[nn.Module, ...]) -> None:
    after = copy.deepcopy(networks[0])
    after.deep = networks[1].deep
    scores = SCORERS["cka"](gather(networks[0], BLOCKS, *planted, after=after, shuffles=0, gradients=False))
    np.testing.assert_allclose(scores.values[:2], 1)
    assert scores.values[2] < 0.9999
    assert (scores.z > 3).all()
    assert (scores.null_mean < 0.5).all()


def test_unrelated_features_are_chance(make_material: Any, make_pass: Any, make_maps: Callable[..., Any]) -> None:
    maps = make_maps(80, seed=0)
    one, other = (
        [torch.randn(80, 30, generator=torch.Generator().manual_seed(s + b)) for b in range(3)] for s in (0, 9)
    )
    scores = SCORERS["cka"](make_material(make_pass(maps, one), make_pass(maps, other)))
    assert (np.abs(scores.z) < 3).all()
    assert (scores.null_mean > 0.3).all()  # 40 images in 30 dimensions: biased upwards, and the null says so


def test_broken_or_constant_features_have_no_score(make_material: Any, make_pass: Any, make_maps: Any) -> None:
    maps = make_maps(12, seed=0)
    features = [torch.randn(12, 4) for _ in range(3)]
    features[0][2, 1] = torch.inf
    features[1][:] = 3
    passed = make_pass(maps, features)
    scores = SCORERS["cka"](make_material(passed, passed))
    np.testing.assert_allclose(scores.values, [np.nan, np.nan, 1])
    assert len(scores.notes) == 2
