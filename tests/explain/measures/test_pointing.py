from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from explain.measures import boxes_to_masks, energy_pointing, pointing_game


def box(height: int, width: int, *edges: float) -> Tensor:
    return boxes_to_masks([[tuple(edges)]], (height, width))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(0, 0, 2, 1)], [[1, 1, 0], [0, 0, 0]]),
        ([(1, 0, 3, 2)], [[0, 1, 1], [0, 1, 1]]),
        ([(0.6, 0, 1.4, 2)], [[0, 0, 0], [0, 0, 0]]),
        ([(0, 0, 1, 1), (2, 1, 3, 2)], [[1, 0, 0], [0, 0, 1]]),
        ([(-5, -5, 99, 99)], [[1, 1, 1], [1, 1, 1]]),
        ([], [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_boxes_to_masks(boxes: list[Any], expected: list[list[int]]) -> None:
    assert boxes_to_masks([boxes], (2, 3)).int().tolist() == [expected]


@pytest.mark.parametrize("edges", [(2, 0, 1, 1), (0, 1, 1, 1)])
def test_empty_boxes_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="max above min, got"):
        box(4, 4, *edges)


@pytest.mark.parametrize(
    ("place", "tolerance", "expected"),
    [((2, 2), 0, 1), ((2, 5), 0, 0), ((2, 5), 1, 0), ((2, 5), 2, 1), ((5, 5), 2, 0), ((5, 5), 3, 1)],
)
def test_pointing_game_on_one_pixel(place: tuple[int, int], tolerance: int, expected: float) -> None:
    maps = torch.zeros(1, 8, 8)
    maps[0][place] = 3
    truth = box(8, 8, 1, 1, 4, 4)  # pixels 1..3
    assert pointing_game(maps, truth, tolerance=tolerance).item() == expected


def test_energy_pointing_counts_the_share_inside() -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    truth = torch.tensor([[[True, False], [False, True]]])
    assert energy_pointing(maps, truth).item() == pytest.approx(0.5)
    assert energy_pointing(maps, ~truth).item() == pytest.approx(0.5)
    assert energy_pointing(maps, torch.ones_like(truth)).item() == pytest.approx(1)


@given(seed=st.integers(0, 999), height=st.integers(1, 5), width=st.integers(1, 5))
def test_a_uniform_map_scores_the_covered_share(seed: int, height: int, width: int) -> None:
    truth = torch.rand(1, 9, 7, generator=torch.Generator().manual_seed(seed)) < 0.4
    chance = truth.float().mean().item()
    maps = torch.full((1, height, width), 0.1)
    if truth.any():
        assert energy_pointing(maps, truth).item() == pytest.approx(chance, abs=1e-6)
        assert pointing_game(maps, truth).item() == pytest.approx(chance, abs=1e-6)


@given(seed=st.integers(0, 999), factor=st.floats(1e-3, 1e3))
def test_scale_and_complement(seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps, truth = torch.rand(2, 4, 4, generator=generator), torch.rand(2, 8, 8, generator=generator) < 0.5
    inside = energy_pointing(maps, truth)
    assert torch.allclose(inside, energy_pointing(factor * maps, truth), atol=1e-6)
    assert torch.allclose(inside + energy_pointing(maps, ~truth), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("measure", [pointing_game, energy_pointing])
def test_nan_for_dead_maps_and_images_without_truth(measure: Any) -> None:
    maps = torch.stack([torch.rand(3, 3), torch.zeros(3, 3), torch.rand(3, 3)])
    truth = torch.ones(3, 6, 6, dtype=torch.bool)
    truth[2] = False
    assert measure(maps, truth).isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("measure", [pointing_game, energy_pointing])
@pytest.mark.parametrize(
    ("truth", "error", "match"),
    [
        (torch.ones(1, 4, 4), TypeError, r"bool tensor, got torch\.float32"),
        ([[True]], TypeError, "bool tensor, got list"),
        (torch.ones(2, 4, 4, dtype=torch.bool), ValueError, r"N = 1, got shape \(2, 4, 4\)"),
        (torch.ones(1, 4, dtype=torch.bool), ValueError, r"\(N, H, W\) .*got shape \(1, 4\)"),
    ],
)
def test_truth_refused(measure: Any, truth: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        measure(torch.ones(1, 2, 2), truth)


@pytest.mark.parametrize(
    ("tolerance", "error", "match"),
    [(-1, ValueError, "must be >= 0, got -1"), (1.5, TypeError, r"integer.*got 1\.5"), (True, TypeError, "got True")],
)
def test_tolerance_refused(tolerance: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        pointing_game(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), tolerance=tolerance)
