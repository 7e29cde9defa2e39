from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from explain.attribution import cam
from explain.gap_head import GapHead, block_features, own_gap_heads, pooled_features, train_gap_head
from explain.measures import pointing_game
from explain.signals import capture


def identity(images: Tensor) -> Tensor:
    return images


def random_data(classes: int = 3, count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randn(count, 4, 3, 3, generator=generator) + labels[:, None, None, None] * torch.tensor(
        [1.0, -0.5, 0.0, 20.0]
    ).reshape(1, 4, 1, 1)
    return images, labels


def test_equals_logistic_regression_of_scikit_learn() -> None:
    images, labels = random_data()
    head = train_gap_head(identity, [(images, labels)], 3, penalty=1e-2)
    pooled = images.double().mean((2, 3)).numpy()
    shift, scale = pooled.mean(0), pooled.std(0)
    reference = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-10, max_iter=5000)
    reference.fit((pooled - shift) / scale, labels.numpy())
    with torch.no_grad():
        probabilities = head(images).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba((pooled - shift) / scale), atol=1e-4)


def test_batches_and_repeats_change_nothing() -> None:
    images, labels = random_data()
    whole = train_gap_head(identity, [(images, labels)], 3)
    parts = train_gap_head(identity, zip(images.split(7), labels.split(7), strict=True), 3)
    with torch.inference_mode():
        inferred = train_gap_head(identity, [(images, labels)], 3)
    for other in (parts, inferred):
        assert torch.allclose(whole.linear.weight, other.linear.weight, atol=1e-6)
    assert not whole.training


def test_absent_classes_and_constant_channels_are_borne() -> None:
    images, labels = random_data(2)
    images[:, 1] = 3
    head = train_gap_head(identity, [(images, labels)], 4)
    logits = head(images)
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
    head = train_gap_head(block_features(model, "1"), [(images, labels)], 2)
    assert (head(block_features(model, "1")(images)).argmax(1) == labels).float().mean() > 0.9
    (signals,) = capture(model, images[1::2], ["1"], 1)
    assert pointing_game(cam(signals, head.linear), truth[1::2], tolerance=1).mean() > 0.9


def test_block_features_leave_no_trace(make_tiny: Callable[..., Any], images: Tensor) -> None:
    model = make_tiny().train()
    features = block_features(model, "middle")(images)
    assert features.shape == (3, 6, 16, 20)
    assert (features < 0).any()  # the in-place activation that follows has not reached the copy
    assert model.training
    assert not features.requires_grad
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0
    with pytest.raises(ValueError, match="'fc' must put out"):
        block_features(model, "fc")(images)
    with pytest.raises(ValueError, match="got 'nowhere'"):
        block_features(model, "nowhere")(images)
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'unused' must run once a forward pass, got 0 times"):
        block_features(model, "unused")(images)


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
    for block, features in pooled.items():
        assert torch.allclose(features, block_features(model, block)(images).mean(dim=(2, 3)), atol=1e-6)
    with pytest.raises(ValueError, match="'fc' must put out"):
        pooled_features(model, images, ["fc"])


@pytest.mark.parametrize(
    ("labels", "options", "error", "match"),
    [
        ([0, 1], {"classes": 1}, ValueError, "classes must be at least 2, got 1"),
        ([0, 1], {"classes": True}, TypeError, "classes must be an integer, got True"),
        ([0, 3], {"classes": 3}, ValueError, r"labels must lie in 0\.\.2, got 0\.\.3"),
        ([1, 1], {"classes": 3}, ValueError, "at least two classes, got only class 1"),
        ([0.0, 1.0], {"classes": 3}, TypeError, r"integer class indices, got torch\.float32"),
        ([0, 1], {"classes": 3, "penalty": 0}, ValueError, "penalty must be > 0, got 0"),
        ([0, 1], {"classes": 3, "iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
        ([0, 1, 2], {"classes": 3}, ValueError, r"\(N, C, h, w\) with N = 3, got \(2, 3, 4, 4\)"),
    ],
)
def test_refused(labels: list[float], options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        train_gap_head(identity, [(torch.rand(2, 3, 4, 4), torch.tensor(labels))], **options)


def test_no_batches() -> None:
    with pytest.raises(ValueError, match="at least one batch, got none"):
        train_gap_head(identity, [], 2)


def test_a_head_needs_a_linear_layer() -> None:
    with pytest.raises(TypeError, match=r"linear must be an nn\.Linear, got Conv2d"):
        GapHead(nn.Conv2d(3, 3, 1))  # type: ignore[arg-type]
