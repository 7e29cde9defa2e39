"""Fonts that show labels in any script."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager

__all__ = ["use_fonts"]

_SYSTEM_FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans")


def use_fonts() -> None:
    """Let figures show labels in any script: DejaVu Sans, then NanumGothic for Hangul, then Noto where installed."""
    _add_packaged()
    known = set(font_manager.fontManager.get_font_names())
    mpl.rcParams["font.family"] = [n for n in ("DejaVu Sans", "NanumGothic", *_SYSTEM_FONTS) if n in known]
    # A character that no font has is drawn as a box; a line on the terminal for each would bury the results.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


@cache
def _add_packaged() -> None:
    # Found without importing the package, which would change the font of every figure of this process.
    spec = find_spec("koreanize_matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("fonts/*.ttf")):
            font_manager.fontManager.addfont(str(file))
