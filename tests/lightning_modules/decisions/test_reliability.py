"""The expected calibration error against torchmetrics, and what chance makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_modules.decisions.reliability import reliability


def drawn(images: int, sharper: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities that are true where `sharper` is 1, and too sure where it is larger."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    shown = np.exp(logits * sharper)
    return shown / shown.sum(1, keepdims=True), labels


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_error_is_that_of_torchmetrics(sharper: float) -> None:
    probabilities, labels = drawn(500, sharper)
    found = reliability(probabilities, labels, np.arange(500), resamples=50)
    expected = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), 3, n_bins=15)
    assert found.ece == pytest.approx(float(expected), abs=1e-6)
    assert sum(one.images for one in found.bins) == found.images == 500
    for one in found.bins:
        assert one.low < one.confidence <= one.high
        assert one.accuracy_low <= one.accuracy <= one.accuracy_high


def test_true_probabilities_are_no_worse_than_chance() -> None:
    true, too_sure = (reliability(*drawn(400, s), np.arange(400), resamples=300) for s in (1.0, 3.0))
    assert true.ece < 2 * true.chance  # by construction the two are draws of one distribution
    assert too_sure.low > 2 * too_sure.chance


def test_groups_widen_the_interval() -> None:
    probabilities, labels = drawn(60, 1.0)
    probabilities, labels = probabilities.repeat(10, axis=0), labels.repeat(10)
    alone, together = (reliability(probabilities, labels, g) for g in (np.arange(600), np.arange(60).repeat(10)))
    assert together.high - together.low > 2 * (alone.high - alone.low)
