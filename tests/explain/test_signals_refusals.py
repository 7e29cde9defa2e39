from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explain.signals import capture, spatial_blocks


@pytest.mark.parametrize(
    ("target", "names", "expected"),
    [
        ("predicted", None, None),
        (2, None, [2, 2, 2]),
        ("crack", ["free", "crack", "pit", "fray"], [1, 1, 1]),
        (torch.tensor([3, 0, 1]), None, [3, 0, 1]),
        (torch.tensor(3), None, [3, 3, 3]),
        ([0, 1, 2], None, [0, 1, 2]),
        (("pit", "free", "fray"), ["free", "crack", "pit", "fray"], [2, 0, 3]),
    ],
)
def test_any_class(tiny: nn.Module, images: Tensor, target: Any, names: Any, expected: list[int] | None) -> None:
    captured = capture(tiny, images, ["deep"], target, class_names=names)
    assert captured.targets.tolist() == (captured.logits.argmax(1).tolist() if expected is None else expected)


@pytest.mark.parametrize(
    ("target", "names", "error", "match"),
    [
        (4, None, ValueError, r"in 0\.\.3, got 4"),
        (-1, None, ValueError, r"in 0\.\.3, got -1"),
        ([0, 1], None, ValueError, "each of the 3 images"),
        (torch.zeros(3), None, TypeError, "integer class indices"),
        (torch.zeros(3, dtype=torch.bool), None, TypeError, "integer class indices"),
        (True, None, TypeError, "got True"),
        (None, None, TypeError, "got None"),
        ([0.5, 1, 2], None, TypeError, r"got 0\.5"),
        ("crack", None, ValueError, "give class_names"),
        ("crack", list("abcd"), ValueError, "one of a, b, c, d, got 'crack'"),
        (0, ["a"], ValueError, "each of the 4 logits, got 1"),
    ],
)
def test_targets_refused(
    tiny: nn.Module, images: Tensor, target: Any, names: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        capture(tiny, images, ["deep"], target, class_names=names)


@pytest.mark.parametrize(
    ("blocks", "error", "match"),
    [
        (["nowhere"], ValueError, "got 'nowhere'; known: stem, act1, middle, .*stem.0"),
        (["deep", "deep"], ValueError, "distinct, got 'deep' more than once"),
        ([], ValueError, "at least one"),
        ("deep", TypeError, "sequence of module names, got 'deep'"),
        (["fc"], ValueError, r"'fc' must put out a tensor \(N, C, H, W\), got shape \(3, 4\); spatial.*stem, .*deep"),
        (["spare"], ValueError, "'spare' must run in the forward pass"),
    ],
)
def test_blocks_refused(tiny: nn.Module, images: Tensor, blocks: Any, error: type[Exception], match: str) -> None:
    tiny.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(error, match=match):
        capture(tiny, images, blocks)


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        ([[1.0]], TypeError, "images must be a tensor, got list"),
        (torch.zeros(3, 8, 8), ValueError, r"got shape \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"N >= 1, got shape \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point.*uint8"),
    ],
)
def test_images_refused(tiny: nn.Module, images: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        capture(tiny, images, ["deep"])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images)).mean(dim=(2, 3))


class Cut(Twice):
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).detach().mean(dim=(2, 3))


class Dangling(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        self.other(images)
        return self.conv(images).mean(dim=(2, 3))


class Several(Twice):
    def forward(self, images: Tensor) -> Any:
        return {"logits": self.conv(images).mean(dim=(2, 3))}


@pytest.mark.parametrize(
    ("model", "blocks", "match"),
    [
        (Twice(), ["conv"], "must run once a forward pass, but it ran again"),
        (Cut(), ["conv"], "no gradient reaches blocks conv"),
        (Dangling(), ["conv", "other"], "'other' must lead to the logits"),
        (Several(), ["conv"], r"logits \(N, K\) with N = 3, got dict"),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), ["0"], r"logits \(N, K\) with N = 3, got \(3, 2, 14, 18\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(960, 2)), ["0"], "spatial blocks of this model: none"),
    ],
)
def test_models_refused(model: nn.Module, images: Tensor, blocks: list[str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        capture(model, images, blocks)


def test_weights_of_inference_mode_are_refused(make_tiny: Callable[..., nn.Module], images: Tensor) -> None:
    with torch.inference_mode():
        model = make_tiny()
    with pytest.raises(ValueError, match=r"must not be built inside torch\.inference_mode"):
        capture(model, images, ["deep"])


def test_model_must_be_a_module(images: Tensor) -> None:
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        capture(lambda value: value, images, ["deep"])  # type: ignore[arg-type]


def test_a_module_that_runs_twice_is_not_offered(images: Tensor) -> None:
    assert spatial_blocks(Twice(), images) == []
