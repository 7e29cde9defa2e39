"""The page's only script (`templates/charts.js`): it unpacks plotly, which stands in the page, and draws the charts.

Packed by gzip, plotly takes 1.9 MB of the page instead of 4.8. Where a browser cannot unpack it, or scripts are off,
the static drawings stay. Both are named by their hashes in the page's content security policy: no other script runs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache

from search.pages.html import render

__all__ = ["packed_plotly", "script_hash"]


@cache
def packed_plotly() -> tuple[str, str]:
    """plotly.js, packed and in base64, and the hash of what it unpacks to, as a content security policy names it."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs().encode()
    return base64.b64encode(gzip.compress(code, 9, mtime=0)).decode(), _hash(code)


def script_hash() -> str:
    """The hash of the script, as a content security policy names it."""
    return _hash(render("charts.js").encode())


def _hash(code: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}"
