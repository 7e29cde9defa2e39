"""Tiles cover an image, lie in it and overlap; masks are counted in each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from lightning_modules.images.tiling import MOST_TILES, Tiling, mask_counts

sides = st.tuples(st.integers(8, 60), st.integers(8, 60))
overlaps = st.floats(0, 0.9)


@given(side=sides, more=st.tuples(st.integers(0, 90), st.integers(0, 90)), overlap=overlaps)
def test_tiles_cover_the_image_lie_in_it_and_overlap_as_asked(
    side: tuple[int, int], more: tuple[int, int], overlap: float
) -> None:
    height, width = (one + extra for one, extra in zip(side, more, strict=True))
    tiling = Tiling(side, overlap)
    try:
        boxes = tiling.boxes((height, width))
    except InputError as error:
        assert "tiles" in str(error) and tiling.count((height, width)) > MOST_TILES
        return
    assert len(boxes) == len({tuple(box) for box in boxes.tolist()}) == tiling.count((height, width))
    covered = np.zeros((height, width), bool)
    for top, left, tall, wide in boxes.tolist():
        assert (tall, wide) == side
        assert top >= 0 <= left and top + tall <= height and left + wide <= width
        covered[top : top + tall, left : left + wide] = True
    assert covered.all()
    for axis in (0, 1):
        steps = np.diff(np.unique(boxes[:, axis]))
        assert (side[axis] - steps >= overlap * side[axis] - 1e-6).all() or (steps == 1).all()


def test_the_last_row_and_column_are_moved_inward() -> None:
    assert Tiling((100, 100), 0.25).boxes((100, 230)).tolist() == [
        [0, 0, 100, 100],
        [0, 75, 100, 100],
        [0, 130, 100, 100],
    ]


@pytest.mark.parametrize(
    ("side", "overlap", "image", "named"),
    [
        ((100, 100), 0.25, (99, 200), "200 x 99 pixels, smaller than a tile of 100 x 100 (data.tile)"),
        ((100, 100), 0.25, (200, 99), "99 x 200 pixels, smaller than a tile of 100 x 100 (data.tile)"),
        ((8, 8), 0.9, (200, 200), "37249 tiles of 200 x 200 pixels; data.tile accepts 4096 an image"),
        ((7, 8), 0.0, (9, 9), "data.tile must be whole pixels of at least 8, got [7, 8]"),
        ((8, 8), 0.95, (9, 9), "data.tile_overlap must be in [0, 0.9], got 0.95"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    side: tuple[int, int], overlap: float, image: tuple[int, int], named: str
) -> None:
    with pytest.raises(InputError) as error:
        Tiling(side, overlap).boxes(image)
    assert str(error.value) == named


@given(seed=st.integers(0, 2**31), side=sides, overlap=overlaps)
def test_mask_pixels_are_counted_in_each_tile(seed: int, side: tuple[int, int], overlap: float) -> None:
    mask = np.random.default_rng(seed).random((61, 64)) < 0.2
    boxes = Tiling(side, min(overlap, 0.5)).boxes(mask.shape)
    expected = [int(mask[t : t + h, c : c + w].sum()) for t, c, h, w in boxes.tolist()]
    assert mask_counts(mask, boxes) == tuple(expected)


def test_tiles_that_would_not_fit_into_memory_are_refused() -> None:
    assert len(Tiling((8, 8), 0.0).boxes((8, 512), (2048, 2048))) == 64
    with pytest.raises(InputError, match="65 tiles at 2048 x 2048 are 272629760 pixels; 268435456 an image are"):
        Tiling((8, 8), 0.0).boxes((8, 520), (2048, 2048))


def test_the_normal_class_must_be_there() -> None:
    assert Tiling((8, 8), 0.0).normal_position(("a", "b")) is None
    assert Tiling((8, 8), 0.0, "b").normal_position(("a", "b")) == 1
    with pytest.raises(InputError, match=r"data\.normal=c is no class of these images; they are a, b"):
        Tiling((8, 8), 0.0, "c").normal_position(("a", "b"))
