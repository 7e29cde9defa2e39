"""A figure that was drawn on white, on dark ground: pages show the one that the reader's screen asks for."""

from __future__ import annotations

import colorsys
from typing import Any

from matplotlib.artist import Artist
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

__all__ = ["darken"]

_GROUND = "#0d1117"  # of the pages: what white becomes
_DARKEST, _LIGHTEST = 0.07, 0.92  # lightness of that, and of what black becomes


def darken(figure: Figure) -> None:
    """Turn the lightness of all lines, faces and words round, hues kept; pictures stay as they are."""
    for artist in figure.findobj(include_self=True):
        _darken(artist)
        if isinstance(artist, Text) and (ground := artist.get_bbox_patch()) is not None:
            _darken(ground)


def _darken(artist: Artist) -> None:
    if isinstance(artist, Text):
        artist.set_color(_turned(artist.get_color()))
    elif isinstance(artist, Line2D):
        face, edge = artist.get_markerfacecolor(), artist.get_markeredgecolor()
        artist.set_color(_turned(artist.get_color()))
        artist.set_markerfacecolor(_turned(face))
        artist.set_markeredgecolor(_turned(edge))
    elif isinstance(artist, Patch):
        artist.set_facecolor(_turned(artist.get_facecolor()))
        artist.set_edgecolor(_turned(artist.get_edgecolor()))


def _turned(colour: object) -> Any:
    red, green, blue, alpha = to_rgba(colour)  # type: ignore[arg-type]
    if alpha == 0:
        return "none"  # a patch of a given alpha would draw any other
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if lightness == 1:
        return to_rgba(_GROUND, alpha)
    turned = _DARKEST + (1 - lightness) * (_LIGHTEST - _DARKEST)
    return (*colorsys.hls_to_rgb(hue, turned, 0.8 * saturation), alpha)
