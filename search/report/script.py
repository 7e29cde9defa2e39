"""The page's only script: it unpacks plotly, which stands in the page, and draws the charts.

Packed by gzip, plotly takes 1.9 MB of the page instead of 4.8. Where a browser cannot unpack it, or scripts are off,
the static drawings stay.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

__all__ = ["SCRIPT", "content_security_policy", "inert_json", "packed_plotly"]

SCRIPT = """
(async () => {
  const root = document.documentElement;
  try {
    const charts = JSON.parse(document.getElementById("charts").textContent);
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), c => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const code = document.createElement("script");
    code.textContent = await new Response(unpacked).text();
    document.head.append(code);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const figures = [...document.querySelectorAll("figure[data-chart]")].filter(f => charts[f.dataset.chart]);
    const look = chart => {
      const style = getComputedStyle(root);
      const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
      const layout = JSON.parse(JSON.stringify(chart.layout));
      for (const axis of ["xaxis", "yaxis"]) {
        layout[axis] = {...layout[axis], gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true};
      }
      return {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
        font: {color: ink.trim(), family: "system-ui, sans-serif", size: 12}, margin: {l: 50, r: 16, t: 12, b: 44}};
    };
    const draw = async () => {
      for (const figure of figures) {
        const chart = charts[figure.dataset.chart], live = figure.querySelector(".live");
        live.hidden = false;
        live.style.height = figure.dataset.chart === "curves" ? "380px" : "260px";
        await Plotly.react(live, chart.data, look(chart), {responsive: true, displayModeBar: false});
        figure.querySelector(".still").hidden = true;
      }
    };
    await draw();
    dark.addEventListener("change", draw);
    root.dataset.charts = "drawn";
  } catch (reason) {
    for (const live of document.querySelectorAll(".live")) live.hidden = true;
    for (const still of document.querySelectorAll(".still")) still.hidden = false;
    root.dataset.charts = "still";
  }
})();
"""


@cache
def packed_plotly() -> tuple[str, str]:
    """plotly.js, packed and in base64, and the hash of what it unpacks to, as a content security policy names it."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs().encode()
    return base64.b64encode(gzip.compress(code, 9, mtime=0)).decode(), _hash(code)


def content_security_policy(*hashes: str) -> str:
    """Nothing may be loaded from anywhere, and no script may run but the page's own, whatever a label holds."""
    scripts = " ".join(f"'{one}'" for one in (_hash(SCRIPT.encode()), *hashes))
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def inert_json(values: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    escaped = json.dumps(values, ensure_ascii=False, allow_nan=False)
    for char in "<>&\u2028\u2029":
        escaped = escaped.replace(char, f"\\u{ord(char):04x}")
    return escaped


def _hash(code: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}"
