"""Figures: brightness carries the map, labels in any script, nothing that a label holds is read as mathematics."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from explain.fonts import use_fonts
from explain.overlay import COLOURS, SIGNED_COLOURS, as_pixels, map_overlay, superpixel_overlay, truth_overlay
from explain.subject import MEASURED, ImageExplanation, measure
from explain.superpixels import SuperpixelExplanation
from search.explain.figures import contact_sheet, image_figure, measure_lines
from search.pages.numbers import written

CLASSES = ("island", "pipe $x_1$", "갈라짐 & <b>")
METHODS = ("gradcam", "layercam")
BLOCKS = ("early", "late")
LUMA = np.array([0.299, 0.587, 0.114])


def explained(
    name: str = "이미지 $a^$.png", *, lime: bool = True, blocks: tuple[str, ...] = BLOCKS
) -> ImageExplanation:
    random = torch.Generator().manual_seed(3)
    maps = {(m, b): torch.rand(8, 10, generator=random) for m in METHODS for b in blocks}
    maps["layercam", blocks[-1]] = torch.zeros(2, 2)
    segments = (torch.arange(48)[None] // 12 + 4 * (torch.arange(40)[:, None] // 20)).long()
    coefficients = torch.linspace(-1, 1, 24).reshape(3, 8).double()
    superpixels = SuperpixelExplanation(
        segments, 2, torch.full((3,), 1 / 3), coefficients, torch.zeros(3), torch.tensor([0.5, 0.6, 0.7])
    )
    return ImageExplanation(
        Path("folder") / name,
        torch.rand(3, 40, 48, generator=random),
        predicted=(CLASSES[2], 0.61),
        second=(CLASSES[1], 0.3),
        explained=(CLASSES[2], 0.61),
        truth=CLASSES[0],
        maps=maps,
        measures={k: {c: v[0] for c, v in measure(m[None]).items()} for k, m in maps.items()},
        defect=torch.ones(20, 24, dtype=torch.bool).tril(),
        lime=superpixels,
        stability=0.9,
    )


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("colours", [COLOURS, SIGNED_COLOURS])
def test_luminance_of_the_colours_rises_evenly(colours: str) -> None:
    grey = mpl.colormaps[colours](np.linspace(0, 1, 64))[:, :3] @ LUMA
    assert (np.diff(grey) > -1e-3).all()
    assert grey[-1] - grey[0] > 0.5


def test_printed_grey_the_map_is_what_is_bright() -> None:
    image = torch.full((3, 32, 32), 1.0)
    values = torch.zeros(8, 8)
    values[2:4, 2:4] = 1
    grey = map_overlay(image, values) @ LUMA
    assert grey[10:14, 10:14].mean() > 1.15 * grey[20:, 20:].mean()
    # Even a white image does not outshine the map; a black one shows it all the more.
    black = map_overlay(torch.zeros(3, 32, 32), values) @ LUMA
    assert black[10:14, 10:14].mean() > 100 > black[20:, 20:].max()


def test_a_line_marks_half_of_the_maximum_unless_it_would_hide_the_map() -> None:
    smooth = torch.zeros(4, 4)
    smooth[1:3, 1:3] = 1
    drawn = map_overlay(torch.zeros(3, 64, 64), smooth)
    assert (drawn == 255).all(axis=2).sum() > 20
    ragged = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    assert not (map_overlay(torch.zeros(3, 64, 64), ragged) == 255).all(axis=2).any()


def test_a_dead_map_shows_the_image_alone() -> None:
    image = torch.rand(3, 16, 16)
    drawn = map_overlay(image, torch.zeros(4, 4))
    grey = as_pixels(image) @ LUMA
    assert np.corrcoef(drawn.mean(axis=2).ravel(), grey.ravel())[0, 1] > 0.99


def test_truth_is_outlined_at_any_resolution() -> None:
    truth = torch.zeros(100, 50, dtype=torch.bool)
    truth[25:75, 12:38] = True
    drawn = truth_overlay(torch.full((3, 32, 32), 0.5), truth, scale=2)
    assert drawn.shape == (64, 64, 3)
    assert (drawn[32, :] == 255).all(axis=1).sum() == 2


def test_superpixels_for_the_class_are_brighter_than_those_against() -> None:
    one = explained()
    assert one.lime is not None
    grey = superpixel_overlay(torch.full((3, 40, 48), 0.5), one.lime) @ LUMA
    strongest, weakest = one.lime.coefficients[2].argmax(), one.lime.coefficients[2].argmin()
    segments = one.lime.segments.numpy()
    assert np.median(grey[segments == int(strongest)]) > np.median(grey[segments == int(weakest)])


@pytest.mark.parametrize("blocks", [BLOCKS, tuple(f"stage{k}" for k in range(1, 11))])
def test_image_figure_says_what_it_shows(tmp_path: Path, blocks: tuple[str, ...]) -> None:
    figure = image_figure(explained(blocks=blocks), METHODS, CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "figure.png")
    shown = texts(figure)
    for expected in ("이미지 $a^$.png", "predicted 갈라짐 & <b> 0.61, then pipe $x_1$ 0.30; is island", "dead map",
                     "gradcam", "layercam", "lime", "stability 0.90", f"{blocks[0]}  8x10"):  # fmt: skip
        assert expected in shown
    ends = (tmp_path / "figure.png").read_bytes()[:4]
    assert ends == b"\x89PNG"


def test_contact_sheet_names_the_wrong_ones(tmp_path: Path) -> None:
    sheet = contact_sheet(CLASSES[2], [explained(f"{k}.png") for k in range(7)], "gradcam", "late", total=9)
    sheet.savefig(tmp_path / "sheet.png")
    shown = texts(sheet)
    assert "predicted as 갈라짐 & <b>: 7 of 9, most certain first; gradcam at late" in shown
    assert shown.count("0.61, is island") == 7


def test_fonts_draw_hangul_without_a_missing_glyph() -> None:
    use_fonts()
    figure = Figure()
    figure.text(0.5, 0.5, "섬 갈라짐 é ß Ω Ж")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_fonts_are_added_once() -> None:
    use_fonts()
    before = len(mpl.font_manager.fontManager.ttflist)
    use_fonts()
    assert len(mpl.font_manager.fontManager.ttflist) == before


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (0.0, "0"), (4096.4, "4096"), (float("nan"), "-"), (12.34, "12.3")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert written(value, "three") == text


def test_measures_fit_beneath_a_panel() -> None:
    values = dict.fromkeys(MEASURED, 0.5) | {"dead": 0.0}
    assert measure_lines(values) == ("ce 0.5  12ca 0.5", "cd 0.5  rd 0.5")
    assert measure_lines(values | {"dead": 1.0}) == ("dead map", "")
