"""The temperature: planted ones are found, and few images do not make a network sure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_modules.decisions.temperature import fit_temperature, log_probabilities, temperature_interval


def planted(temperature: float, images: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that are too large by this factor: labels are drawn with softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (images, 4))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    logits, labels = planted(temperature, 4000)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.06)
    low, high = temperature_interval(logits[:400], labels[:400], np.arange(400), resamples=100)
    assert low < temperature < high < 2 * low


def test_probabilities_do_not_change_by_what_logits_have_in_common() -> None:
    logits, _ = planted(1.0, 5)
    expected = logits / 2 - np.log(np.exp(logits / 2).sum(1, keepdims=True))
    assert np.allclose(log_probabilities(logits + 1e4, 2.0), expected, atol=1e-9)


@pytest.mark.parametrize("images", [20, 200])
def test_a_network_without_mistakes_is_as_sure_as_so_many_images_allow(images: int) -> None:
    labels = np.arange(images) % 3
    logits = 30.0 * (np.arange(3) == labels[:, None])
    sure = np.exp(log_probabilities(logits, fit_temperature(logits, labels))).max(1)
    assert sure == pytest.approx((images + 1) / (images + 2), abs=1e-3)


@pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.array([[0.0, np.inf, 1.0]])])
def test_nothing_to_fit(logits: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="finite logits of at least one image"):
        fit_temperature(logits, np.zeros(len(logits), np.int64))
