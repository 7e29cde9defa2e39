"""HTML of the report: text that is inert whatever it holds, and numbers that say where they come from.

Every number stands in `<data value="0.93412" data-form=".3f" data-source="/winner/value">0.934</data>`: `value` in
full, `data-form` how it is written, `data-source` a JSON pointer into report.json, and where MLflow holds the number
itself, `data-metric` or `data-param` with its name and `data-run` with the run. Whoever doubts a number can look it up;
the tests look up every one. Constants of the method ("95 %") stand in `<span data-constant>`, names in `<bdi>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.pages.html import text
from search.words import duration

__all__ = ["Numbers", "bar", "details", "name", "section", "written"]

_UNKNOWN = '<span class="soft" title="not known">-</span>'


def name(words: object) -> str:
    """A name that somebody else chose (class, file, block, study): isolated, so that no script turns the line round."""
    return f"<bdi>{text(words)}</bdi>"


class Numbers:
    """Writes numbers of the report's data.

    Args:
        data: of `ReportData.to_json`.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def value(self, pointer: str) -> Any:
        """What stands at a JSON pointer of plain keys and positions."""
        found: Any = self._data
        for part in pointer.strip("/").split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def __call__(self, pointer: str, form: str = "", *, metric: str = "", param: str = "", run: str = "") -> str:
        """The number at `pointer`.

        Args:
            pointer: JSON pointer into report.json.
            form: as `format` takes it, or "duration" for seconds; empty writes a whole number as it is.
            metric: name of the same number among MLflow's metrics.
            param: or among its parameters.
            run: which run; empty for the parent.
        """
        value = self.value(pointer)
        if value is None:
            return _UNKNOWN
        named = (("form", form), ("source", pointer), ("metric", metric), ("param", param), ("run", run))
        where = "".join(f' data-{key}="{text(word)}"' for key, word in named if word)
        return f'<data value="{value!r}"{where}>{written(value, form)}</data>'


def written(value: float, form: str) -> str:
    """A number as the page writes it."""
    return duration(value) if form == "duration" else f"{value:{form}}"


def section(anchor: str, title: str, body: str) -> str:
    """A section with its heading."""
    heading = f'<h2 id="{anchor}-title">{title}</h2>'
    return f'<section id="{anchor}" aria-labelledby="{anchor}-title">{heading}\n{body}</section>\n'


def details(summary: str, body: str) -> str:
    """What is there for those who want to know more."""
    return f"<details><summary>{summary}</summary>\n{body}</details>\n"


def bar(share: float) -> str:
    """A bar as long as a share in [0, 1], beside a number that says the same."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="meter" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'
