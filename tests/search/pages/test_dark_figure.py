"""A figure on dark ground: words and lines are light, hues and pictures stay."""

from __future__ import annotations

import colorsys

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from search.pages.dark_figure import darken


def lightness(colour: object) -> float:
    return colorsys.rgb_to_hls(*to_rgb(colour))[1]  # type: ignore[arg-type]


def hue(colour: object) -> float:
    return colorsys.rgb_to_hls(*to_rgb(colour))[0]  # type: ignore[arg-type]


def test_light_and_dark_change_places_and_hues_stay() -> None:
    figure = Figure()
    axes = figure.subplots()
    (line,) = axes.plot([0, 1], color="#1f4e79", markerfacecolor="white", marker="o")
    words = axes.text(0, 0, "a", color="0.3", bbox={"facecolor": "#fdf0e2", "edgecolor": "none", "alpha": 0.8})
    patch = axes.add_patch(Rectangle((0, 0), 1, 1, facecolor="#fdf0e2", edgecolor="none", alpha=0.5))
    pixels = axes.imshow(np.eye(3), cmap="inferno")
    before = pixels.to_rgba(np.eye(3)).copy()
    darken(figure)
    assert lightness(figure.patch.get_facecolor()) < 0.1 and lightness(axes.get_facecolor()) < 0.1
    assert lightness(words.get_color()) > 0.6 and lightness(axes.get_xticklabels()[0].get_color()) > 0.8
    assert lightness(line.get_color()) > 0.5 and lightness(line.get_markerfacecolor()) < 0.1
    assert abs(hue(line.get_color()) - hue("#1f4e79")) < 0.01
    ground = words.get_bbox_patch()
    assert ground is not None
    for one in (patch, ground):
        assert lightness(one.get_facecolor()) < 0.2
        assert one.get_edgecolor()[3] == 0, "what had no edge has none"
    assert np.array_equal(before, pixels.to_rgba(np.eye(3)))
