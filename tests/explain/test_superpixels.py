from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from explain.superpixels import explain_superpixels, slic_segments, superpixel_stability

QUARTERS = torch.zeros(8, 8, dtype=torch.int64)
QUARTERS[:4, 4:], QUARTERS[4:, :4], QUARTERS[4:, 4:] = 1, 2, 3


def linear(images: Tensor) -> Tensor:
    """Class 1 gains 0.4 from quarter 0 and loses 0.2 to quarter 3; class 2 gains 0.1 from quarter 3; 0 has the rest."""
    bright = images.mean(1)
    first, last = bright[:, :4, :4].mean((1, 2)), bright[:, 4:, 4:].mean((1, 2))
    one, two = 0.3 + 0.4 * first - 0.2 * last, 0.1 + 0.1 * last
    return torch.stack([1 - one - two, one, two], dim=1)


@pytest.fixture
def white() -> Tensor:
    return torch.ones(3, 8, 8)


def test_a_linear_model_is_recovered(white: Tensor) -> None:
    found = explain_superpixels(white, linear, 1, segments=QUARTERS, baseline=0.0, alpha=1e-6)
    expected = torch.tensor([[-0.4, 0, 0, 0.1], [0.4, 0, 0, -0.2], [0, 0, 0, 0.1]], dtype=torch.float64)
    assert torch.allclose(found.coefficients, expected, atol=1e-4)
    assert torch.allclose(found.intercepts, torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), atol=1e-4)
    assert torch.allclose(found.r2, torch.ones(3, dtype=torch.float64), atol=1e-5)
    assert found.positive[0] == 0
    assert found.negative[0] == 3
    assert set(found.positive) & set(found.negative) == set()
    assert torch.allclose(found.shares, torch.tensor([0.1, 0.4, 0.1], dtype=torch.float64) / 0.6, atol=1e-3)
    assert found.map.shape == (8, 8)
    assert found.map[0, 0].item() == pytest.approx(0.4, abs=1e-4)
    assert found.probabilities.tolist() == pytest.approx([0.3, 0.5, 0.2])


def test_evidence_for_one_class_is_evidence_against_the_others(white: Tensor) -> None:
    """Probabilities sum to one and ridge is linear in them, so each super-pixel's coefficients sum to zero."""
    found = explain_superpixels(white, linear, segments=QUARTERS, baseline=0.0)
    assert torch.allclose(found.coefficients.sum(0), torch.zeros(4, dtype=torch.float64), atol=1e-5)
    assert found.target == 1
    assert found.shares.sum().item() == pytest.approx(1)


def test_the_target_decides_nothing_but_which_class_is_shown(white: Tensor) -> None:
    """All classes are fitted on shared answers, so a run for each class finds the same."""
    runs = [
        explain_superpixels(white, linear, place, segments=QUARTERS, baseline=0.0, samples=60) for place in range(3)
    ]
    for one in runs[1:]:
        assert torch.allclose(one.coefficients, runs[0].coefficients, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
def test_batches_change_nothing_and_the_model_is_asked_once(white: Tensor, batch_size: int) -> None:
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return linear(images)

    expected = explain_superpixels(white, linear, 1, segments=QUARTERS, baseline=0.0, samples=60)
    found = explain_superpixels(white, counted, 1, segments=QUARTERS, baseline=0.0, samples=60, batch_size=batch_size)
    assert torch.allclose(found.coefficients, expected.coefficients, atol=1e-6)
    assert sum(calls) == 60 + 1
    assert max(calls) == min(batch_size, 60)


def test_seeded_without_touching_the_global_state(white: Tensor) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    runs = [explain_superpixels(image, linear_32, 1, samples=40, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0].coefficients, runs[1].coefficients)
    assert not torch.equal(runs[0].coefficients, runs[2].coefficients)


def linear_32(images: Tensor) -> Tensor:
    value = 1.0 - images[:, :, 10:20, 10:20].mean((1, 2, 3))
    return torch.stack([value, 1 - value], dim=1)


def noise(images: Tensor) -> Tensor:
    """Answers that have nothing to do with what is shown."""
    value = (images.flatten(1).double() @ torch.linspace(1, 9, images[0].numel(), dtype=torch.float64)) * 1e4 % 1
    return torch.stack([value, 1 - value], dim=1)


def test_stability_tells_a_sound_explanation_from_noise() -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    sound = superpixel_stability(image, linear_32, 1, baseline=0.0, samples=200, repeats=3)
    unsound = superpixel_stability(image, noise, 1, baseline=0.0, samples=60, repeats=3)
    assert sound > 0.9
    assert abs(unsound) < 0.5
    assert explain_superpixels(image, linear_32, 1, baseline=0.0).r2[1] > 0.9
    assert explain_superpixels(image, noise, 1, baseline=0.0).r2[1] < 0.5


def test_a_model_that_never_changes_has_no_r2_shares_or_stability(white: Tensor) -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.tensor([[0.25, 0.75]]).expand(len(images), 2)

    found = explain_superpixels(white, constant, segments=QUARTERS, samples=20)
    assert found.r2.isnan().all()
    assert found.shares.isnan().all()
    assert found.positive == found.negative == []
    assert math.isnan(superpixel_stability(white, constant, segments=QUARTERS, samples=20))


def test_the_mean_of_a_superpixel_hides_it() -> None:
    image = torch.arange(64.0).reshape(1, 8, 8)
    seen: list[Tensor] = []

    def record(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.full((len(images), 2), 0.5)

    explain_superpixels(image, record, 0, segments=QUARTERS, samples=30)
    for perturbed in torch.cat(seen[1:])[:, 0]:
        for label in range(4):
            pixels = label == QUARTERS
            hidden = torch.allclose(perturbed[pixels], image[0][pixels].mean())
            assert hidden or torch.equal(perturbed[pixels], image[0][pixels])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_superpixels_cover_the_image_and_follow_its_edges(channels: int) -> None:
    image = torch.zeros(channels, 40, 60) - 3
    image[:, :, 33:] = 5
    labels = slic_segments(image, 24)
    assert labels.shape == (40, 60)
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert 12 <= labels.max() + 1 <= 40
    left, right = set(labels[:, :33].flatten().tolist()), set(labels[:, 33:].flatten().tolist())
    assert not left & right
    assert torch.equal(labels, slic_segments(image, 24))


@pytest.mark.parametrize("image", [torch.zeros(1, 32, 32), torch.rand(3, 64, 64, generator=torch.Generator())])
def test_blank_and_noisy_images_have_superpixels_too(image: Tensor) -> None:
    assert slic_segments(image, 16).max() + 1 >= 8


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"samples": 1}, ValueError, "samples must be at least 2, got 1"),
        ({"samples": 2.0}, TypeError, r"samples must be an integer, got 2\.0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": True}, TypeError, "got True"),
        ({"kernel_width": 0.0}, ValueError, r"kernel_width must be > 0, got 0\.0"),
        ({"alpha": -1.0}, ValueError, r"alpha must be > 0, got -1\.0"),
        ({"baseline": "blur"}, ValueError, "'mean' or a number, got 'blur'"),
        ({"target": 3}, ValueError, r"0\.\.2, got 3"),
        ({"segments": QUARTERS[:4]}, ValueError, r"labels \(8, 8\), got torch.int64 \(4, 8\)"),
        ({"segments": QUARTERS * 2}, ValueError, r"without gaps, S >= 2, got \[0, 2, 4, 6\]"),
        ({"segments": QUARTERS * 0}, ValueError, r"S >= 2, got \[0\]"),
        ({"image": torch.ones(2, 3, 8, 8)}, ValueError, r"\(C, H, W\), got shape \(2, 3, 8, 8\)"),
        ({"image": torch.ones(3, 8, 8, dtype=torch.uint8)}, TypeError, r"floating-point tensor, got torch\.uint8"),
        ({"predict": lambda images: 9 * linear(images)}, ValueError, "not logits"),
    ],
)
def test_refused(white: Tensor, options: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"image": white, "predict": linear, "segments": QUARTERS, "samples": 10} | options
    with pytest.raises(error, match=match):
        explain_superpixels(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"count": 1}, ValueError, "count must be at least 2, got 1"),
        ({"count": 9.5}, TypeError, r"count must be an integer, got 9\.5"),
        ({"compactness": 0}, ValueError, "compactness must be > 0, got 0"),
    ],
)
def test_superpixels_refused(white: Tensor, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        slic_segments(white, **options)


@pytest.mark.parametrize(
    ("repeats", "error", "match"), [(1, ValueError, "at least 2, got 1"), (2.5, TypeError, r"got 2\.5")]
)
def test_stability_refused(white: Tensor, repeats: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        superpixel_stability(white, linear, segments=QUARTERS, repeats=repeats)
