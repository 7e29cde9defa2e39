from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from explain.attribution import METHODS, activation, block_maps, cam, upsample
from explain.signals import BlockSignals, capture


def signals_of(seed: int, *, negative: bool = False, scale: float = 1.0) -> BlockSignals:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(2, 5, 4, 3, generator=generator)
    G = torch.randn(2, 5, 4, 3, generator=generator)
    A = A if negative else A.clamp_min(0)
    return BlockSignals("block", A, scale * G, torch.zeros(2, 3), torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("method", "oracle", "negative"),
    [
        ("gradcam", "GradCAM", False),
        ("gradcam", "GradCAM", True),
        ("layercam", "LayerCAM", False),
        ("layercam", "LayerCAM", True),
        ("hirescam", "HiResCAM", False),
        ("hirescam", "HiResCAM", True),
        ("xgradcam", "XGradCAM", False),
        ("xgradcam", "XGradCAM", True),
        ("gradcampp", "GradCAMPlusPlus", False),  # defined for activations that are not negative
    ],
)
def test_equals_pytorch_grad_cam(method: str, oracle: str, negative: bool) -> None:
    grad_cam = importlib.import_module("pytorch_grad_cam")
    model = nn.Sequential(nn.Conv2d(3, 5, 1))
    signals = signals_of(3, negative=negative)
    explainer = getattr(grad_cam, oracle)(model, [model[0]])
    reference = explainer.get_cam_image(
        torch.zeros(2, 3, 4, 3), model[0], None, signals.activations.numpy(), signals.gradients.numpy(), False
    )
    explainer.activations_and_grads.release()
    # Their denominators carry an epsilon of 1e-6 or 1e-7.
    np.testing.assert_allclose(METHODS[method](signals).numpy(), np.maximum(reference, 0), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_float32_non_negative_and_of_native_size(method: str) -> None:
    maps = METHODS[method](signals_of(1, negative=True))
    assert maps.shape == (2, 4, 3)
    assert maps.dtype == torch.float32
    assert (maps >= 0).all()
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("method", METHODS)
def test_channels_that_are_off_change_nothing(method: str) -> None:
    signals = signals_of(4)
    padded = BlockSignals(
        "block",
        torch.cat([signals.activations, torch.zeros(2, 1, 4, 3)], dim=1),
        torch.cat([signals.gradients, torch.ones(2, 1, 4, 3)], dim=1),
        signals.logits,
        signals.targets,
    )
    factor = 6 / 5 if method == "activation" else 1  # a mean over channels counts those that are off
    assert torch.allclose(METHODS[method](padded) * factor, METHODS[method](signals), atol=1e-6)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_maps_scale_with_the_gradients(seed: int, scale: float) -> None:
    one, scaled = signals_of(seed), signals_of(seed, scale=scale)
    for method in ("gradcam", "layercam", "hirescam", "xgradcam"):
        maps = METHODS[method](one)
        assert torch.allclose(METHODS[method](scaled), scale * maps, rtol=1e-3, atol=float(1e-5 * scale * maps.max()))


def test_the_control_knows_nothing_of_gradients() -> None:
    signals = signals_of(2, negative=True)
    assert torch.equal(activation(signals), activation(signals_of(2, negative=True, scale=-7)))
    assert torch.allclose(activation(signals), signals.activations.abs().mean(1))


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_cam_is_gradcam_and_hirescam_up_to_the_number_of_positions(
    make_tiny: Callable[..., Any], images: Tensor, method: str
) -> None:
    """With GAP + Linear, d y_c / d A_k = W_ck / Z at every one of the Z positions."""
    model = make_tiny()
    model.act3 = nn.Identity()  # so that the named block is what the pooling sees
    targets = torch.tensor([1, 3, 0])
    (signals,) = capture(model, images, ["deep"], targets)
    positions = signals.activations.shape[2] * signals.activations.shape[3]
    assert torch.allclose(cam(signals, model.fc), positions * METHODS[method](signals), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "error", "match"),
    [
        (nn.Linear(4, 3), ValueError, "take the 5 channels of block 'block', got in_features 4"),
        (nn.Linear(5, 2), ValueError, "know target class 2, got out_features 2"),
        (nn.Conv2d(5, 3, 1), TypeError, r"nn\.Linear, got Conv2d"),
    ],
)
def test_cam_refuses(head: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        cam(signals_of(0), head)


def test_unknown_method(make_tiny: Callable[..., Any], images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"method must be one of gradcam, .*activation, got 'guided'"):
        block_maps(make_tiny(), images, ["deep"], method="guided")


def test_upsample() -> None:
    maps = torch.rand(2, 3, 4)
    assert upsample(maps, (3, 4)) is maps
    assert torch.allclose(upsample(torch.full((1, 2, 2), 0.25), (5, 7)), torch.full((1, 5, 7), 0.25))
    assert upsample(maps, (9, 8)).shape == (2, 9, 8)
    assert upsample(maps, (9, 8)).max() <= maps.max() * (1 + 1e-6)


@pytest.mark.parametrize(
    ("maps", "size", "match"),
    [
        (torch.zeros(3, 4), (5, 5), r"shape \(N, h, w\), got torch.float32 \(3, 4\)"),
        (torch.zeros(1, 3, 4, dtype=torch.int64), (5, 5), "got torch.int64"),
        (torch.zeros(1, 3, 4), (0, 5), r"at least 1 x 1, got \(0, 5\)"),
    ],
)
def test_upsample_refuses(maps: Tensor, size: tuple[int, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        upsample(maps, size)
