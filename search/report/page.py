"""The page: one file, nothing asked of any network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.pages.html import text
from search.report.closing import cost, measures, reproduction
from search.report.data import ReportData
from search.report.headline import headline, trust
from search.report.markup import Numbers
from search.report.mistakes import additions, confusion, suspects
from search.report.script import SCRIPT, content_security_policy, inert_json, packed_plotly
from search.report.style import STYLE
from search.report.tried import curves, depths, evidence, parameters

__all__ = ["page"]

_CONTENTS = {
    "trust": "Trust",
    "depths": "Depth x optimizer",
    "evidence": "Why this depth",
    "curves": "Curves",
    "parameters": "What mattered",
    "confusion": "Confusion",
    "additions": "What to add",
    "suspects": "Suspect labels",
    "measures": "Maps",
    "cost": "Cost",
    "reproduction": "Reproduce",
}


def page(
    data: ReportData, charts: Mapping[str, Any], pictures: Mapping[str, str], evidence_picture: bytes | None
) -> str:
    """The page as HTML.

    Args:
        data: everything it says.
        charts: of `charts.chart_data`.
        pictures: key -> JPEG in base64, of the findings.
        evidence_picture: PNG, or None.
    """
    numbers = Numbers(data.to_json())
    script = plotly = ""
    hashes = []
    if charts:
        packed, plotly_hash = packed_plotly()
        hashes.append(plotly_hash)
        plotly = f'<script type="text/plain" id="plotly">{packed}</script>\n'
        script = (
            f'<script type="application/json" id="charts">{inert_json(charts)}</script>\n<script>{SCRIPT}</script>\n'
        )
    links = "".join(f'<li><a href="#{anchor}">{words}</a></li>' for anchor, words in _CONTENTS.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(*hashes)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text(data.study)}: search report</title>\n<style>{STYLE}</style>\n'
        '</head>\n<body>\n<a class="skip" href="#content">Skip to the content</a>\n'
        f'<header>\n{headline(data, numbers)}<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n'
        '<main id="content">\n'
        + trust(data, numbers)
        + depths(data, numbers)
        + evidence(data, numbers, evidence_picture)
        + curves(data, numbers)
        + parameters(data, numbers)
        + confusion(data, numbers)
        + additions(data, numbers, pictures)
        + suspects(data, numbers, pictures)
        + measures(data, numbers)
        + cost(data, numbers)
        + reproduction(data)
        + f"</main>\n{plotly}{script}</body>\n</html>\n"
    )
