"""Maps lie over the original picture where the network saw them, whatever was done to its shape."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.images.reading import Fit, field_of_view
from lightning_modules.images.value_range import FULL_RANGE
from search.pages.original_picture import Original, original_overlay
from search.report.judged_images import original_picture
from search.report.pictures import PictureStore
from search.report.wrong_examination import says_nothing


def brightest(picture: np.ndarray, low: float, high: float) -> bool:
    """Whether the brightest column of a picture lies between two shares of its width."""
    column = int(picture.astype(float).sum((0, 2)).argmax())
    return low <= column / picture.shape[1] < high


@pytest.mark.parametrize(
    ("fit", "low", "high"),
    # Of a picture three times as wide as high, a crop shows the middle third.
    [("stretch", 0.0, 0.25), ("pad", 0.0, 0.25), ("crop", 0.32, 0.45)],
)
def test_a_map_lies_where_the_network_saw_it(fit: Fit, low: float, high: float) -> None:
    original = Original(np.full((100, 300, 1), 80, np.uint8), (64, 64), fit)
    values = torch.zeros(4, 4)
    values[:, 0] = 1
    drawn = original_overlay(original, values, 150)
    assert drawn.shape == (50, 150, 3), "the shape of the original is kept"
    assert brightest(drawn, low, high)


def test_what_was_cut_off_has_no_map() -> None:
    original = Original(np.full((100, 300, 3), 80, np.uint8), (64, 64), "crop")
    drawn = original_overlay(original, torch.ones(4, 4), 150).astype(int)
    assert (drawn[:, :45].max() < drawn[:, 60:90].max()) and (drawn[:, 105:].max() < drawn[:, 60:90].max())


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("sides", [(1, 1), (37, 91), (400, 30)])
def test_the_field_of_view_lies_within_both(fit: Fit, sides: tuple[int, int]) -> None:
    (top, left, bottom, right), (y, x, height, width) = field_of_view(sides, (32, 48), fit)
    assert 0 <= top < bottom <= sides[0] and 0 <= left < right <= sides[1]
    assert y >= 0 and x >= 0 and 1 <= height <= 32 - y and 1 <= width <= 48 - x


def test_the_picture_of_a_tile_is_that_part_of_the_file(tmp_path: Path) -> None:
    pixels = np.arange(60 * 80, dtype=np.uint32).reshape(60, 80) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "plate.png")
    records = [SimpleNamespace(path=tmp_path / name) for name in ("plate.png", "plate.png", "gone.png")]
    boxes = np.array([[0, 0, 32, 32], [20, 40, 32, 32], [0, 0, 32, 32]])
    task: Any = SimpleNamespace(
        index=SimpleNamespace(records=records, value_range=FULL_RANGE, tiles=SimpleNamespace(boxes=boxes)),
        settings=SimpleNamespace(data=SimpleNamespace(pixels=(32, 32), fit="stretch", max_pixels=10_000)),
    )
    found = original_picture(task, 1)
    assert found is not None and np.array_equal(found.pixels[:, :, 0], pixels[20:52, 40:72])
    assert original_picture(task, 2) is None
    task.index.tiles = None
    whole = original_picture(task, 0)
    assert whole is not None and whole.pixels.shape == (60, 80, 1)


def test_pictures_of_grey_and_colour_are_kept_under_keys() -> None:
    store = PictureStore()
    keys = [store.add(Original(np.zeros((9, 5, channels), np.uint8), (8, 8), "pad")) for channels in (1, 3)]
    assert keys == ["p0", "p1"] == list(store.pictures)


def test_a_map_that_says_nothing_is_known_by_why() -> None:
    spot, other = torch.zeros(6, 6), torch.zeros(6, 6)
    spot[1, 1], other[4, 4] = 1, 1
    assert says_nothing(torch.zeros(6, 6), spot) == "empty"
    assert says_nothing(torch.ones(6, 6), spot) == "spread"
    assert says_nothing(spot, spot * 3) == "alike"
    assert says_nothing(spot, other) == ""
    assert says_nothing(spot, torch.zeros(6, 6)) == ""
