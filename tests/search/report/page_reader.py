"""Reads a report as its tests need it: numbers with what they say of themselves, and text that is left beside them."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "img", "br", "source"})
_SAID = ("bdi", "svg", "code", "script", "style", "title")


@dataclass(frozen=True)
class Number:
    """A `<data>` element: its attributes, its text, and the section it stands in."""

    attributes: dict[str, str]
    text: str
    section: str


class PageReader(HTMLParser):
    """Structure of a report.

    Attributes:
        numbers: all `<data>` elements.
        bare: (section, text) outside numbers, names, drawings, code and what is marked as a constant or a tag.
        elements: names of all elements, in order.
        handlers: attributes that would run a script.
        loads: what a browser would load.
        images: attributes of pictures.
        open: elements that are still open; empty in a well-formed page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.numbers: list[Number] = []
        self.bare: list[tuple[str, str]] = []
        self.elements: list[str] = []
        self.handlers: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str]] = []
        self.open: list[tuple[str, bool]] = []
        self._section = "head"
        self._number: dict[str, str] | None = None
        self._text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.elements.append(tag)
        self.handlers += [key for key in given if key.startswith("on")]
        self.loads += [given[key] for key in ("src", "srcset", "href") if key in given and tag != "a"]
        if tag == "img":
            self.images.append(given)
        if tag == "section":
            self._section = given["id"]
        if tag == "data":
            self._number, self._text = given, ""
        if tag not in VOID and not (tag in ("line", "circle", "polyline") and self._inside("svg")):
            said = tag in _SAID or "data-constant" in given or "data-tag" in given
            self.open.append((tag, said))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag
        if tag == "data":
            assert self._number is not None
            self.numbers.append(Number(self._number, self._text, self._section))
            self._number = None

    def handle_data(self, data: str) -> None:
        if self._number is not None:
            self._text += data
        elif data.strip() and not any(said for _, said in self.open):
            self.bare.append((self._section, data))

    def _inside(self, tag: str) -> bool:
        return any(name == tag for name, _ in self.open)
