"""The page of explanations: inline style, images as data URIs, no script, nothing asked of any network. What it says is
in `templates/explanations.html`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from markupsafe import Markup
from PIL import Image

from explain.localisation import CONTROL, LocalisationRow
from explain.overlay import COLOURS, SIGNED_COLOURS, as_pixels, map_overlay, superpixel_overlay, truth_overlay
from explain.subject import MEASURED, ImageExplanation, described_measures
from search.explain.figures import roomy_block, shares_line
from search.pages.html import picture, render, stream
from search.pages.original_picture import Original, original_overlay
from search.verdict import counted

__all__ = ["PageContent", "image_article", "image_fragment", "page", "sheet_figure"]

_PANEL_PIXELS, _LEAD_PIXELS = 264, 400  # of the longer side
_DEAD = 0.1  # share of dead maps from which a block is said to say little


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
        looks=_looks(content),
        verdict=None if content.accuracy is None else counted(*content.accuracy),
        commonest=sorted(((count, name) for name, (count, _) in content.by_class.items() if count), reverse=True),
        dead=[name for name, values in content.measures.items() if values["dead"] > _DEAD],
    )


def _looks(content: PageContent) -> LocalisationRow | None:
    """The block and method whose maps lie on the defects most, of those that beat chance and both controls.

    All by more than their 95 % interval; None where there is none.
    """
    found = [
        row
        for row in content.localisation
        if row.method != CONTROL and all(low > 0 for _, low, _ in (row.over_chance, row.over_random, row.over_control))
    ]
    return max(found, key=lambda row: row.energy[0], default=None)


def image_article(
    explained: ImageExplanation,
    methods: Sequence[str],
    classes: Sequence[str],
    original: Original | None = None,
    *,
    folded: bool = True,
) -> Markup:
    """One image with its maps as HTML: one of them over the picture, then all, method by method.

    Args:
        original: the picture as it was taken; None shows what the network sees, as where a defect is outlined.
        folded: whether all maps are in a fold; a notebook shows them at once.
    """
    scale = max(1, math.ceil(_PANEL_PIXELS / max(explained.image.shape[1:])))
    seen = as_pixels(explained.image, scale)
    if explained.defect is not None:
        seen, original = truth_overlay(explained.image, explained.defect, scale), None
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
        folded=folded,
        image=picture(seen if original is None else original.shown(_LEAD_PIXELS)),
        lead=_lead(explained, original, scale),
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


def _lead(explained: ImageExplanation, original: Original | None, scale: int) -> dict[str, Any] | None:
    """The map that stands beside the picture: LayerCAM where it is there, at the last block with 4 x 4 cells or more.

    In early blocks, where there is room, Grad-CAM averages gradients of both signs.

    Returns:
        None without maps.
    """
    methods = [method for method, _ in explained.maps]
    if not methods:
        return None
    method = "layercam" if "layercam" in methods else methods[0]
    block, roomy = roomy_block(explained, method)
    key = (method, block)
    values = explained.maps[key]
    drawn = (
        map_overlay(explained.image, values, scale)
        if original is None
        else original_overlay(original, values, _LEAD_PIXELS)
    )
    return {
        "picture": picture(drawn), "method": method, "block": block, "size": values.shape,
        "dead": not float(values.max()) > 0, "few": not roomy,
    }  # fmt: skip


def image_fragment(explained: ImageExplanation) -> str:
    """One image with its maps for a notebook, where the page's style sheet is not: with the little it needs of it."""
    methods = list(dict.fromkeys(method for method, _ in explained.maps))
    classes = [f"class {k}" for k in range(0 if explained.lime is None else len(explained.lime.shares))]
    return render("notebook_image.html", article=image_article(explained, methods, classes, folded=False))


def sheet_figure(name: str, light: Path | IO[bytes], dark: Path | IO[bytes]) -> Markup:
    """A contact sheet as HTML, of PNG files on light and on dark ground."""
    sheets = []
    for file in (light, dark):
        with Image.open(file) as image:
            sheets.append(picture(image.convert("RGB")))
    return render("contact_sheet.html", name=name, light=sheets[0], dark=sheets[1])
