"""Planted associations are found and named; where there is none, hardly ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.report.false_associations import TRAITS, compare_traits, map_traits


def bumps(centres: np.ndarray, width: float = 1.2, side: int = 8) -> torch.Tensor:
    """Maps (N, side, side) with one bump each, at (y, x) in positions."""
    y, x = np.mgrid[:side, :side]
    maps = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)) for cy, cx in centres]
    return torch.from_numpy(np.array(maps)).float()


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def column(name: str) -> int:
    return list(TRAITS).index(name)


def test_each_trait_says_what_it_is_called() -> None:
    pictures = images(2) * 0.1
    pictures[:, :, :8] += 0.8  # bright above
    centred, top = map_traits(pictures, bumps(np.array([[3.5, 3.5], [0.5, 3.5]])))
    assert centred[column("height")] == pytest.approx(0.5, abs=1e-6)
    assert centred[column("side")] == pytest.approx(0.5, abs=1e-6)
    assert top[column("height")] < 0.25
    assert top[column("border")] > centred[column("border")]
    assert top[column("brightness")] > 0.3 > 0 > centred[column("brightness")]
    narrow, wide = (map_traits(pictures[:1], bumps(np.array([[3.5, 3.5]]), width))[0] for width in (0.7, 3.0))
    assert narrow[column("extent")] < wide[column("extent")]
    striped = torch.full((1, 3, 32, 32), 0.5)
    striped[..., :16, ::2] = 1.0
    rough, smooth = (map_traits(striped, bumps(np.array([[cy, 3.5]])))[0] for cy in (1.0, 6.0))
    assert rough[column("texture")] > 1 > smooth[column("texture")]


def test_a_dead_map_has_no_traits() -> None:
    assert np.isnan(map_traits(images(1), torch.zeros(1, 4, 4))).all()


@pytest.mark.parametrize(("shift", "name", "word"), [((3.0, 0), "height", 1), ((0, -3.0), "side", 0)])
def test_a_planted_place_stands_out(shift: tuple[float, float], name: str, word: int) -> None:
    rng = np.random.default_rng(3)
    correct = map_traits(images(12), bumps(3.5 + rng.normal(0, 0.5, (12, 2))))
    mistaken = map_traits(images(8, 1), bumps(3.5 + np.array(shift) + rng.normal(0, 0.5, (8, 2))))
    # A bump that moves away from the middle also comes nearer to the border, which cuts it: not one trait alone.
    found = {t.name: t for t in compare_traits(mistaken, correct, seed=0)}[name]
    assert found.p_value < 0.01
    assert int(found.mistaken > found.correct) == word
    assert found.difference is not None and abs(found.difference) > 2


def test_where_nothing_is_planted_a_tenth_of_comparisons_or_less_stands_out() -> None:
    rng = np.random.default_rng(5)
    significant = 0
    for seed in range(40):
        table = rng.normal(size=(18, len(TRAITS)))
        significant += compare_traits(table[:6], table[6:], seed=seed)[0].p_value < 0.05
    assert significant <= 4


def test_too_few_images_are_not_compared_and_equal_ones_have_no_spread() -> None:
    table = np.ones((8, len(TRAITS)))
    assert compare_traits(table[:2], table[:6], seed=0) == ()
    assert compare_traits(table[:4], table[:4], seed=0) == ()
    for trait in compare_traits(table[:4], table[:5], seed=0):
        assert trait.difference is None and trait.p_value == 1.0
