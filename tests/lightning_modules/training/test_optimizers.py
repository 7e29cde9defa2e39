"""Optimizers are what their names say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.training.optimizers import OPTIMIZERS, build_optimizer
from search.settings.schema import OPTIMIZER_NAMES


def _path(name: str, steps: int = 3) -> list[float]:
    """Positions of one parameter under the gradient of x^2 at learning rate 0.1."""
    x = nn.Parameter(torch.tensor(1.0))
    optimizer = build_optimizer(name, [x], lr_factor=0.1 / OPTIMIZERS[name].reference_rate)
    positions = []
    for _ in range(steps):
        optimizer.zero_grad()
        (x**2).backward()
        optimizer.step()
        positions.append(x.item())
    return positions


def test_sgd_momentum_and_nesterov_follow_their_equations() -> None:
    def by_hand(momentum: float, nesterov: bool) -> list[float]:
        x, velocity, positions = 1.0, 0.0, []
        for _ in range(3):
            gradient = 2 * x
            velocity = momentum * velocity + gradient
            x -= 0.1 * (gradient + momentum * velocity if nesterov else velocity)
            positions.append(x)
        return positions

    assert _path("sgd") == pytest.approx(by_hand(0.0, False))
    assert _path("momentum") == pytest.approx(by_hand(0.9, False))
    assert _path("nag") == pytest.approx(by_hand(0.9, True))


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_every_name_descends_at_its_reference_rate_and_skips_frozen_parameters(name: str) -> None:
    frozen, thawed = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(name, [frozen, thawed], lr_factor=2.0, weight_decay=1e-4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * OPTIMIZERS[name].reference_rate)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    thawed.grad = torch.ones(1)
    optimizer.step()
    assert frozen.item() == 1.0
    assert thawed.item() < 1.0


def test_the_settings_name_the_same_optimizers() -> None:
    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES


@pytest.mark.parametrize(
    ("name", "factor", "decay", "message"),
    [
        ("lion", 1.0, 0.0, "optimizer must be one of sgd, .* got 'lion'"),
        ("sgd", 0.0, 0.0, "lr_factor must be positive, got 0.0"),
        ("sgd", 1.0, -1.0, "weight_decay must be 0 or more, got -1.0"),
    ],
)
def test_bad_arguments(name: str, factor: float, decay: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_optimizer(name, [nn.Parameter(torch.ones(1))], lr_factor=factor, weight_decay=decay)
