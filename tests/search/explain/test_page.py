"""The page: escaped, self-contained; and, in a real browser, whole at every width and silent."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explain.localisation import LocalisationRow
from explain.subject import MEASURED, ImageExplanation, measure
from explain.superpixels import SuperpixelExplanation
from search.explain.page import PageContent, image_article, page, sheet_figure
from search.pages.original_picture import Original
from tests.headless_browser import OVERFLOWING, Browser, opened_browser

EVIL = '<script>alert("x")</script> & 섬'
CLASSES = (EVIL, "pipe")
BLOCKS = tuple(f"stage{k}" for k in range(1, 8))
VOID = {"meta", "link", "img", "br", "source"}


def explained(name: str) -> ImageExplanation:
    random = torch.Generator().manual_seed(5)
    maps = {(m, b): torch.rand(6, 6, generator=random) for m in ("gradcam", "layercam") for b in BLOCKS}
    maps["gradcam", "stage1"] = torch.zeros(6, 6)
    segments = (torch.arange(48)[None] // 12 + 4 * (torch.arange(48)[:, None] // 24)).long()
    lime = SuperpixelExplanation(
        segments, 0, torch.ones(2) / 2, torch.linspace(-1, 1, 16).reshape(2, 8), torch.zeros(2), torch.ones(2)
    )
    return ImageExplanation(
        Path(name),
        torch.rand(3, 48, 48, generator=random),
        predicted=(EVIL, 0.8),
        second=("pipe", 0.2),
        explained=("pipe", 0.2),
        truth="pipe",
        maps=maps,
        measures={k: {c: v[0] for c, v in measure(m[None]).items()} for k, m in maps.items()},
        defect=torch.eye(48) > 0,
        lime=lime,
        stability=0.5,
    )


def write(folder: Path) -> Path:
    """A page with everything on it."""
    interval = (0.123, 0.1, 0.15)
    none = (math.nan,) * 3
    rows = [LocalisationRow(b, m, 9, 0.1, interval, interval, none, none, interval, interval, interval)
            for b in BLOCKS for m in ("gradcam", "activation")]  # fmt: skip
    content = PageContent(
        title="What the blocks look at",
        facts={"Images": EVIL, "Model": "a-name-without-any-space-" * 8},
        by_class={EVIL: (3, 0.75), "pipe": (0, math.nan)},
        accuracy=(1, 3),
        method="gradcam",
        measures={block: dict.fromkeys(MEASURED, 1234.5) for block in BLOCKS},
        localisation=rows,
        localised=(9, 0.02),
        problems=[(f"/{'long/' * 40}{EVIL}.png", "truncated PNG")],
        command=f"python -m explain images={EVIL}",
    )
    Image.effect_noise((1200, 700), 60).convert("RGB").save(folder / "sheet.png")
    articles = (
        image_article(explained(f"{'deep/' * 20}{EVIL}_{k}.png"), ("gradcam", "layercam"), CLASSES) for k in "ab"
    )
    path = folder / "index.html"
    sheets = (sheet_figure(EVIL, folder / "sheet.png", folder / "sheet.png") for _ in range(1))
    path.write_text("".join(page(content, articles, sheets)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page"))


class Structure(HTMLParser):
    """Collects what a browser would load, and checks that elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loads: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.append(tag)
        if tag == "img":
            self.images.append(given)
        self.loads += [str(given[a]) for a in ("src", "srcset", "href") if a in given and tag != "a"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_is_well_formed_and_asks_for_nothing(written: Path) -> None:
    structure = Structure()
    structure.feed(written.read_text(encoding="utf-8"))
    assert structure.open == []
    assert structure.loads
    assert all(load.startswith("data:") for load in structure.loads)
    assert "script" not in structure.names
    assert not re.search(r"url\(|@import", written.read_text(encoding="utf-8"))


def test_every_image_is_decoded_and_described(written: Path) -> None:
    structure = Structure()
    structure.feed(written.read_text(encoding="utf-8"))
    # Two images: itself and the map beside it, seven blocks by two methods, super-pixels; and one sheet.
    assert len(structure.images) == 2 * (2 + 14 + 1) + 1
    for image in structure.images:
        assert image["alt"]
        kind, data = str(image["src"]).split(",", 1)
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data, validate=True)[:3] == b"\xff\xd8\xff"


def test_labels_are_escaped_and_facts_are_told(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; 섬" in text
    for expected in (
        "1 of 3 images with a known class",
        "dead map",
        "What speaks for <b>pipe</b> 0.200: layercam at stage7, 6 x 6 cells",
        "<h1>1 of 3 images right (1 to 91 %)</h1>",
        "it looks at the defects: maps of block <b>stage1</b> (gradcam) lie on them",
        "stability 0.50",
        "1 left out",
    ):
        assert expected in text


def test_the_map_beside_the_picture_has_room_for_a_place() -> None:
    """The last block with 4 x 4 cells, over the picture as it was taken."""
    shown = explained("a.png")
    maps = {**shown.maps, ("gradcam", "stage7"): torch.rand(2, 2), ("gradcam", "stage6"): torch.rand(4, 5)}
    maps = {key: values for key, values in maps.items() if key[0] == "gradcam"}
    original = Original(np.full((40, 120, 1), 90, np.uint8), (48, 48), "pad")
    article = image_article(replace(shown, maps=maps, defect=None, lime=None), ("gradcam",), CLASSES, original)
    assert "gradcam at stage6, 4 x 5 cells" in article
    (first, second) = re.findall(r'base64,([^"]*)"', article)[:2]
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in (first, second)]
    assert sizes == [(400, 133)] * 2, "its shape is kept"
    few = image_article(replace(shown, maps={("gradcam", "stage7"): torch.ones(2, 2)}), ("gradcam",), CLASSES)
    assert "So few cells hardly say where." in few


def test_a_block_that_does_not_beat_all_controls_is_not_said_to_look_at_defects() -> None:
    beats, not_known, below = (0.1, 0.05, 0.2), (math.nan,) * 3, (0.1, -0.01, 0.2)
    for over in ((beats, beats, not_known), (below, beats, beats), (beats, below, beats)):
        row = LocalisationRow("b", "layercam", 9, 0.0, beats, beats, beats, beats, *over)
        content = PageContent("t", {}, {"a": (1, 0.5)}, None, "layercam", {}, [row], (9, 0.1), [], "c")
        assert "it is not shown to look at the defects" in "".join(page(content, [], []))


def test_without_pictures_it_says_so() -> None:
    content = PageContent("t", {}, {"a": (1, 0.5)}, None, "gradcam", {}, [], (0, math.nan), [], "c")
    text = "".join(page(content, [], []))
    assert text.count("None were asked for.") == 2
    assert 'id="localisation"' not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_in_a_browser(browser: Browser, written: Path, width: int, scheme: str) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(written.as_uri())
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    broken = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0 ? [] : [i.alt], "
        "() => [i.alt]))).then(found => found.flat())"
    )
    assert broken == []
    assert browser.evaluate("document.images.length") == 35
    assert browser.evaluate("document.documentElement.clientWidth") > width - 20
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth") is True
    assert browser.evaluate(OVERFLOWING) == []
    dark = sum(int(v) for v in re.findall(r"\d+", browser.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (dark < 150) == (scheme == "dark")
    said = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")]
    assert said == []
    assert not [event for event in browser.events if event["method"] == "Runtime.exceptionThrown"]
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked[0] == written.as_uri()
    assert all(url.startswith("data:") for url in asked[1:])
