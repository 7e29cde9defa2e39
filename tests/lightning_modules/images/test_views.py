"""Views depend on the image alone and do what they say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.images.views import ViewParameters, Views, apply_views


def _pixels(batch: int, channels: int, height: int = 6, width: int = 7) -> torch.Tensor:
    shape = (batch, height, width, channels)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _parameters(
    flip: Any = False, dy: Any = 0.0, dx: Any = 0.0, gain: Any = 1.0, offset: Any = 0.0, turn: Any = 0
) -> ViewParameters:
    values = [torch.as_tensor(value) for value in (flip, dy, dx, gain, offset, turn)]
    size = max(value.numel() for value in values)
    return ViewParameters(*(value.reshape(-1).expand(size) for value in values))


def _digests(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


def test_the_first_view_is_the_plain_image() -> None:
    pixels = _pixels(4, 3)
    parameters = Views().parameters(_digests(4)).select(torch.arange(4), 0)
    torch.testing.assert_close(apply_views(pixels, parameters), pixels.permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("view", [0, 1])
def test_layout(channels: int, view: int) -> None:
    parameters = Views().parameters(_digests(5)).select(torch.arange(5), view)
    images = apply_views(_pixels(5, channels), parameters)
    assert images.shape == (5, 3, 6, 7) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    if channels == 1:
        assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"flip": True}, lambda x: np.fliplr(x)),
        ({"dy": 2 / 6}, lambda x: np.concatenate([x[:1], x[:1], x[:-2]])),
        ({"dy": -1 / 6}, lambda x: np.concatenate([x[1:], x[-1:]])),
        ({"dx": 1 / 7}, lambda x: np.concatenate([x[:, :1], x[:, :-1]], 1)),
        ({"dx": -1 / 7}, lambda x: np.concatenate([x[:, 1:], x[:, -1:]], 1)),
        ({"flip": True, "dx": 1 / 7}, lambda x: np.concatenate([x[:, -1:], np.fliplr(x)[:, :-1]], 1)),
        ({"gain": 0.5}, lambda x: x * 0.5),
        ({"gain": 2.0}, lambda x: np.minimum(x * 2.0, 1)),
        ({"offset": -0.3}, lambda x: np.maximum(x - 0.3, 0)),
        ({"gain": 1.1, "offset": 0.05}, lambda x: np.minimum(x * 1.1 + 0.05, 1)),
        ({"turn": 2}, lambda x: np.rot90(x, 2)),
        ({"turn": 2, "flip": True}, lambda x: np.flipud(x)),
        ({"turn": 3}, lambda x: np.rot90(x, 2)),  # 6 x 7 pixels: half a turn is what fits
        ({"turn": 1}, lambda x: x),
    ],
)
def test_each_change(parameters: Any, expected: Any) -> None:
    pixels = _pixels(1, 1)
    image = apply_views(pixels, _parameters(**parameters))[0, 0].numpy()
    np.testing.assert_allclose(image, expected(pixels[0, :, :, 0].numpy() / 255), atol=1e-6)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_square_images_are_turned(turn: int, flip: bool) -> None:
    pixels = _pixels(1, 3, 6, 6)
    plain = pixels[0].permute(2, 0, 1).numpy() / 255
    expected = np.rot90(plain[:, :, ::-1] if flip else plain, turn, (1, 2))
    np.testing.assert_allclose(apply_views(pixels, _parameters(flip=flip, turn=turn))[0], expected, atol=1e-6)


def test_any_orientation_shows_all_eight_and_changes_nothing_else() -> None:
    upright, anyhow = Views(), Views(orientation="any")
    digests = _digests(300)
    one, other = upright.parameters(digests), anyhow.parameters(digests)
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("flip", "dy", "dx", "gain", "offset"))
    assert not one.turn.any() and not other.turn[:, 0].any()
    shown = torch.bincount((other.flip * 4 + other.turn)[:, 1:].flatten(), minlength=8) / 1200
    assert ((shown > 0.09) & (shown < 0.16)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.sampled_from([1, 3]), st.integers(0, 4), st.integers(0, 2**63 - 1))
def test_batches_do_not_matter(batch: int, channels: int, view: int, seed: int) -> None:
    views = Views(seed=seed, shift=0.3)
    pixels, digests = _pixels(batch, channels), _digests(batch)
    whole = apply_views(pixels, views.parameters(digests).select(torch.arange(batch), view))
    assert float(whole.min()) >= 0 and float(whole.max()) <= 1
    for row in range(batch):
        alone = views.parameters(digests[row : row + 1]).select(torch.tensor([0]), torch.tensor([view]))
        assert torch.equal(apply_views(pixels[row : row + 1], alone)[0], whole[row])


def test_parameters_are_in_range_and_cover_it() -> None:
    views = Views(count=4, shift=0.05, gain=0.1, offset=0.2)
    parameters = views.parameters(_digests(500))
    for tensor, centre, reach in (
        (parameters.dy, 0.0, 0.05),
        (parameters.dx, 0.0, 0.05),
        (parameters.gain, 1.0, 0.1),
        (parameters.offset, 0.0, 0.2),
    ):
        assert tensor.shape == (500, 5) and tensor.dtype == torch.float32
        assert (tensor[:, 0] == centre).all()
        away = (tensor[:, 1:] - centre).abs()
        assert 0.98 * reach < float(away.max()) <= reach + 1e-6
        assert abs(float(tensor[:, 1:].mean()) - centre) < 0.05 * reach
    assert not parameters.flip[:, 0].any() and 0.45 < float(parameters.flip[:, 1:].float().mean()) < 0.55
    assert not Views(flip=False).parameters(_digests(50)).flip.any()


def test_seed_image_and_number_make_the_view() -> None:
    def gains(seed: int, digests: list[str]) -> list[float]:
        return [round(value, 6) for value in Views(seed=seed).parameters(digests).gain[:, 1:].flatten().tolist()]

    assert gains(0, ["x", "y"]) == gains(0, ["x"]) + gains(0, ["y"])
    assert len({*gains(0, ["x", "y"]), *gains(1, ["x", "y"])}) == 16
    more = Views(count=6).parameters(["x"]).gain[:, :5]
    assert torch.equal(more, Views(count=4).parameters(["x"]).gain)
    assert Views(count=0).parameters(["x"]).gain.shape == (1, 1)


@pytest.mark.slow
def test_another_process_makes_the_same_views() -> None:
    code = "from lightning_modules.images.views import Views; print(Views(seed=7).parameters(['abc']).dx.tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == str(Views(seed=7).parameters(["abc"]).dx.tolist())


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"count": -1}, ValueError, r"count must be in 0\.\.10000, got -1"),
        ({"count": True}, TypeError, "count must be an int, got True"),
        ({"count": 2.0}, TypeError, r"count must be an int, got 2\.0"),
        ({"flip": 1}, TypeError, "flip must be a bool, got 1"),
        ({"shift": 0.6}, ValueError, r"shift must be in \[0, 0\.5\], got 0\.6"),
        ({"gain": 1.0}, ValueError, r"gain must be in \[0, 1\), got 1\.0"),
        ({"gain": float("nan")}, ValueError, r"gain must be in \[0, 1\), got nan"),
        ({"offset": -0.1}, ValueError, r"offset must be in \[0, 1\), got -0\.1"),
        ({"offset": "0"}, TypeError, "offset must be a number, got '0'"),
        ({"seed": -1}, ValueError, "seed must be in 0"),
        ({"orientation": "all"}, ValueError, "orientation must be one of upright, any, got 'all'"),
    ],
)
def test_bad_views_are_refused(options: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Views(**options)


@pytest.mark.parametrize(
    ("pixels", "rows", "error", "reason"),
    [
        (_pixels(2, 3).float(), 2, TypeError, r"pixels must be uint8, got torch\.float32"),
        (_pixels(2, 3)[0], 2, ValueError, r"shape \(B, H, W, 1 or 3\), got \(6, 7, 3\)"),
        (_pixels(2, 3).permute(0, 3, 1, 2), 2, ValueError, r"shape \(B, H, W, 1 or 3\)"),
        (_pixels(2, 3), 3, ValueError, r"parameters must have shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_batches_are_refused(pixels: torch.Tensor, rows: int, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        apply_views(pixels, Views().parameters(_digests(rows)).select(torch.arange(rows), 1))


def test_an_empty_batch_is_empty() -> None:
    none = Views().parameters(_digests(1)).select(torch.zeros(0, dtype=torch.long), 1).to("cpu")
    assert apply_views(_pixels(0, 1), none).shape == (0, 3, 6, 7)
