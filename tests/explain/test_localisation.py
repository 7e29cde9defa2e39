"""Where a defect lies in what the network sees, and how the table of localisation is reckoned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explain.geometry import frame_of
from explain.localisation import CONTROL, Localisation, bootstrap_intervals
from explain.measures import boxes_to_masks
from lightning_modules.errors import InputError
from lightning_modules.images.reading import fit_image
from search.explain.annotations import image_shape, read_boxes, read_masks
from search.explain.selection import Selection

FITS = ("stretch", "pad", "crop")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(120, 80), (60, 160), (64, 64), (33, 47)])
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_boxes_and_masks_land_where_the_resize_puts_the_pixels(
    fit: str, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    rows, columns = shape
    top, bottom, left, right = rows // 4, rows * 3 // 4, columns // 3, columns * 2 // 3
    pixels = np.zeros((rows, columns, 1), dtype=np.uint8)
    pixels[top:bottom, left:right] = 255
    seen = fit_image(pixels, size, fit)[:, :, 0] / 255  # type: ignore[arg-type]
    frame = frame_of(shape, size, fit)
    drawn = boxes_to_masks([frame.boxes([(left, top, right, bottom)])], (frame.height, frame.width))[0]
    masked = frame.mask(torch.from_numpy(pixels[:, :, 0] > 0))
    for truth in (drawn, masked):
        assert truth.any()
        small = torch.nn.functional.interpolate(truth[None, None].double(), size, mode="area")[0, 0].numpy()
        # Edges are antialiased by the resize: compare extent and place, not single pixels.
        assert small.sum() == pytest.approx(seen.sum(), rel=0.08)
        for axis in (0, 1):
            places = np.arange(size[axis])
            centres = [(m.sum(axis=1 - axis) * places).sum() / m.sum() for m in (small, seen)]
            assert centres[0] == pytest.approx(centres[1], abs=0.6)


def test_cropping_removes_what_lies_outside_and_padding_adds_no_truth() -> None:
    crop = frame_of((100, 300), (64, 64), "crop")
    assert crop.boxes([(0, 0, 90, 100)]) == []
    assert not crop.mask(torch.ones(100, 300, dtype=torch.bool)).logical_not().any()
    pad = frame_of((100, 300), (64, 64), "pad")
    share = pad.mask(torch.ones(100, 300, dtype=torch.bool)).double().mean()
    assert share == pytest.approx(21 / 64, abs=1e-3)


def test_a_hair_crack_survives_a_coarse_frame() -> None:
    mask = torch.zeros(2000, 3000, dtype=torch.bool)
    mask[:, 1501] = True
    frame = frame_of((2000, 3000), (64, 64), "stretch")
    assert (frame.height, frame.width) == (512, 512)
    assert frame.mask(mask).any(dim=1).all()


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(FITS))
@settings(max_examples=60, deadline=None)
def test_a_full_mask_covers_every_frame_but_the_padding(rows: int, columns: int, fit: str) -> None:
    frame = frame_of((rows, columns), (32, 48), fit)
    full = frame.mask(torch.ones(rows, columns, dtype=torch.bool))
    assert full.any()
    if fit != "pad":
        assert full.all()
    assert min(frame.height - 32, frame.width - 48) >= 0


def test_unknown_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fit must be one of stretch, crop, pad, got 'squash'"):
        frame_of((10, 10), (8, 8), "squash")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("path,xmin,ymin,xmax\na.png,1,2,3", "has no column ymax; found path, xmin, ymin, xmax;"),
        ("path,xmin,ymin,xmax,ymax\na.png,1,2,3,x", "row 2: a box must be numbers .* got 1,2,3,x"),
        ("path,xmin,ymin,xmax,ymax\na.png,1,2,3,4\na.png,5,2,3,4", "row 3: .* xmin < xmax"),
        ("path,xmin,ymin,xmax,ymax\na.png,nan,2,3,4", "row 2"),
        ("path,xmin,ymin,xmax,ymax\n", "holds no row"),
        ("", "has no column path, xmin, .* found nothing"),
    ],
)
def test_tables_that_are_no_boxes_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(rows, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_boxes(table)


def test_boxes_of_an_image_are_gathered_and_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(
        "path,label,xmin,ymin,xmax,ymax\nd/a.png,pipe,1,2,3,4\nd/a.png,pipe,5,6,7,8\n", encoding="utf-8-sig"
    )
    found = read_boxes(table)
    assert list(found) == [(tmp_path / "d" / "a.png").resolve()]
    note = next(iter(found.values()))
    assert (note.boxes, note.label) == ([(1, 2, 3, 4), (5, 6, 7, 8)], "pipe")


def test_masks_must_fit_their_image(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    Image.new("L", (30, 21)).save(tmp_path / "m.png")
    table = tmp_path / "masks.csv"
    table.write_text("path,mask\na.png,m.png\nb.png,\nc.png,gone.png\n", encoding="utf-8")
    notes = list(read_masks(table).values())
    assert [note.empty for note in notes] == [False, True, False]
    with pytest.raises(InputError, match="is 30 x 21 pixels, the image 30 x 20"):
        notes[0].truth(tmp_path / "a.png", (16, 16), "stretch")
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        notes[2].truth(tmp_path / "a.png", (16, 16), "stretch")


def test_sizes_follow_the_orientation_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert image_shape(tmp_path / "a.jpg") == (30, 20)


def collected(seed: int = 0, images: int = 12) -> Localisation:
    random = torch.Generator().manual_seed(seed)
    localisation = Localisation(["b"], ["gradcam", CONTROL])
    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[:4, :4] = True
    focused = truth.float() + 0.1 * torch.rand(images, 8, 8, generator=random)
    uniform = torch.ones(images, 4, 4)
    maps = {("gradcam", "b"): focused, (CONTROL, "b"): uniform}
    localisation.add([truth] * images, maps, dict.fromkeys(maps, uniform))
    return localisation


def test_a_focused_map_beats_both_controls() -> None:
    focused, control = collected().rows()
    assert focused.energy[0] > 0.8
    assert focused.energy[1] <= focused.energy[0] <= focused.energy[2]
    assert focused.over_chance[1] > 0.5
    assert focused.over_control[1] > 0.5
    assert focused.random_energy == pytest.approx((0.25, 0.25, 0.25))
    assert focused.over_random == pytest.approx(focused.over_chance)
    assert focused.pointing == (1, 1, 1)
    assert control.energy == pytest.approx((0.25, 0.25, 0.25))
    assert control.over_chance == pytest.approx((0, 0, 0), abs=1e-6)
    assert collected().chance == 0.25


def test_dead_maps_are_counted_not_averaged() -> None:
    localisation = Localisation(["b"], [CONTROL])
    truth = torch.ones(2, 4, 4, dtype=torch.bool)
    maps = {(CONTROL, "b"): torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])}
    localisation.add(list(truth), maps, maps)
    row = localisation.rows()[0]
    assert (row.images, row.dead, row.energy[0]) == (1, 0.5, 1.0)
    assert Localisation(["b"], [CONTROL]).rows() == []


def test_the_gradient_free_control_is_never_left_out() -> None:
    with pytest.raises(ValueError, match="methods must hold activation, got gradcam"):
        Localisation(["b"], ["gradcam"])


def test_intervals_are_seeded_and_about_right() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=(400, 2))
    values[:, 1] = np.nan
    found = bootstrap_intervals(values, seed=4)
    assert np.array_equal(found, bootstrap_intervals(values, seed=4), equal_nan=True)
    assert found[0, 0] == pytest.approx(values[:, 0].mean())
    assert (found[2, 0] - found[1, 0]) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.12)
    assert np.isnan(found[:, 1]).all()


def test_figures_take_turns_between_classes_and_between_doubt_and_certainty() -> None:
    selection = Selection(2, keep=4)
    for place in range(100):
        selection.add(place, place % 2, place / 100)
    assert selection.counts == [50, 50]
    assert selection.for_figures(2) == [0, 1]
    assert selection.for_figures(4) == [0, 1, 98, 99]
    assert selection.for_figures(0) == []
    assert selection.for_contact(0, 4) == [98, 96, 2, 0]


def test_a_small_class_is_shown_whole_the_most_certain_first() -> None:
    selection = Selection(1, keep=24)
    for place, margin in enumerate((0.2, 0.9, 0.5)):
        selection.add(place, 0, margin)
    assert selection.for_contact(0, 24) == [1, 2, 0]
    assert selection.for_figures(24) == [0, 1, 2]
