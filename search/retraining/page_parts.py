"""Parts of a month's page as HTML: numbers that name their metric, sentences that name their tag, tables, pictures.

Whatever comes from data (class names, paths, reasons) is escaped here, once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from explain.arguments import printable

__all__ = ["Figures", "Format", "drawn", "name", "panel", "table", "text"]

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


def text(words: str) -> str:
    """Any text as inert HTML on one line."""
    return escape(printable(words), quote=True)


def name(words: str) -> str:
    """The name of a class, file, month or model, marked as such: digits in it are no result."""
    return f"<span data-name>{text(words)}</span>"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, words: int = 1, marked: Sequence[bool] = ()
) -> str:
    """A table whose first `words` columns are text; cells are HTML; `marked` rows stand out."""

    def cells(tag: str, values: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = [' class="word"' if number < words else "" for number in range(len(values))]
        return "".join(f"<{tag}{scope}{kind}>{value}</{tag}>" for value, kind in zip(values, kinds, strict=True))

    marks = [*marked, *[False] * (len(rows) - len(marked))]
    body = "".join(
        f"<tr{kind}>{cells('td', row)}</tr>"
        for row, kind in zip(rows, (' class="seen"' if mark else "" for mark in marks), strict=True)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


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
    image = Image.fromarray(pixels)
    image.thumbnail((_PANEL_SIDE, _PANEL_SIDE))
    memory = io.BytesIO()
    image.save(memory, "JPEG", quality=80)
    data = base64.b64encode(memory.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" '
        f'alt="{text(alt)}"><figcaption>{caption}</figcaption></figure>'
    )


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
