"""From answers on tiles to answers on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.images.by_image import by_image


def some(seed: int, tiles: int, classes: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0, 3, (tiles, classes))), rng.integers(0, 5, tiles) * 7


@given(seed=st.integers(0, 2**31), tiles=st.integers(1, 40), classes=st.integers(2, 5))
def test_the_tile_least_like_the_normal_class_speaks(seed: int, tiles: int, classes: int) -> None:
    logits, images = some(seed, tiles, classes)
    found = by_image(logits, images, classes - 1)
    p = logits.softmax(1)[:, -1].numpy()
    assert found.images.tolist() == sorted(set(images.tolist()))
    for place, image in enumerate(found.images):
        own = np.flatnonzero(images == image)
        assert found.deciding[place] in own
        np.testing.assert_allclose(p[found.deciding[place]], p[own].min(), rtol=1e-9)
        assert torch.equal(found.logits[place], logits[found.deciding[place]])


@given(seed=st.integers(0, 2**31), tiles=st.integers(1, 40), classes=st.integers(2, 5))
def test_without_a_normal_class_log_probabilities_are_averaged(seed: int, tiles: int, classes: int) -> None:
    logits, images = some(seed, tiles, classes)
    found = by_image(logits, images, None)
    log_p = logits.log_softmax(1)
    for place, image in enumerate(found.images):
        own = np.flatnonzero(images == image)
        mean = log_p[own].mean(0)
        torch.testing.assert_close(found.logits[place].softmax(0), mean.softmax(0))
        chosen = int(mean.argmax())
        assert found.deciding[place] in own
        assert float(log_p[found.deciding[place], chosen]) == pytest.approx(float(log_p[own, chosen].max()))


@given(seed=st.integers(0, 2**31), normal=st.sampled_from([None, 1]))
def test_the_order_of_tiles_and_what_logits_are_shifted_by_change_nothing(seed: int, normal: int | None) -> None:
    logits, images = some(seed, 30, 3)
    order = np.random.default_rng(seed).permutation(30)
    one = by_image(logits, images, normal)
    other = by_image(logits[order] + 5, images[order], normal)
    assert one.images.tolist() == other.images.tolist()
    torch.testing.assert_close(one.logits.softmax(1), other.logits.softmax(1))
    assert order[other.deciding].tolist() == one.deciding.tolist()


@pytest.mark.parametrize("normal", [None, 0])
def test_an_image_of_one_tile_is_answered_as_its_tile(normal: int | None) -> None:
    logits, images = some(3, 5, 3)[0], np.arange(5)
    found = by_image(logits, images, normal)
    torch.testing.assert_close(found.logits.softmax(1), logits.softmax(1))
    assert found.deciding.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("normal", [None, 0])
def test_a_tile_that_is_not_finite_is_not_hidden_by_others(normal: int | None) -> None:
    logits = torch.zeros(4, 2)
    logits[1] = float("nan")
    found = by_image(logits, np.array([0, 0, 1, 1]), normal)
    assert found.logits.isfinite().all(dim=1).tolist() == [False, True]
