"""The report of a real study in a real browser: whole at every width, silent, alone, and usable without a mouse."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.report.__main__ import main
from tests.headless_browser import OVERFLOWING, Browser, opened_browser
from tests.search.report.page_reader import PageReader
from tests.search.report.synthetic import IMAGE, SCRIPT

pytestmark = pytest.mark.slow

LABELS = {"a": IMAGE, "b": SCRIPT, "c": 'c" onmouseover="alert(3)'}
ASKED = ("http:", "https:", "ws:", "wss:", "ftp:")


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
    make_stripes: Callable[..., Path],
    tiny: tuple[str, ...],
    tracking_root: Path,
    run_search_warm: Callable[..., SimpleNamespace],
) -> Path:
    """The report that a search writes by itself; its classes have markup for names, its images too."""
    folder = make_stripes(tmp_path_factory.mktemp("evil"), dict.fromkeys(LABELS, 15))
    (folder / "a" / "00.png").rename(folder / "a" / f"{IMAGE}.png")
    manifest = folder / "images.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        names = list(LABELS)
        for number, path in enumerate(sorted(folder.glob("*/*.png"))):
            # One in three labels is wrong, or there would be no mistake to show.
            kind = (names.index(path.parent.name) + (number % 3 == 0)) % 3
            rows.writerow([str(path.relative_to(folder)), LABELS[names[kind]]])
    arguments = [a for a in tiny if not a.startswith(("data", "tracking.report"))]
    outcome = run_search_warm(
        *arguments, "data=manifest", f"data.path={manifest}", "data.size=[32,32]", "search.study=evil",
        "search.pruner=none", "search.trials=6", "trainer.epochs=1",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("Report: ")]
    return Path(line.removeprefix("Report: ").removesuffix("."))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def show(browser: Browser, page: Path, width: int, scheme: str = "light", media: str = "") -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", media=media, features=wanted)
    browser.open(page.as_uri())


def drawn(browser: Browser) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if state := browser.evaluate("document.documentElement.dataset.charts"):
            return str(state)
        time.sleep(0.1)
    return "never"


def unfold(browser: Browser) -> None:
    """Open all folds and wait until the charts in them are drawn."""
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if browser.evaluate("[...document.querySelectorAll('.chart .still')].every(s => s.hidden)"):
            return
        time.sleep(0.1)


def said(browser: Browser) -> list[dict[str, Any]]:
    loud = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
    return [event for event in browser.events if event["method"] in loud]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "light"), (1440, "light"), (360, "dark")])
def test_it_is_whole_silent_and_alone(browser: Browser, written: Path, width: int, scheme: str) -> None:
    show(browser, written, width, scheme)
    assert drawn(browser) == "drawn"
    height = browser.evaluate("document.documentElement.scrollHeight")
    assert width < 1440 or height <= 4000, "what is not in a fold is read without much scrolling"
    unfold(browser)
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth") is True
    assert browser.evaluate(OVERFLOWING) == []
    broken = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0 ? [] : [i.alt], "
        "() => [i.alt]))).then(found => found.flat())"
    )
    assert broken == []
    assert browser.evaluate("[...document.images].every(i => i.alt)") is True
    assert browser.evaluate("document.images.length") > 3
    charts = browser.evaluate("document.querySelectorAll('.live .main-svg').length")
    assert charts >= 4
    assert browser.evaluate("[...document.querySelectorAll('.chart .still')].every(s => s.hidden)") is True
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]") < 60
    assert dark is (scheme == "dark")
    assert said(browser) == []
    urls = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert urls[0] == written.as_uri()
    assert not [url for url in urls[1:] if url.startswith((*ASKED, "file:"))]


def test_nothing_may_be_fetched_and_no_other_script_runs(browser: Browser, written: Path) -> None:
    show(browser, written, 768)
    assert drawn(browser) == "drawn"
    assert browser.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    ran = browser.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = true'; "
        "document.head.append(s); return window.ran === true })()"
    )
    assert ran is False


def test_every_stop_is_reached_with_the_keyboard(browser: Browser, written: Path) -> None:
    show(browser, written, 1440)
    assert drawn(browser) == "drawn"
    expected = browser.evaluate(
        "(() => { const all = [...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')]"
        ".filter(e => e.matches('.skip') || e.checkVisibility({contentVisibilityAuto: true})); "
        "all.forEach((e, n) => { e.dataset.stop = n }); return all.length })()"
    )
    assert expected > 15
    reached = set()
    for _ in range(expected + 5):
        for kind in ("rawKeyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        if stop := browser.evaluate("document.activeElement?.dataset?.stop"):
            reached.add(int(stop))
    assert reached == set(range(expected))


def test_without_scripts_and_on_paper_the_drawings_stay(browser: Browser, written: Path) -> None:
    shown = "[...document.querySelectorAll('.chart')].map(f => [!!f.querySelector('.still').offsetHeight, " \
        "!!f.querySelector('.live').offsetHeight])"  # fmt: skip
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        show(browser, written, 768)
        browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert browser.evaluate(shown) == [[True, False]] * 5
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    show(browser, written, 768, media="print")
    assert drawn(browser) == "drawn"
    assert browser.evaluate(shown) == [[True, False]] * 5
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000


def test_labels_that_are_markup_are_shown_as_they_are(browser: Browser, written: Path) -> None:
    show(browser, written, 768)
    text = browser.evaluate("document.body.innerText")
    assert all(label in text for label in LABELS.values())
    reader = PageReader(written.read_text(encoding="utf-8"))
    assert reader.handlers == [] and reader.elements.count("script") == 3 and reader.open == []


def test_the_command_alone_gives_the_same_page(written: Path, tracking_root: Path, tmp_path: Path) -> None:
    """The search wrote it while it ended; the command reads everything again."""
    to = tmp_path / "again.html"
    before = PageReader(written.read_text(encoding="utf-8"))
    assert main(["study=evil", f"root={tracking_root}", f"to={to}"]) == 0
    after = PageReader(to.read_text(encoding="utf-8"))
    phases = "/cost/"  # what the report took is known by now
    assert [n for n in after.numbers if not n.attributes["data-source"].startswith(phases)] == [
        n for n in before.numbers if not n.attributes["data-source"].startswith(phases)
    ]
