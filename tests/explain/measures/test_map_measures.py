from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from explain.measures import (
    MAP_MEASURES,
    complexity,
    dead_map_rate,
    dispersion,
    elliptical_area,
    elliptical_area_12,
    entropy,
    normalised_entropy,
    relative_difference,
)

maps_2d = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=7),
    elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e3)),
).map(lambda values: torch.from_numpy(values)[None])
living_maps = maps_2d.filter(lambda maps: bool(maps.sum() > 0))


def uniform(height: int, width: int) -> Tensor:
    return torch.full((1, height, width), 0.3)


def one_pixel(height: int, width: int) -> Tensor:
    maps = torch.zeros(1, height, width)
    maps[0, height // 2, width // 3] = 5
    return maps


def gaussian(size: int, row_sigma: float, column_sigma: float, angle: float = 0.0) -> Tensor:
    """Density with the given standard deviations along its axes, in units of the image's side."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    rows, columns = torch.meshgrid(centre, centre, indexing="ij")
    along = math.cos(angle) * rows + math.sin(angle) * columns
    across = -math.sin(angle) * rows + math.cos(angle) * columns
    return torch.exp(-((along / row_sigma) ** 2) / 2 - (across / column_sigma) ** 2 / 2)[None]


@pytest.mark.parametrize(
    ("measure", "maps", "expected"),
    [
        (entropy, uniform(5, 8), math.log(40)),
        (entropy, one_pixel(5, 8), 0),
        (entropy, torch.tensor([[[1.0, 1.0], [2.0, 0.0]]]), 1.5 * math.log(2)),
        (entropy, gaussian(200, 0.05, 0.08), math.log(2 * math.pi * math.e * 0.05 * 0.08 * 200**2)),
        (normalised_entropy, uniform(5, 8), 1),
        (normalised_entropy, one_pixel(5, 8), 0),
        (elliptical_area, uniform(5, 8), math.sqrt((1 - 1 / 25) * (1 - 1 / 64)) / 12),
        (elliptical_area, uniform(1000, 1000), 1 / 12),
        (elliptical_area, one_pixel(5, 8), 0),
        (elliptical_area, gaussian(200, 0.05, 0.08), 0.05 * 0.08),
        (elliptical_area, gaussian(200, 0.05, 0.08, angle=0.7), 0.05 * 0.08),
        (elliptical_area, torch.eye(9)[None], 0),
        (elliptical_area_12, uniform(1000, 1000), 1),
        (dispersion, uniform(5, 8), 0),
        (dispersion, torch.tensor([[[1.0, 3.0]]]), 0.25),
        (dispersion, gaussian(200, 0.05, 0.08), 1 / (4 * math.pi * 0.05 * 0.08) - 1),
        (relative_difference, uniform(5, 8), 0),
        (relative_difference, one_pixel(5, 8), 40),
        (relative_difference, torch.tensor([[[1.0, 3.0]]]), 1),
        (complexity, uniform(5, 8), 1),
        (complexity, one_pixel(5, 8), 1 / 40),
        (dead_map_rate, uniform(5, 8), 0),
        (dead_map_rate, torch.zeros(1, 5, 8), 1),
    ],
)
def test_closed_forms(measure: Any, maps: Tensor, expected: float) -> None:
    assert measure(maps).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_dispersion_of_one_pixel() -> None:
    assert dispersion(one_pixel(5, 8), eps=0).item() == pytest.approx(39, rel=1e-12)
    assert dispersion(one_pixel(5, 8)).item() == pytest.approx(39, rel=1e-4)


def test_corners_give_the_largest_area() -> None:
    corners = torch.zeros(1, 100, 100)
    corners[0, ::99, ::99] = 1
    assert elliptical_area(corners).item() == pytest.approx(0.25, rel=0.03)
    assert elliptical_area(corners).item() <= 0.25


@given(maps=living_maps)
def test_dispersion_is_the_sum_of_squares(maps: Tensor) -> None:
    """cd = h w sum M_bar^2 - 1 at eps = 0 [derived in the facts of the project]."""
    share = maps / maps.sum()
    expected = maps[0].numel() * (share**2).sum() - 1
    assert dispersion(maps, eps=0).item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)


@given(maps=living_maps, factor=st.floats(1e-6, 1e6))
def test_scale_changes_nothing(maps: Tensor, factor: float) -> None:
    for measure in MAP_MEASURES.values():
        assert measure(factor * maps).item() == pytest.approx(measure(maps).item(), rel=1e-6, abs=1e-7)


@given(maps=living_maps, seed=st.integers(0, 99))
def test_moving_pixels_changes_only_the_area(maps: Tensor, seed: int) -> None:
    order = torch.randperm(maps[0].numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = maps.flatten(1)[:, order].reshape(maps.shape)
    for name, measure in MAP_MEASURES.items():
        if name not in ("ca", "ca12"):
            assert measure(shuffled).item() == pytest.approx(measure(maps).item(), rel=1e-9, abs=1e-9)


@given(maps=living_maps)
def test_turning_and_mirroring_keeps_the_area(maps: Tensor) -> None:
    area = elliptical_area(maps).item()
    for turned in (maps.flip(1), maps.flip(2), maps.transpose(1, 2)):
        assert elliptical_area(turned).item() == pytest.approx(area, rel=1e-6, abs=1e-6)


@given(maps=maps_2d)
def test_values_lie_in_the_declared_range(maps: Tensor) -> None:
    for measure in MAP_MEASURES.values():
        value = measure(maps).item()
        assert math.isnan(value) or measure.low <= value <= measure.high


@given(maps=living_maps)
def test_entropy_lies_between_one_pixel_and_uniform(maps: Tensor) -> None:
    assert 0 <= entropy(maps).item() <= math.log(maps[0].numel()) * (1 + 1e-12)


@pytest.mark.parametrize("name", [name for name in MAP_MEASURES if name != "dead_map_rate"])
def test_a_dead_map_is_nan_and_only_it(name: str) -> None:
    maps = torch.stack([torch.rand(4, 5), torch.zeros(4, 5), torch.rand(4, 5)])
    values = MAP_MEASURES[name](maps)
    assert values.isnan().tolist() == [False, True, False]
    assert values.shape == (3,)
    assert values.dtype == torch.float64


def test_a_map_of_one_position_has_no_normalised_entropy() -> None:
    assert normalised_entropy(torch.ones(2, 1, 1)).isnan().all()


@pytest.mark.parametrize("name", MAP_MEASURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_batch_equals_its_maps_one_by_one_in_any_precision(name: str, dtype: torch.dtype) -> None:
    maps = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    measure = MAP_MEASURES[name]
    alone = torch.cat([measure(one[None]) for one in maps])
    assert torch.allclose(measure(maps), alone, rtol=1e-12)


@pytest.mark.parametrize("extreme", [1e-38, 1e38])
def test_extreme_values_neither_vanish_nor_overflow(extreme: float) -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    for measure in MAP_MEASURES.values():
        assert measure(extreme * maps).item() == pytest.approx(measure(maps).item(), rel=1e-5)


@pytest.mark.parametrize("name", MAP_MEASURES)
@pytest.mark.parametrize(
    ("maps", "error", "match"),
    [
        ([[1.0]], TypeError, "must be a tensor, got list"),
        (torch.ones(1, 2, 2, dtype=torch.int64), TypeError, r"floating point, got torch\.int64"),
        (torch.ones(2, 2), ValueError, r"\(N, h, w\) .*got \(2, 2\)"),
        (torch.ones(1, 0, 2), ValueError, r"h, w >= 1, got \(1, 0, 2\)"),
        (-torch.ones(1, 2, 2), ValueError, r"non-negative, got -1\.0"),
        (torch.full((1, 2, 2), math.nan), ValueError, "finite"),
        (torch.full((1, 2, 2), math.inf), ValueError, "finite"),
    ],
)
def test_maps_refused(name: str, maps: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        MAP_MEASURES[name](maps)


def test_negative_eps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eps must be >= 0, got -0\.1"):
        dispersion(torch.ones(1, 2, 2), eps=-0.1)
