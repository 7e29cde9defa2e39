"""Quantus defines two of our measures under other names; it takes seconds to import, so it runs with the slow tests."""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch

from explain.measures import energy_pointing, entropy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantus() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escape sequences in its docstrings
        return pytest.importorskip("quantus")


@pytest.fixture
def maps() -> torch.Tensor:
    values = torch.rand(5, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[1][values[1] < 0.6] = 0
    return values


def test_their_complexity_is_our_entropy(quantus: ModuleType, maps: torch.Tensor) -> None:
    theirs = quantus.Complexity(disable_warnings=True).evaluate_batch(maps.numpy(), maps.numpy().copy())
    np.testing.assert_allclose(entropy(maps).numpy(), theirs, atol=1e-9)


def test_their_relevance_mass_accuracy_is_our_energy_pointing(quantus: ModuleType, maps: torch.Tensor) -> None:
    truth = torch.rand(5, 7, 6, generator=torch.Generator().manual_seed(1)) < 0.3
    theirs = quantus.RelevanceMassAccuracy(disable_warnings=True).evaluate_batch(maps.numpy(), truth.numpy())
    np.testing.assert_allclose(energy_pointing(maps, truth).numpy(), theirs, rtol=1e-9)
