"""Figures: labels of any script, no blank axes, nothing cut."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from search.outcome.figures import confusion_figure, curves_figure, histogram_figure

LATIN = ("crazing", "pitted surface", "rolled-in scale")
HANGUL = ("가로 줄무늬", "개재물", "점")
THOUSAND = tuple(f"class {number}" for number in range(1000))
MANY = tuple(f"{name} {number}" for number in range(12) for name in HANGUL)


def _histogram(classes: tuple[str, ...]) -> Figure:
    counts = {name: 3 + 7 * position for position, name in enumerate(classes)}
    return histogram_figure({"train": counts, "validation": dict.fromkeys(classes, 0), "test": counts})


def _curves(classes: tuple[str, ...]) -> Figure:
    curves = [
        (f"{name} lr=0.01 freeze=3", [0.2, 0.4, 0.5 + 0.01 * position], position % 2 == 1)
        for position, name in enumerate(classes)
    ]
    return curves_figure([*curves, ("stopped at once", [0.1], True)], "macro_f1", best=0)


def _confusion(classes: tuple[str, ...]) -> Figure:
    matrix = np.random.default_rng(0).integers(0, 40, (len(classes), len(classes)))
    matrix[1] = 0  # a class without test images
    return confusion_figure(matrix, classes)


@pytest.mark.parametrize("classes", [LATIN, HANGUL, MANY, THOUSAND], ids=["latin", "hangul", "36", "1000"])
@pytest.mark.parametrize("draw", [_histogram, _curves, _confusion])
def test_every_axis_shows_something_and_no_glyph_is_missing(
    draw: Callable[[tuple[str, ...]], Figure], classes: tuple[str, ...]
) -> None:
    figure = draw(classes)
    assert max(figure.get_size_inches()) < 26
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        figure.savefig(buffer, dpi=50)
    grey = np.asarray(Image.open(buffer).convert("L"))
    assert figure.axes
    for axes in figure.axes:
        left, bottom, right, top = (round(side) for side in axes.get_window_extent().extents)
        scale = grey.shape[1] / figure.bbox.width
        box = grey[
            round(grey.shape[0] - top * scale) : round(grey.shape[0] - bottom * scale),
            round(left * scale) : round(right * scale),
        ]
        assert box.size and box.min() < box.max()
        assert axes.lines or axes.images or axes.patches or axes.collections


def test_the_histogram_counts_every_split() -> None:
    figure = histogram_figure({"train": {"a": 5, "b": 1}, "test": {"a": 2, "b": 0}})
    axes = figure.axes[0]
    assert sorted(round(bar.get_width()) for bar in axes.patches) == [0, 1, 2, 5]
    assert [text.get_text().strip() for text in axes.texts] == ["7", "1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train (6)", "test (2)"]


def test_curves_hold_every_trial_and_name_the_winner() -> None:
    figure = curves_figure([("one", [0.1, 0.2], False), ("two", [0.3], True)], "accuracy", best=0)
    axes = figure.axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines if len(line.get_ydata())]
    assert drawn == [[0.1, 0.2], [0.3]]
    assert axes.lines[0].get_xdata().tolist() == [1, 2]
    assert axes.get_ylabel() == "validation accuracy"
    assert "winner: one" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_confusion_matrix_counts_and_shades_by_row() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ("a", "b"))
    axes = figure.axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {((0, 0), "3"), ((1, 0), "1")}
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
