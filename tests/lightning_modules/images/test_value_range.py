"""Laws of the range of values: no pixel and no image decides alone, and nothing that a file tells apart is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.images.value_range import (
    WHITE_LEVELS,
    ValueRange,
    WideValues,
    choose_range,
    robust_ends,
    scale_to_uint8,
    value_problem,
    white_level_for,
    wide_values,
)

LEVEL = st.integers(0, 65_535)
SETS = st.lists(
    st.tuples(LEVEL, LEVEL).map(lambda pair: WideValues(min(pair), max(pair), 0.0)), min_size=1, max_size=40
)
RANGES = st.lists(LEVEL, min_size=2, max_size=2, unique=True).map(lambda pair: ValueRange(*sorted(pair)))


@given(st.lists(LEVEL, min_size=2, max_size=60), LEVEL)
def test_one_value_decides_nothing(values: list[int], odd: int) -> None:
    low, high = robust_ends(np.array([*values, odd], np.uint16), 0.001)
    assert min(values) <= low <= high <= max(values)


@given(SETS, st.integers(0, 3))
def test_a_range_covers_the_images_and_keeps_what_they_tell_apart(found: list[WideValues], eight_bit: int) -> None:
    black, white, dark = chosen = choose_range([*found, *[None] * eight_bit])
    assert 0 <= black <= white - 255 and white <= 65_535 and dark <= min(white, max(v.high for v in found)) // 4
    ends = [robust_ends(np.array(side), 0.01) for side in ([v.low for v in found], [v.high for v in found])]
    assert black <= ends[0][0] and ends[1][1] <= white
    assert not chosen.narrow or (ends[1][1] - ends[0][0]) * 4 <= white_level_for(ends[1][1])


@given(SETS.filter(lambda found: len(found) >= 9), st.tuples(LEVEL, LEVEL))
def test_one_image_moves_the_range_no_further_than_the_others_reach(
    found: list[WideValues], ends: tuple[int, int]
) -> None:
    odd = WideValues(min(ends), max(ends), 0.0)
    black, white, _ = choose_range([*found, odd])
    low, high = min(v.low for v in found), max(v.high for v in found)
    assert white <= max(white_level_for(high), high + max(255, high - low)) and black >= min(0, low)


@pytest.mark.parametrize("maximum", [0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535])
def test_white_level_is_the_smallest_that_covers(maximum: int) -> None:
    level = white_level_for(maximum)
    assert level >= maximum and level in WHITE_LEVELS
    assert level == 255 or maximum > {1023: 255, 4095: 1023, 16383: 4095, 65535: 16383}[level]


@given(st.lists(LEVEL, min_size=1, max_size=20), RANGES)
def test_scaling_rounds_and_clips(values: list[int], known: ValueRange) -> None:
    scaled = scale_to_uint8(np.array(values, np.uint16), known)
    exact = np.clip((np.array(values) - known.black) * 255 / (known.white - known.black), 0, 255)
    assert (np.abs(scaled - exact) <= 0.5).all()


@given(st.lists(LEVEL, min_size=1, max_size=60), st.floats(0, 0.1), RANGES, LEVEL)
def test_a_few_hot_pixels_are_accepted(values: list[int], share: float, known: ValueRange, other: int) -> None:
    inside = np.clip(np.array(values, np.uint16), known.black, known.white)
    inside[: int(share * len(inside))] = other
    assert value_problem(wide_values(inside, known), known) == ""


@pytest.mark.parametrize("wrong", [(5, 5), (-1, 9), (0, 65_536), (9, 3)])
def test_no_range(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"black and white must be in 0\.\.65535, black below white, got"):
        scale_to_uint8(np.zeros(3, np.uint16), ValueRange(*wrong))
