from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from explain.measures import (
    MEASURES,
    adcc,
    adcc_from,
    average_drop,
    coherency,
    complexity,
    deletion,
    drop_from,
    increase,
    insertion,
    masked_images,
    masked_probabilities,
    road,
)
from explain.measures.faithfulness import pearson
from explain.measures.perturbation import blurred, impute, pixel_ranks

TARGETS = torch.tensor([1, 1])


def brightness(images: Tensor) -> Tensor:
    """Two classes; the probability of class 1 is the mean of the image's left half, within [0, 1]."""
    bright = images[:, :, :, : images.shape[3] // 2].mean(dim=(1, 2, 3)).clamp(0, 1)
    return torch.stack([1 - bright, bright], dim=1)


def half_maps(side: str, size: int = 4) -> Tensor:
    maps = torch.zeros(2, size, size)
    half = slice(0, size // 2) if side == "left" else slice(size // 2, size)
    maps[:, :, half] = 2
    return maps


@pytest.fixture
def bright_images() -> Tensor:
    return torch.full((2, 3, 4, 4), 0.8)


@pytest.mark.parametrize(("side", "drop"), [("left", 0), ("right", 1)])
def test_average_drop_and_increase_on_halves(bright_images: Tensor, side: str, drop: float) -> None:
    maps = half_maps(side)
    assert average_drop(maps, bright_images, TARGETS, brightness).tolist() == pytest.approx([drop, drop])
    assert increase(maps, bright_images, TARGETS, brightness).tolist() == [0, 0]
    assert increase(half_maps("right"), bright_images, 1 - TARGETS, brightness).tolist() == [1, 1]


def test_masked_probabilities_equal_the_definition(bright_images: Tensor) -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    before, after = masked_probabilities(maps, bright_images, TARGETS, brightness)
    expected = (bright_images * (maps / maps.amax((1, 2), keepdim=True))[:, None])[..., :2].mean((1, 2, 3))
    assert before.tolist() == pytest.approx([0.8, 0.8])
    assert torch.allclose(after.float(), expected)
    assert torch.allclose(drop_from(before, after), average_drop(maps, bright_images, TARGETS, brightness))
    assert masked_images(maps, bright_images).dtype == bright_images.dtype


def test_drop_is_relative_where_pytorch_grad_cam_is_absolute(bright_images: Tensor) -> None:
    metrics = importlib.import_module("pytorch_grad_cam.metrics.cam_mult_image")
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    maps = maps / maps.amax((1, 2), keepdim=True)
    score = [lambda output: output[1]] * 2
    absolute = metrics.DropInConfidence()(bright_images, maps.numpy()[:, None], score, brightness)
    ours = average_drop(maps, bright_images, TARGETS, brightness).numpy()
    np.testing.assert_allclose(ours, absolute / 0.8, rtol=1e-5)


def test_an_impossible_class_has_no_drop(bright_images: Tensor) -> None:
    black = torch.zeros_like(bright_images)
    assert average_drop(half_maps("left"), black, TARGETS, brightness).isnan().all()


def test_coherency_of_an_explanation_that_repeats_itself_or_its_opposite(bright_images: Tensor) -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(coherency(maps, bright_images, lambda _: 3 * maps + 1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(coherency(maps, bright_images, lambda _: 2 - maps), torch.zeros(2, dtype=torch.float64))
    assert coherency(maps, bright_images, lambda _: torch.ones_like(maps)).isnan().all()
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4\), got \(2, 3, 3\)"):
        coherency(maps, bright_images, lambda _: torch.ones(2, 3, 3))


def test_coherency_explains_the_masked_image(bright_images: Tensor) -> None:
    seen: list[Tensor] = []

    def explain(images: Tensor) -> Tensor:
        seen.append(images)
        return half_maps("left")

    coherency(half_maps("left"), bright_images, explain)
    assert torch.equal(seen[0], masked_images(half_maps("left"), bright_images))


@given(seed=st.integers(0, 999))
def test_pearson_equals_numpy(seed: int) -> None:
    one, other = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = np.corrcoef(one.numpy().ravel(), other.numpy().ravel())[0, 1]
    assert pearson(one, other).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((1, 0, 0), 1),
        ((0.5, 0.5, 0.5), 0.5),
        ((1, 0.5, 0), 3 / (1 + 2 + 1)),
        ((0, 0.1, 0.1), 0),
        ((1, 1, 0), 0),
        ((1, 0, 1), 0),
        ((math.nan, 0, 1), math.nan),
    ],
)
def test_adcc_is_a_harmonic_mean(parts: tuple[float, ...], expected: float) -> None:
    value = adcc_from(*(torch.tensor([part], dtype=torch.float64) for part in parts)).item()
    assert value == pytest.approx(expected, nan_ok=True)


def test_adcc_is_made_of_its_parts(bright_images: Tensor) -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = adcc_from(
        coherency(maps, bright_images, lambda _: maps**2),
        complexity(maps),
        average_drop(maps, bright_images, TARGETS, brightness),
    )
    assert torch.equal(adcc(maps, bright_images, TARGETS, brightness, lambda _: maps**2), expected)


def test_pixel_ranks_follow_the_map_and_break_ties_at_random() -> None:
    maps = torch.zeros(2, 6, 6)
    maps[:, 2, 3] = 1
    maps[:, 4, 4] = 2
    ranks = pixel_ranks(maps, (6, 6), seed=0).reshape(2, 6, 6)
    assert ranks[:, 4, 4].tolist() == [0, 0]
    assert ranks[:, 2, 3].tolist() == [1, 1]
    assert ranks.flatten(1).sort(dim=1).values.tolist() == [list(range(36))] * 2
    assert not torch.equal(ranks[0], ranks[1])
    assert torch.equal(ranks, pixel_ranks(maps, (6, 6), seed=0).reshape(2, 6, 6))
    assert not torch.equal(ranks, pixel_ranks(maps, (6, 6), seed=1).reshape(2, 6, 6))


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the oracle hands tensors to numpy
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_imputation_equals_the_papers_code(share: float) -> None:
    theirs = importlib.import_module("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0)
    generator = torch.Generator().manual_seed(0)
    image, removed = torch.rand(3, 9, 7, generator=generator), torch.rand(9, 7, generator=generator) < share
    assert torch.allclose(impute(image, removed), theirs(image, (~removed).float()), atol=1e-5)


def test_imputation_keeps_planes_and_refuses_nothing_to_go_on() -> None:
    plane = torch.arange(5.0)[:, None] + 2 * torch.arange(6.0)
    removed = torch.zeros(5, 6, dtype=torch.bool)
    removed[1:4, 1:5] = True
    assert torch.allclose(impute(plane[None] * (~removed), removed), plane[None], atol=1e-5)
    assert torch.equal(impute(plane[None], torch.zeros(5, 6, dtype=torch.bool)), plane[None])
    with pytest.raises(ValueError, match="leave at least one pixel"):
        impute(plane[None], torch.ones(5, 6, dtype=torch.bool))


def spot_images() -> Tensor:
    """A bright spot in the left half of a dark image; the class probability is the spot's brightness."""
    images = torch.zeros(2, 3, 12, 12)
    images[:, :, 4:7, 2:5] = 1
    return images


def spot(images: Tensor) -> Tensor:
    bright = images[:, :, 4:7, 2:5].mean(dim=(1, 2, 3)).clamp(0, 1)
    return torch.stack([1 - bright, bright], dim=1)


def spot_maps(*, right: bool) -> Tensor:
    maps = spot_images()[:, 0]
    return maps if right else 1 - maps


@pytest.mark.parametrize(("measure", "better"), [(road, 1), (insertion, 1), (deletion, -1)])
def test_a_right_map_scores_better_than_its_opposite(measure: Any, better: int) -> None:
    good = measure(spot_maps(right=True), spot_images(), TARGETS, spot)
    bad = measure(spot_maps(right=False), spot_images(), TARGETS, spot)
    assert (better * (good - bad) > 0.3).all()


def test_deletion_and_insertion_closed_forms() -> None:
    """Each of four steps sets one quarter of the image; p is linear in the part of the left half that is bright."""
    images = torch.ones(1, 1, 4, 4)
    maps = torch.tensor([4.0, 3.0, 2.0, 1.0]).expand(1, 4, 4)
    target = torch.tensor([1])
    assert deletion(maps, images, target, brightness, steps=4).item() == pytest.approx((0.5 + 0.5) / 4)
    assert deletion(maps.flip(2), images, target, brightness, steps=4).item() == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert insertion(maps, images, target, brightness, steps=4).item() == pytest.approx(1)


@pytest.mark.parametrize("measure", [average_drop, increase, road, insertion, deletion])
def test_ranges_nan_and_batches(measure: Callable[..., Tensor]) -> None:
    declared = next(one for one in MEASURES.values() if one.function is measure)
    generator = torch.Generator().manual_seed(2)
    maps, images = torch.rand(3, 3, 3, generator=generator), torch.rand(3, 3, 12, 12, generator=generator)
    maps[1] = 0
    targets = torch.tensor([1, 0, 0])
    values = measure(maps, images, targets, spot)
    assert values.isnan().tolist() == [False, True, False]
    assert values.dtype == torch.float64
    assert declared.low <= values[0] <= declared.high
    assert torch.equal(values[[0, 2]], measure(maps, images, targets, spot)[[0, 2]])


@pytest.mark.parametrize("measure", [average_drop, increase, road, insertion, deletion])
@pytest.mark.parametrize(
    ("predict", "targets", "match"),
    [
        (lambda images: 5 * spot(images) - 1, [1, 1], r"probabilities in \[0, 1\], not logits"),
        (lambda images: spot(images)[0], [1, 1], r"probabilities \(N, K\) with N = 2, got \(2,\)"),
        (lambda images: None, [1, 1], r"\(N, K\) with N = 2, got NoneType"),
        (spot, [1], "targets must be 2 class indices"),
        (spot, [1, 2], r"class indices in 0\.\.1, got \[1, 2\]"),
    ],
)
def test_predictions_and_targets_refused(measure: Any, predict: Any, targets: list[int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        measure(spot_maps(right=True), spot_images(), torch.tensor(targets), predict)


@pytest.mark.parametrize(
    ("measure", "options", "error", "match"),
    [
        (road, {"fractions": (0.5, 1.0)}, ValueError, r"above 0 and below 1, got \(0\.5, 1\.0\)"),
        (road, {"fractions": ()}, ValueError, r"got \(\)"),
        (road, {"noise": -1.0}, ValueError, r"noise must be >= 0, got -1\.0"),
        (deletion, {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        (insertion, {"steps": 2.5}, TypeError, r"steps must be an integer, got 2\.5"),
        (insertion, {"steps": True}, TypeError, "got True"),
    ],
)
def test_options_refused(measure: Any, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        measure(spot_maps(right=True), spot_images(), TARGETS, spot, **options)


def test_maps_and_images_must_match() -> None:
    with pytest.raises(ValueError, match="must be of one number"):
        average_drop(torch.ones(3, 2, 2), spot_images(), TARGETS, spot)


def test_blur_keeps_constants_and_the_mean_of_a_spot() -> None:
    assert torch.allclose(blurred(torch.full((1, 3, 5, 6), 0.4)), torch.full((1, 3, 5, 6), 0.4))
    image = torch.zeros(1, 1, 31, 31)
    image[0, 0, 15, 15] = 1
    assert blurred(image).sum().item() == pytest.approx(1, rel=1e-5)
    assert blurred(image).max().item() < 0.02
