from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from explain.attribution import block_maps
from explain.sanity import label_randomisation, randomised, rank_correlation, weight_randomisation

STAGES = ("fc", "deep", "middle", "stem")


@given(seed=st.integers(0, 999), levels=st.integers(2, 20))
def test_rank_correlation_equals_scipy(seed: int, levels: int) -> None:
    maps = torch.randint(0, levels, (2, 1, 5, 4), generator=torch.Generator().manual_seed(seed)).double()
    if all(len(one.unique()) > 1 for one in maps):
        expected = spearmanr(maps[0].numpy().ravel(), maps[1].numpy().ravel()).statistic
        assert rank_correlation(*maps).item() == pytest.approx(expected, abs=1e-9)


def test_rank_correlation_of_constant_maps_is_nan() -> None:
    maps = torch.rand(2, 3, 3)
    assert rank_correlation(maps, torch.stack([maps[0], torch.zeros(3, 3)])).isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation(maps, maps[:, :2])


def test_randomised_changes_the_named_modules_of_a_copy(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    original = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    changed = randomised(model, ["deep", "middle"])
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, original[name])
    # Scale and shift of batch-norm are drawn as 1 and 0, which they were.
    same = {name for name, value in changed.state_dict().items() if torch.equal(value, original[name])}
    assert {name for name in original if name.startswith(("stem", "fc"))} <= same
    assert not {"deep.weight", "deep.bias", "middle.0.weight", "middle.1.running_mean"} & same
    again = randomised(model, ["deep", "middle"])
    assert all(torch.equal(a, b) for a, b in zip(changed.parameters(), again.parameters(), strict=True))
    assert not torch.equal(randomised(model, seed=1).fc.weight, randomised(model, seed=2).fc.weight)
    with pytest.raises(ValueError, match="stages must name modules of the model, got 'nowhere'"):
        randomised(model, ["nowhere"])


def test_statistics_of_randomised_layers_follow_the_images(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny()
    model.middle[1].momentum = 0.02
    changed = randomised(model, ["middle"], images=images)
    inputs: list[Tensor] = []
    changed.middle[1].register_forward_hook(lambda module, given, _: inputs.append(given[0]))
    changed(images)
    norm = changed.middle[1]
    assert torch.allclose(norm.running_mean, inputs[0].mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, inputs[0].var((0, 2, 3)), rtol=1e-4)
    assert norm.momentum == 0.02
    assert not any(module.training for module in changed.modules())
    assert torch.equal(changed.stem[1].running_mean, model.stem[1].running_mean)
    assert sum(len(module._forward_pre_hooks) for module in changed.modules()) == 0


def test_a_deep_batch_norm_network_stays_alive() -> None:
    torch.manual_seed(0)
    layers = [
        layer for _ in range(60) for layer in (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
    ]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    images = torch.randn(4, 3, 12, 12)

    def explain(network: nn.Module) -> Tensor:
        return block_maps(network, images, ["90"], 1, method="activation")["90"]

    assert weight_randomisation(model, explain, [""], images=images).passed is not None


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(50.0))


def test_parameters_without_a_known_start_are_shuffled() -> None:
    changed = randomised(Scaled())
    assert isinstance(changed, Scaled)
    assert not torch.equal(changed.scale, torch.arange(50.0))
    assert changed.scale.sort().values.tolist() == list(range(50))


def test_gradcam_passes_and_an_edge_detector_fails(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny()
    smooth = functional.avg_pool2d(images, 3, 1, 1)

    def gradcam(network: nn.Module) -> Tensor:
        return block_maps(network, images, ["deep"], 1)["deep"]

    def edges(_: nn.Module) -> Tensor:
        return (images - smooth).abs().mean(1)

    good = weight_randomisation(model, gradcam, STAGES)
    assert good.stages == STAGES
    assert len(good.similarity) == 4
    assert good.passed is True
    assert good.verdict.startswith("Passes weight randomisation: without the learnt weights the maps are others")
    bad = weight_randomisation(model, edges, STAGES)
    assert bad.similarity == pytest.approx((1, 1, 1, 1))
    assert bad.passed is False
    assert "show the image rather than what the model has learnt" in bad.verdict
    with pytest.raises(dataclasses.FrozenInstanceError):
        bad.passed = True  # type: ignore[misc]


def test_the_cascade_is_cumulative_and_starts_at_the_head(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    changed: list[list[str]] = []

    def record(network: nn.Module) -> Tensor:
        names = ("stem.0", "middle.0", "deep", "fc")
        changed.append(
            [n for n in names if not torch.equal(network.get_submodule(n).weight, model.get_submodule(n).weight)]
        )
        return torch.rand(1, 3, 3)

    result = weight_randomisation(model, record)
    assert result.stages == ("fc", "deep", "middle.1", "middle.0", "stem.1", "stem.0")
    assert [len(names) for names in changed] == [0, 1, 2, 2, 3, 3, 4]
    assert changed[1] == ["fc"]


def test_dead_maps_leave_the_check_undecided(make_tiny: Callable[..., Any]) -> None:
    result = weight_randomisation(make_tiny(), lambda _: torch.zeros(2, 3, 3), ["fc"])
    assert np.isnan(result.similarity[0])
    assert result.passed is None
    assert result.verdict.startswith("Undecided")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": 1.0}, r"threshold must lie above 0 and below 1, got 1\.0"),
        ({"stages": ()}, "at least one module with weights, got none"),
        ({"stages": ("nowhere",)}, "got 'nowhere'"),
    ],
)
def test_weight_randomisation_refused(make_tiny: Callable[..., Any], options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        weight_randomisation(make_tiny(), lambda _: torch.rand(1, 3, 3), **options)


def test_label_randomisation_shuffles_the_labels_once() -> None:
    labels = torch.arange(30) % 3
    fitted: list[Tensor] = []

    def fit(given_labels: Tensor) -> nn.Module:
        fitted.append(given_labels)
        return nn.Identity()

    result = label_randomisation(fit, labels, lambda _: torch.arange(9.0).reshape(1, 3, 3))
    assert torch.equal(fitted[0], labels)
    assert not torch.equal(fitted[1], labels)
    assert torch.equal(fitted[1].sort().values, labels.sort().values)
    assert result.stages == ("labels",)
    assert result.passed is False
    assert "Fails label randomisation: without the learnt labels" in result.verdict
    for bad in (torch.zeros(4), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="at least two classes"):
            label_randomisation(fit, bad, lambda _: torch.rand(1, 3, 3))


def spots(count: int) -> tuple[Tensor, Tensor]:
    """Noise below 0.5 with a square (class 0) or a cross (class 1) of 1 somewhere: separable by construction."""
    generator = torch.Generator().manual_seed(0)
    images = 0.5 * torch.rand(count, 3, 24, 24, generator=generator)
    labels = torch.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        row, column = torch.randint(4, 20, (2,), generator=generator).tolist()
        if label == 0:
            image[:, row - 2 : row + 3, column - 2 : column + 3] = 1
        else:
            image[:, row - 3 : row + 4, column] = 1
            image[:, row, column - 3 : column + 4] = 1
    return images, labels


@pytest.mark.slow
def test_both_checks_on_a_fitted_network(make_tiny: Callable[..., Any]) -> None:
    images, labels = spots(128)

    def fit(given_labels: Tensor) -> nn.Module:
        model = make_tiny(classes=2, width=12)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            functional.cross_entropy(model.train()(images), given_labels).backward()
            optimizer.step()
        return model.eval()

    def explain(model: nn.Module) -> Tensor:
        return block_maps(model, images[:32], ["deep"], labels[:32])["deep"]

    model = fit(labels)
    assert (model(images).argmax(1) == labels).float().mean() > 0.95
    weights = weight_randomisation(model, explain, STAGES)
    assert weights.passed, weights
    shuffled = label_randomisation(fit, labels, explain)
    assert shuffled.passed, shuffled
