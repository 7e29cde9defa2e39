"""Images of a month's page, each with what both models say and where they look."""

from __future__ import annotations

import math

from matplotlib import colormaps

from explain.overlay import COLOURS, as_pixels, map_overlay
from search.pages.html import text
from search.retrain.month.record import PictureFacts
from search.retrain.page.parts import Figures, name, panel
from search.retrain.page.pictures import PagePicture

__all__ = ["picture_article", "scale_bar"]

_SIDE = 200


def picture_article(figures: Figures, kind: str, number: int, facts: PictureFacts, picture: PagePicture | None) -> str:
    """One image.

    Args:
        figures: the run's numbers.
        kind: picture or suspect, as in the metrics' names.
        number: from 1, as in the metrics' names.
        facts: what is known of it.
        picture: pixels and maps; None where the image could not be read again.
    """
    who = [("champion", facts.champion)] + ([("challenger", facts.challenger)] if facts.challenger else [])
    said = "; ".join(
        f"{role} <b>{name(answer)}</b> {figures.number(f'{kind}_{role}_probability/{number}', 'percent')}"
        for role, (answer, _) in who
    )
    head = (
        f'<article>\n<h3>{name(facts.path)}</h3>\n<p class="answers">labelled <b>{name(facts.truth)}</b>; {said}</p>\n'
        f'<p class="why">{text(facts.why)}</p>\n'
    )
    if picture is None:
        return f"{head}<p>The image could not be read again.</p>\n</article>\n"
    scale = max(1, math.ceil(_SIDE / max(picture.image.shape[1:])))
    panels = [panel(as_pixels(picture.image, scale), f"{facts.path} as the network sees it", "<b>image</b>")]
    for role, (answer, _) in who:
        for block, values in getattr(picture, role).items():
            alt = f"where the {role} looks for {answer} at block {block}, over {facts.path}"
            caption = f"<b>{role}</b> {name(block)}"
            if not float(values.max()) > 0:
                caption += "<br>dead map"
            panels.append(panel(map_overlay(picture.image, values, scale), alt, caption))
    return f'{head}<div class="panels">{"".join(panels)}</div>\n</article>\n'


def scale_bar() -> str:
    """What the colours of the maps mean."""
    stops = ", ".join("#" + "".join(f"{round(255 * c):02x}" for c in colormaps[COLOURS](k / 8)[:3]) for k in range(9))
    return (
        '<div class="bar" role="img" aria-label="colours of the maps, from nothing to the maximum of the map" '
        f'style="background: linear-gradient(to right, {stops})"></div>'
        '<div class="ends"><span>nothing</span><span>maximum of the map</span></div>'
    )
