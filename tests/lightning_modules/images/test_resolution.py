"""The size that is chosen for images: laws over all sizes, networks and limits, and the reason that is given."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_modules.images.reading import decode_image, header_size
from lightning_modules.images.resolution import SMALLEST, STEP, Bounds, choose_fit, choose_side, choose_size, megapixels

SIDES = st.integers(1, 4000)
BOUNDS = st.builds(
    Bounds,
    network=st.just("net"),
    native=st.integers(16, 700),
    smallest=st.integers(1, 400),
    trained=st.booleans(),
    epoch_images=st.integers(1, 1_000_000),
    megapixels=st.floats(1e-3, 1e6),
    limit=st.just("the limit"),
)
LITE0 = Bounds("efficientnet_lite0", 224, 32, True, 1380, 16.0, "data.epoch_megapixels=16")


@given(SIDES, BOUNDS)
def test_the_side_is_the_largest_that_nothing_forbids(own: int, bounds: Bounds) -> None:
    side, dearer = choose_side(own, bounds)
    least = max(SMALLEST, -(-bounds.smallest // STEP) * STEP)
    assert side % STEP == 0 and side >= least
    assert side == least or (side <= bounds.native and side < own + STEP)
    assert side == least or megapixels(bounds.epoch_images, (side, side)) <= bounds.megapixels
    larger = side + STEP
    too_dear = megapixels(bounds.epoch_images, (larger, larger)) > bounds.megapixels
    assert larger > bounds.native or larger >= own + STEP or too_dear
    assert dearer in (None, larger) and (dearer is None or too_dear)
    assert choose_side(own, bounds) == (side, dearer)


@given(SIDES, BOUNDS, st.floats(1, 100), st.integers(1, 10), st.integers(0, 500))
def test_the_side_grows_with_the_limit_and_the_images_and_falls_with_their_number(
    own: int, bounds: Bounds, more: float, times: int, larger: int
) -> None:
    side, _ = choose_side(own, bounds)
    assert choose_side(own, replace(bounds, megapixels=bounds.megapixels * more))[0] >= side
    assert choose_side(own + larger, bounds)[0] >= side
    assert choose_side(own, replace(bounds, native=bounds.native + larger))[0] >= side
    assert choose_side(own, replace(bounds, epoch_images=bounds.epoch_images * times))[0] <= side


@given(st.lists(st.tuples(SIDES, SIDES), max_size=9), st.randoms())
def test_the_order_of_the_images_does_not_matter(sizes: list[tuple[int, int]], random: object) -> None:
    shuffled = sorted(sizes, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert choose_size(sizes, LITE0) == choose_size(shuffled, LITE0)
    assert choose_fit(sizes, (96, 96)) == choose_fit(shuffled, (96, 96))


@pytest.mark.parametrize(
    ("sizes", "bounds", "side", "why"),
    [
        (
            [(200, 200)],
            replace(LITE0, epoch_images=60),
            224,
            "the images are 200 x 200 (median), efficientnet_lite0 was trained at 224",
        ),
        ([(200, 200)], LITE0, 96, "128 would train 22.6 megapixels an epoch, more than data.epoch_megapixels=16"),
        ([(200, 200)], replace(LITE0, epoch_images=700), 128, "160 would train 17.9 megapixels an epoch, more than"),
        ([(100, 120)] * 3 + [(9, 900)], replace(LITE0, epoch_images=4), 128, "the images are 100 x 120 (median), "),
        (
            [(40, 40)],
            LITE0,
            96,
            "the images are 40 x 40 (median), efficientnet_lite0 was trained at 224; 96 is the least",
        ),
        (
            [(300, 300)],
            replace(LITE0, native=32, trained=False),
            96,
            "efficientnet_lite0 is made for 32; 96 is the least",
        ),
        ([(300, 300)], replace(LITE0, native=240, epoch_images=1), 224, "was trained at 240"),
        ([(300, 300)], replace(LITE0, native=260, epoch_images=1), 256, "was trained at 260"),
        ([(50, 50)], replace(LITE0, smallest=150), 160, "the images are 50 x 50 (median)"),
        ([], replace(LITE0, epoch_images=1), 224, "efficientnet_lite0 was trained at 224"),
    ],
)
def test_the_reason_is_what_bounds_it(sizes: list[tuple[int, int]], bounds: Bounds, side: int, why: str) -> None:
    size, said = choose_size(sizes, bounds)
    assert size == (side, side)
    assert why in said


@pytest.mark.parametrize(
    ("sizes", "target", "fit", "factor"),
    [
        ([(100, 100)], (96, 96), "stretch", 1.0),
        ([(200, 300)], (96, 96), "stretch", 1.5),
        ([(300, 200)], (96, 96), "stretch", 1.5),
        ([(100, 160)], (96, 96), "pad", 1.6),
        ([(100, 160)], (100, 160), "stretch", 1.0),
        ([(100, 100)], (100, 160), "pad", 1.6),
        ([(100, 400), (100, 100), (100, 100)], (96, 96), "stretch", 1.0),
        ([], (96, 96), "stretch", 1.0),
    ],
)
def test_a_ratio_far_from_the_target_is_kept(
    sizes: list[tuple[int, int]], target: tuple[int, int], fit: str, factor: float
) -> None:
    found, by = choose_fit(sizes, target)
    assert (found, by) == (fit, pytest.approx(factor))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_the_header_tells_the_size_of_what_is_decoded(kind: str, orientation: int | None) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None and kind != "BMP":
        exif[0x0112] = orientation
    options = {"exif": exif.tobytes()} if len(exif) else {}
    Image.fromarray(np.zeros((20, 30), np.uint8)).convert("RGB").save(file, kind, **options)
    assert header_size(file.getvalue()) == decode_image(file.getvalue()).shape[:2]


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0"]))
def test_no_bytes_are_an_error(data: bytes, start: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = header_size(start + data)
    assert size is None or min(size) >= 1
