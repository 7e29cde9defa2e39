"""The page of explanations: inline style, images as data URIs, no script, nothing asked of any network. What it says is
in `templates/explanations.html`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from explain.localisation import CONTROL, LocalisationRow
from explain.overlay import COLOURS, SIGNED_COLOURS, as_pixels, map_overlay, superpixel_overlay, truth_overlay
from explain.subject import MEASURED, ImageExplanation, described_measures
from search.explain.figures import shares_line
from search.pages.html import picture, render, stream

__all__ = ["PageContent", "image_article", "image_fragment", "page", "sheet_figure"]

_PANEL_PIXELS = 264


@dataclass(frozen=True)
class PageContent:
    """Everything on the page but its pictures.

    Attributes:
        facts: label -> text, shown at the head.
        by_class: class -> images predicted as it, mean probability.
        accuracy: right and judged images, where true classes are known.
        method: whose measures are shown.
        measures: block -> column of `MEASURED` -> mean.
        localisation: rows; empty without annotations.
        localised: images and mean share of them that the truth covers.
        problems: (path, reason) of what was left out.
        command: how the page was made.
    """

    title: str
    facts: Mapping[str, str]
    by_class: Mapping[str, tuple[int, float]]
    accuracy: tuple[int, int] | None
    method: str
    measures: Mapping[str, Mapping[str, float]]
    localisation: Sequence[LocalisationRow]
    localised: tuple[int, float]
    problems: Sequence[tuple[str, str]]
    command: str


def page(content: PageContent, articles: Iterable[Markup], sheets: Iterable[Markup]) -> Iterator[str]:
    """The page, piece by piece; of `image_article` and `sheet_figure`, each is written as it comes."""
    return stream(
        "explanations.html",
        content=content,
        articles=articles,
        sheets=sheets,
        measured=described_measures(),
        best=max((row.energy[0] for row in content.localisation if not math.isnan(row.energy[0])), default=math.nan),
        control=CONTROL,
        colour_map=COLOURS,
    )


def image_article(explained: ImageExplanation, methods: Sequence[str], classes: Sequence[str]) -> Markup:
    """One image with its maps, method by method, as HTML."""
    scale = max(1, math.ceil(_PANEL_PIXELS / max(explained.image.shape[1:])))
    if explained.defect is None:
        image = as_pixels(explained.image, scale)
    else:
        image = truth_overlay(explained.image, explained.defect, scale)
    lime: dict[str, Any] | None = None
    if explained.lime is not None:
        lime = {
            "picture": picture(superpixel_overlay(explained.image, explained.lime, scale)),
            "r2": float(explained.lime.r2[explained.lime.target]),
            "shares": shares_line(explained.lime, classes),
            "colour_map": SIGNED_COLOURS,
        }
    blocks = list(dict.fromkeys(block for _, block in explained.maps))
    return render(
        "explained_image.html",
        shown=explained,
        image=picture(image),
        methods={
            method: [
                {
                    "block": block,
                    "size": explained.maps[method, block].shape,
                    "picture": picture(map_overlay(explained.image, explained.maps[method, block], scale)),
                    "measures": {column: explained.measures[method, block][column] for column in MEASURED},
                }
                for block in blocks
                if (method, block) in explained.maps
            ]
            for method in methods
        },
        lime=lime,
    )


def image_fragment(explained: ImageExplanation) -> str:
    """One image with its maps for a notebook, where the page's style sheet is not: with the little it needs of it."""
    methods = list(dict.fromkeys(method for method, _ in explained.maps))
    classes = [f"class {k}" for k in range(0 if explained.lime is None else len(explained.lime.shares))]
    return render("notebook_image.html", article=image_article(explained, methods, classes))


def sheet_figure(name: str, path: Path) -> Markup:
    """A contact sheet (PNG file) as HTML."""
    with Image.open(path) as image:
        return render("contact_sheet.html", name=name, sheet=picture(image.convert("RGB")))
