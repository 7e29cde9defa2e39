"""The page of a real month in a real browser: every number and sentence re-read from its run in MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run

from tests.headless_browser import OVERFLOWING, Browser, opened_browser
from tests.search.retrain.conftest import Months

pytestmark = pytest.mark.slow

NUMBERS = "[...document.querySelectorAll('[data-metric]')].map(e => [e.dataset.metric, e.value, e.textContent])"
SENTENCES = "[...document.querySelectorAll('[data-tag]')].map(e => [e.dataset.tag, e.textContent])"
UNNAMED = """
(() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (/[0-9]/.test(walk.currentNode.data)
        && !at.closest('[data-metric], [data-tag], [data-name], [data-static], style, title')) {
      found.push(walk.currentNode.data);
    }
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def page_of(months: Months, run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://")) / "month.html"


def reread(browser: Browser, months: Months, run: Run) -> set[str]:
    """Every number of the page is a metric of the run, to the digits shown; the names of the metrics."""
    page = page_of(months, run)
    browser.call("Emulation.setDeviceMetricsOverride", width=1440, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(page.as_uri())
    metrics, tags = run.data.metrics, run.data.tags
    names = set()
    for name, value, words in browser.evaluate(NUMBERS):
        names.add(name)
        assert math.isclose(float(value), metrics[name], rel_tol=1e-12), name
        as_shown(words, metrics[name], name)
    sentences = browser.evaluate(SENTENCES)
    assert sentences
    for name, words in sentences:
        assert words == tags[name], name
    # "macro F1" and "MMD²" are words; whatever else has a digit names what it is.
    assert [words for words in browser.evaluate(UNNAMED) if not re.fullmatch(r"[^\d]*(F1)?[^\d]*", words)] == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked[0] == page.as_uri() and all(url.startswith("data:") for url in asked[1:])
    loud = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [event for event in browser.events if event["method"] in loud] == []
    for width in (360, 1440):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert browser.evaluate(OVERFLOWING) == []
    return names


def as_shown(words: str, exact: float, name: str) -> None:
    """What is printed is the metric, rounded."""
    if words == "below 0.001":
        assert exact < 0.001, name
        return
    number = float(re.sub(r"[^\d.\-+]", "", words))
    digits = len(words.partition(".")[2].rstrip(" %smin")) if "." in words else 0
    scales = (1, 100) if not words.rstrip().endswith("min") else (1 / 60,)
    assert any(abs(number - exact * scale) <= 0.5000001 * 10**-digits for scale in scales), (name, words, exact)


def test_a_promoted_month(browser: Browser, months: Months) -> None:
    months.arrives("2020-02", drift=True, images=14)
    assert months.retrain("retrain.epochs=20").code == 0
    row = months.ledger.months()[-1]
    assert row.outcome == "promoted", row.reason
    run = months.client.get_run(str(row.run_id))
    names = reread(browser, months, run)
    assert {
        "champion_accuracy", "newest_accuracy_champion", "newest_accuracy_challenger", "newest_accuracy_difference",
        "newest_mcnemar_p", "newest_smallest_detectable", "newest_macro_f1_difference", "regression_accuracy_champion",
        "drift_brightness", "drift_features_p", "search_trials", "search_seconds", "search_epoch_equivalents",
        "month_images/held out", "retrain_margin", "retrain_guard", "class_images_new/0",
    } <= names  # fmt: skip
    for who in ("champion", "challenger"):
        cells = {name: run.data.metrics[name] for name in names if name.startswith(f"newest_confusion_{who}/")}
        right = sum(count for name, count in cells.items() if name.split("/")[1] == name.split("/")[2])
        assert right / sum(cells.values()) == pytest.approx(run.data.metrics[f"newest_accuracy_{who}"])
    assert len(names) > 80
    # The ledger, the run and the page say the same.
    text = browser.evaluate("document.body.textContent")
    _, numbers, *checks = re.split(": |; ", str(row.reason))
    assert checks and all(words in text for words in checks)
    assert re.fullmatch(r"the challenger has \d+ of \d+ new images right, the champion \d+", numbers)
    assert browser.evaluate("document.querySelectorAll('figure.wrong').length") >= 6
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)") is True


def test_a_refused_month(browser: Browser, months: Months) -> None:
    months.arrives("2020-02", labels="black")
    assert months.retrain().code == 1
    row = months.ledger.months()[-1]
    names = reread(browser, months, months.client.get_run(str(row.run_id)))
    assert names == {"month_images/month"}
    assert f"refused: {row.reason}" in browser.evaluate("document.body.textContent")
