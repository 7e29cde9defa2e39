from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from explain.attribution import cam
from explain.gap_head import own_gap_heads, pooled_features, train_gap_head
from explain.measures import pointing_game
from explain.signals import capture


def random_data(classes: int = 3, count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randn(count, 4, 3, 3, generator=generator) + labels[:, None, None, None] * torch.tensor(
        [1.0, -0.5, 0.0, 20.0]
    ).reshape(1, 4, 1, 1)
    return images.mean((2, 3)), labels


def test_equals_logistic_regression_of_scikit_learn() -> None:
    features, labels = random_data()
    head = train_gap_head(features, labels, 3)
    pooled = features.double().numpy()
    shift, scale = pooled.mean(0), pooled.std(0)
    reference = LogisticRegression(C=1 / (1e-3 * len(labels)), tol=1e-10, max_iter=5000)
    reference.fit((pooled - shift) / scale, labels.numpy())
    with torch.no_grad():
        probabilities = head(features).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba((pooled - shift) / scale), atol=1e-4)


def test_repeats_and_inference_mode_change_nothing() -> None:
    features, labels = random_data()
    head = train_gap_head(features, labels, 3)
    with torch.inference_mode():
        again = train_gap_head(features, labels, 3)
    assert torch.equal(head.weight, again.weight)


def test_absent_classes_and_constant_channels_are_borne() -> None:
    features, labels = random_data(2)
    features[:, 1] = 3
    logits = train_gap_head(features, labels, 4)(features)
    assert torch.isfinite(logits).all()
    assert logits.argmax(1).max() <= 1


def test_cam_of_a_trained_head_finds_what_tells_the_classes_apart() -> None:
    """Class 1 images carry a spot ten times as bright as the noise: separable by construction; CAM must point at it."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(40, 3, 12, 12, generator=generator)
    labels = torch.arange(40) % 2
    truth = torch.zeros(40, 12, 12, dtype=torch.bool)
    for place in range(1, 40, 2):
        row, column = torch.randint(1, 10, (2,), generator=generator).tolist()
        truth[place, row : row + 2, column : column + 2] = True
    images = images + truth[:, None]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 2))
    pooled = pooled_features(model, images, ["1"])["1"]
    head = train_gap_head(pooled, labels, 2)
    assert (head(pooled).argmax(1) == labels).float().mean() > 0.9
    (signals,) = capture(model, images[1::2], ["1"], 1)
    assert pointing_game(cam(signals, head), truth[1::2], tolerance=1).mean() > 0.9


def test_pooled_features_leave_no_trace(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny().train()
    features = pooled_features(model, images, ["middle"])["middle"]
    assert features.shape == (3, 6)
    assert (features < 0).any()  # the in-place activation that follows has not reached what is pooled
    assert model.training
    assert not features.requires_grad
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0
    with pytest.raises(ValueError, match="'fc' must put out"):
        pooled_features(model, images, ["fc"])
    with pytest.raises(ValueError, match="got 'nowhere'"):
        pooled_features(model, images, ["nowhere"])
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' must run once a forward pass, got 0 times"):
        pooled_features(model, images, ["unused"])


def test_own_heads_are_found_by_what_they_compute(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny().train()
    assert own_gap_heads(model, images, ["stem", "middle", "act3"]) == {"act3": "fc"}
    # An activation after the block, a second layer, or flattening: no longer pooling and one linear layer.
    assert own_gap_heads(model, images, ["deep"]) == {}
    model.fc = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))
    assert own_gap_heads(model, images, ["act3"]) == {}
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 18, 4))
    assert own_gap_heads(flat, images, ["0"]) == {}
    # A network that says the same of every image does not tell what its head computes.
    assert own_gap_heads(model, images[:1].repeat(2, 1, 1, 1), ["act3"]) == {}
    assert model.training
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0


def test_features_of_several_blocks_come_from_one_pass(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny()
    pooled = pooled_features(model, images, ["middle", "stem"])
    for signals in capture(model, images, ["middle", "stem"]):
        assert torch.allclose(pooled[signals.block], signals.activations.mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "options", "error", "match"),
    [
        ([0, 1], {"classes": 1}, ValueError, "classes must be at least 2, got 1"),
        ([0, 1], {"classes": True}, TypeError, "classes must be an integer, got True"),
        ([0, 3], {"classes": 3}, ValueError, r"labels must lie in 0\.\.2, got 0\.\.3"),
        ([1, 1], {"classes": 3}, ValueError, "at least two classes, got only class 1"),
        ([0.0, 1.0], {"classes": 3}, TypeError, r"integer class indices, got torch\.float32"),
        ([0, 1, 2], {"classes": 3}, ValueError, r"\(N, C\) with N = 3, got \(2, 3\)"),
    ],
)
def test_refused(labels: list[float], options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        train_gap_head(torch.rand(2, 3), torch.tensor(labels), **options)
