"""One self-contained page: inline style, images as data URIs, no script, nothing asked of any network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps
from PIL import Image

from explain.localisation import CONTROL, LocalisationRow
from explain.measures import MAP_MEASURES
from explain.overlay import COLOURS, SIGNED_COLOURS, as_pixels, map_overlay, superpixel_overlay, truth_overlay
from explain.subject import MEASURED, ImageExplanation
from lightning_modules.errors import printable
from search.explain.figures import shares_line, three_digits
from search.pages.html import definitions, jpeg, picture, table, text
from search.pages.style import FRAGMENT_STYLE, STYLE

__all__ = ["PageContent", "image_article", "image_fragment", "page", "sheet_figure"]

_PANEL_PIXELS = 264
_MEANING = {
    "entropy": "how widely the map spreads: 0 is one position, 1 uniform",
    "area": "size of the ellipse the map fills: 0 is a point or a line, 1 about uniform",
    "dispersion": "squared coefficient of variation; nearly one quantity with the entropy, not a second vote",
    "relative_difference": "range of the map in units of its mean (own definition)",
    "dead": "1 where the map is zero everywhere; all other measures are undefined there",
}


@dataclass(frozen=True)
class PageContent:
    """Everything on the page but its pictures.

    Attributes:
        title: of the page.
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


def page(content: PageContent, articles: Iterable[str], sheets: Iterable[str]) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        content: tables and texts.
        articles: of `image_article`, written as they come.
        sheets: of `sheet_figure`, written as they come.
    """
    links = ["classes", "blocks", *(["localisation"] if content.localisation else []), "images", "sheets", "reading"]
    titles = {
        "classes": "Predictions", "blocks": "Blocks", "localisation": "Localisation", "images": "Images",
        "sheets": "Contact sheets", "reading": "How to read it",
    }  # fmt: skip
    facts = definitions((label, text(words)) for label, words in content.facts.items())
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<header>\n<h1>{text(content.title)}</h1>\n{facts}\n"
        '<nav aria-label="Contents"><ul>'
        + "".join(f'<li><a href="#{link}">{titles[link]}</a></li>' for link in links)
        + "</ul></nav>\n</header>\n<main>\n"
    )
    if content.problems:
        rows = [[text(path), text(reason)] for path, reason in content.problems]
        left_out = table(["file", "reason"], rows, words=2, caption="files left out")
        yield f"<details><summary>{len(rows)} left out</summary>{left_out}</details>\n"
    yield f'<section id="classes"><h2>{titles["classes"]}</h2>{_classes(content)}</section>\n'
    yield f'<section id="blocks"><h2>{titles["blocks"]}</h2>{_blocks(content)}</section>\n'
    if content.localisation:
        yield f'<section id="localisation"><h2>{titles["localisation"]}</h2>{_localisation(content)}</section>\n'
    yield f'<section id="images"><h2>{titles["images"]}</h2>{_scale(COLOURS, "0", "maximum of the map")}\n'
    yield from _or_none(articles)
    yield f'</section>\n<section id="sheets"><h2>{titles["sheets"]}</h2>\n'
    yield from _or_none(sheets)
    yield (
        f'</section>\n<section id="reading"><h2>{titles["reading"]}</h2>{_reading()}</section>\n</main>\n'
        f'<footer class="soft"><p>Made by <code>{text(content.command)}</code></p></footer>\n</body>\n</html>\n'
    )


def image_article(explained: ImageExplanation, methods: Sequence[str], classes: Sequence[str]) -> str:
    """One image with its maps, method by method, as HTML."""
    name = printable(explained.path)
    predicted, second, chosen = explained.predicted, explained.second, explained.explained
    words = f"predicted <b>{text(predicted[0])}</b> {predicted[1]:.3f}, then {text(second[0])} {second[1]:.3f}"
    if explained.truth is not None:
        words += f"; is {text(explained.truth)}"
    if chosen[0] != predicted[0]:
        words += f"; maps explain {text(chosen[0])} {chosen[1]:.3f}"
    scale = max(1, math.ceil(_PANEL_PIXELS / max(explained.image.shape[1:])))
    blocks = list(dict.fromkeys(block for _, block in explained.maps))
    parts = [f"<article>\n<h3>{text(name)}</h3>\n<p>{words}</p>\n"]
    for place, method in enumerate(methods):
        panels = []
        if place == 0:
            panels.append(_image_panel(explained, name, scale))
        for block in blocks:
            if (method, block) not in explained.maps:
                continue
            values = explained.maps[method, block]
            found = explained.measures[method, block]
            numbers = "<br>".join(f"{c.replace('_', ' ')} {three_digits(found[c])}" for c in MEASURED if c != "dead")
            caption = f"<b>{text(block)}</b> {values.shape[0]} x {values.shape[1]}<br>"
            caption += "dead map" if found["dead"] else numbers
            alt = f"{method} map of {chosen[0]} at block {block} over {name}"
            panels.append(picture(map_overlay(explained.image, values, scale), alt, caption))
        parts.append(f'<h4>{method}</h4>\n<div class="panels">{"".join(panels)}</div>\n')
    if explained.lime is not None:
        lime = explained.lime
        caption = f"R² {float(lime.r2[lime.target]):.2f}, stability {explained.stability:.2f}"
        alt = f"super-pixels for and against {chosen[0]} over {name}"
        panel = picture(superpixel_overlay(explained.image, lime, scale), alt, caption)
        parts.append(
            f'<h4>lime</h4>\n<div class="panels">{panel}</div>\n'
            f"<p>Evidence for each class: {text(shares_line(explained, classes))}</p>\n"
            f"{_scale(SIGNED_COLOURS, 'against', 'for')}\n"
        )
    return "".join([*parts, "</article>\n"])


def image_fragment(explained: ImageExplanation) -> str:
    """One image with its maps for a notebook, where the page's style sheet is not: with the little it needs of it."""
    methods = list(dict.fromkeys(method for method, _ in explained.maps))
    classes = [f"class {k}" for k in range(0 if explained.lime is None else len(explained.lime.shares))]
    return f'<style>{FRAGMENT_STYLE}</style><div class="explained">{image_article(explained, methods, classes)}</div>'


def sheet_figure(name: str, path: Path) -> str:
    """A contact sheet (PNG file) as HTML."""
    with Image.open(path) as image:
        width, height = image.size
        data = jpeg(image.convert("RGB"))
    alt = text(f"images predicted as {name}, each above its map")
    return (
        f'<figure class="sheet"><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{alt}">'
        f"<figcaption>{text(name)}</figcaption></figure>\n"
    )


def _image_panel(explained: ImageExplanation, name: str, scale: int) -> str:
    alt = f"{name} as the network sees it"
    if explained.defect is None:
        return picture(as_pixels(explained.image, scale), alt, "<b>image</b>")
    pixels = truth_overlay(explained.image, explained.defect, scale)
    return picture(pixels, f"{alt}, its defects outlined", "<b>image</b><br>line: defect")


def _or_none(parts: Iterable[str]) -> Iterator[str]:
    empty = True
    for part in parts:
        empty = False
        yield part
    if empty:
        yield "<p>None were asked for.</p>"


def _classes(content: PageContent) -> str:
    rows = [
        [text(name), str(count), "-" if math.isnan(mean) else f"{mean:.3f}"]
        for name, (count, mean) in content.by_class.items()
    ]
    words = ""
    if content.accuracy is not None:
        right, judged = content.accuracy
        words = f"<p>{right} of {judged} images with a known class are predicted right ({right / judged:.1%}).</p>"
    return words + table(["predicted class", "images", "mean probability"], rows, caption="predictions by class")


def _blocks(content: PageContent) -> str:
    rows = [
        [text(block), *(three_digits(values[column]) for column in MEASURED)]
        for block, values in content.measures.items()
    ]
    header = ["block", *(column.replace("_", " ") for column in MEASURED)]
    return (
        f"<p>Means of the measures of {content.method} over all images. They depend on the map's resolution: "
        "compare a block with itself, on other images or another model, not with other blocks.</p>"
        + table(header, rows, caption="measures by block")
    )


def _localisation(content: PageContent) -> str:
    images, chance = content.localised
    best = max((r.energy[0] for r in content.localisation if not math.isnan(r.energy[0])), default=math.nan)
    rows = []
    for row in content.localisation:
        energy = _interval(row.energy)
        rows.append(
            [
                text(row.block),
                text(row.method),
                f'<span class="best">{energy}</span>' if row.energy[0] == best else energy,
                _interval(row.over_chance, sign=True),
                _interval(row.over_random, sign=True),
                "-" if row.method == CONTROL else _interval(row.over_control, sign=True),
                _interval(row.pointing),
                _interval(row.random_pointing),
                f"{row.dead:.1%}",
            ]
        )
    header = ["block", "method", "energy inside", "over chance", "over random weights", f"over {CONTROL}",
              "highest point inside", "same, random weights", "dead maps"]  # fmt: skip
    return (
        f"<p>{images} images; the defects cover {chance:.1%} of an image, which is what a uniform map scores. Means "
        f"with 95 % bootstrap intervals over images. {CONTROL} uses no gradients and knows nothing of the class; "
        "random weights know nothing at all. A block looks at the defects only as far as it beats all three.</p>"
        + table(header, rows, words=2, caption="localisation by block and method")
    )


def _interval(values: tuple[float, float, float], *, sign: bool = False) -> str:
    if math.isnan(values[0]):
        return "-"
    mean, low, high = (f"{value:+.3f}" if sign else f"{value:.3f}" for value in values)
    return f"{mean}<small>{low} to {high}</small>"


def _scale(colours: str, low: str, high: str) -> str:
    stops = ", ".join("#" + "".join(f"{round(255 * c):02x}" for c in colormaps[colours](k / 8)[:3]) for k in range(9))
    return (
        f'<div class="bar" role="img" aria-label="colours from {low} to {high}" '
        f'style="background: linear-gradient(to right, {stops})"></div>'
        f'<div class="ends"><span>{low}</span><span>{high}</span></div>'
    )


def _reading() -> str:
    terms = {}
    for column, name in MEASURED.items():
        measure = MAP_MEASURES[name]
        terms[column.replace("_", " ")] = f"{_MEANING[column]}. {measure.formula}; {measure.paper}."
    return (
        "<p>A map shows where a block's activations raise the score of the explained class. Each is scaled to its own "
        "maximum; brightness carries it, so that it reads the same in grey, and the white line marks half of the "
        "maximum. In early blocks Grad-CAM averages gradients of both signs and degenerates to an edge map: prefer "
        "LayerCAM there. A map that looks right is not yet faithful.</p>"
        + definitions((term, text(words)) for term, words in terms.items())
    )
