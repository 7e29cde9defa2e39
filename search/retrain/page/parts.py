"""Parts of a month's page as HTML: numbers that name their metric, sentences that name their tag, pictures.

Whatever comes from data (class names, paths, reasons) is escaped here or in `search.pages.html`, once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from search.pages.html import picture, text

__all__ = ["Figures", "Format", "drawn", "name", "panel"]

Format = Literal["count", "percent", "points", "change", "three", "p", "seconds"]

_PANEL_SIDE = 240


@dataclass(frozen=True)
class Figures:
    """The numbers and sentences of a run, as HTML that says where they are from.

    Attributes:
        metrics: metric -> value.
        tags: tag -> sentence.
    """

    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    def number(self, metric: str, shown: Format) -> str:
        """A number rounded for the reader, with the metric it is and its full value; a dash where it is not known."""
        value = self.metrics.get(metric)
        if value is None:
            return "<span>-</span>"
        return f'<data value="{value!r}" data-metric="{text(metric)}">{_rounded(value, shown)}</data>'

    def interval(self, metric: str, shown: Format) -> str:
        """The 95 % interval of a number: the metrics METRIC_low and METRIC_high; nothing where it is not known."""
        if f"{metric}_low" not in self.metrics:
            return ""
        return f"{self.number(f'{metric}_low', shown)} to {self.number(f'{metric}_high', shown)}"

    def sentence(self, tag: str) -> str:
        """A sentence, with the tag it is."""
        return f'<span data-tag="{text(tag)}">{text(self.tags[tag])}</span>'


def name(words: str) -> str:
    """The name of a class, file, month or model, marked as such: digits in it are no result."""
    return f"<span data-name>{text(words)}</span>"


def drawn(figure: Figure, alt: str) -> str:
    """A figure as a picture within the page; on a small screen it keeps a size that can be read, and is scrolled."""
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=120)
    with Image.open(memory) as drawing:
        width, height = drawing.size
    data = base64.b64encode(memory.getvalue()).decode()
    image = (
        f'<img class="drawn" src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{text(alt)}">'
    )
    return f'<div class="scroll" tabindex="0" role="region" aria-label="figure">{image}</div>'


def panel(pixels: NDArray[np.uint8], alt: str, caption: str) -> str:
    """A small picture with a caption (HTML); large ones are reduced, so that a page of many stays light."""
    return picture(pixels, alt, caption, _PANEL_SIDE)


def _rounded(value: float, shown: Format) -> str:
    if shown == "count":
        return f"{value:,.0f}".replace(",", " ")
    if shown == "percent":
        return f"{100 * value:.1f} %"
    if shown == "points":
        return f"{100 * value:.1f}"
    if shown == "change":
        return f"{100 * value:+.1f}"
    if shown == "p":
        return f"{value:.3f}" if value >= 0.001 else "below 0.001"
    if shown == "seconds":
        return f"{value:.0f} s" if value < 600 else f"{value / 60:.1f} min"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
