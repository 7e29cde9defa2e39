"""`python -m search.ui` and a real browser: a study's runs are listed, compared and drawn, and an artifact is shown."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.study.opening import load_study
from search.study.record import Study
from tests.headless_browser import Browser, opened_browser

pytestmark = pytest.mark.slow

MODEL_TRAINING = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""
"""What MLflow's UI keeps of its user: the assistant was seen, experiments are of model training."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        opened.call("Page.addScriptToEvaluateOnNewDocument", source=MODEL_TRAINING)
        yield opened


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command prints."""
    return tmp_path_factory.mktemp("ui") / "log"


@pytest.fixture(scope="module")
def printed(log: Path) -> Callable[[], str]:
    """What the command has printed."""
    return lambda: log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(browser: Browser, finished: SimpleNamespace, log: Path) -> Iterator[str]:
    """Address of the UI on the session's store; not started where there is no browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "search.ui", f"tracking.root={finished.root}", f"port={port}"],
            cwd=log.parent,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 180
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # MLflow's server is a child of its command
        process.wait(timeout=300)


@pytest.fixture(scope="module")
def study(finished: SimpleNamespace) -> Study:
    return load_study(finished.study, finished.root)


@pytest.fixture(scope="module")
def page(browser: Browser, server: str, study: Study) -> str:
    """The list of the experiment's runs, opened, with only this study's shown; its address without the fragment."""
    browser.open(f"{server}/#/experiments/1/runs?searchFilter=tags.study%20%3D%20%27{study.name}%27")
    return server


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _until(browser: Browser, expression: str, what: str, patience: float = 180) -> Any:
    """What an expression says as soon as that is something."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := browser.evaluate(expression):
            return found
        time.sleep(0.2)
    raise AssertionError(f"no {what}: {browser.evaluate('document.body.innerText')[:2000]}")


def _go(browser: Browser, fragment: str) -> None:
    browser.evaluate(f"location.hash = {json.dumps(fragment)}")


def test_the_runs_of_a_study_are_listed(browser: Browser, page: str, study: Study) -> None:
    expander = "document.querySelector('[data-component-id*=runnamecellrenderer]')"
    _until(browser, f"!!{expander}", "search with trials in the list")
    browser.evaluate(f"{expander}.click()")
    for trial in study.trials:
        _until(
            browser, f"document.body.innerText.includes('t{trial.slot:02d} {trial.optimizer} depth ')", "run of a trial"
        )
    assert f"{len(study.trials) + 1} matching runs" in browser.evaluate("document.body.innerText")


def test_the_printed_address_opens_on_the_trials_best_first(
    browser: Browser, server: str, study: Study, printed: Callable[[], str]
) -> None:
    (address,) = re.findall(r"^Trials of experiment thawline, the best first: (http://\S+)$", printed(), re.MULTILINE)
    assert address.startswith(server)
    browser.open("about:blank")  # only the fragment differs from what is open, which would load nothing
    browser.open(address)
    _until(browser, "document.querySelectorAll('.ag-row[row-index]').length > 1", "list of runs")
    text = _until(browser, "/final_val_macro_f1/.test(document.body.innerText) && document.body.innerText", "columns")
    for column in ("freeze_depth", "optimizer", "learning_rate", "status"):
        assert column in text
    for trial in study.trials:
        name = f"t{trial.slot:02d} {trial.optimizer} depth {trial.freeze_depth}"
        _until(browser, f"document.body.innerText.includes('{name}')", name)
    cells = "[...document.querySelectorAll('[col-id*=final_val_macro_f1].ag-cell')].map(c => parseFloat(c.innerText))"
    scores = [score for score in _until(browser, f"{cells}.length > 1 && {cells}", "scores") if score is not None]
    assert scores == sorted(scores, reverse=True)


def test_two_are_selected_and_compared(browser: Browser, page: str, study: Study) -> None:
    """Uses the list that the test before has opened."""
    for row in (1, 2):  # below that of the search
        box = f"document.querySelector('.ag-row[row-index=\"{row}\"] input[type=checkbox]')"
        _until(browser, f"!!{box}", "box beside a run")
        browser.evaluate(f"{box}.click()")
    compare = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() === 'Compare')"
    _until(browser, f"{compare} && !{compare}.disabled", "button to compare")
    browser.evaluate(f"{compare}.click()")
    _until(browser, "document.body.innerText.includes('Comparing 2 Runs')", "comparison")
    text = _until(browser, "/learning_rate/.test(document.body.innerText) && document.body.innerText", "parameters")
    compared = [trial for trial in study.trials if f"t{trial.slot:02d} {trial.optimizer} depth " in text]
    assert len(compared) == 2


def test_the_parallel_coordinates_have_their_axes(browser: Browser, page: str, study: Study) -> None:
    runs = json.dumps([trial.run_id for trial in study.trials])
    _go(browser, "/models")  # a comparison that is open would stay
    _until(browser, "document.body.innerText.includes('Registered Models')", "list of models")
    _go(browser, f"/compare-runs?runs={runs}&experiments={json.dumps(['1'])}")
    _until(browser, f"document.body.innerText.includes('Comparing {len(study.trials)} Runs')", "comparison")
    axes = "[...document.querySelectorAll('.js-plotly-plot .axis-title')].map(a => a.textContent)"
    found = _until(browser, f"{axes}.length >= 3 && {axes}", "axes")
    assert {"freeze_depth", "learning_rate"} <= set(found)
    assert browser.evaluate("document.querySelector('.js-plotly-plot').data[0].line.color.length") == len(study.trials)


def test_an_artifact_is_shown_as_a_picture(browser: Browser, page: str, study: Study) -> None:
    _go(browser, f"/experiments/1/runs/{study.run_id}/artifacts/figures/evidence.png")
    picture = "[...document.images].find(i => i.naturalWidth > 500)"
    width = _until(browser, f"{picture}?.naturalWidth", "picture")
    assert width > 1000


def test_the_note_and_the_slider_over_blocks_are_there(browser: Browser, page: str, study: Study) -> None:
    assert study.winner is not None and study.evidence is not None
    _go(browser, f"/experiments/1/runs/{study.run_id}")
    _until(browser, f"document.body.innerText.includes('Winner: trial {study.winner.slot}')", "note")
    _go(browser, f"/experiments/1/runs/{study.run_id}/model-metrics")
    search = "document.querySelector('input[placeholder^=\"Search metric\"]')"
    _until(browser, f"!!{search}", "search field")
    browser.evaluate(f"{search}.focus()")
    browser.call("Input.insertText", text="maps")
    _until(browser, "document.body.innerText.includes('maps/before training')", "chart of the maps")
    marks = "document.querySelector('[role=slider]').getAttribute('aria-valuemax')"
    assert int(_until(browser, f"document.querySelector('[role=slider]') && {marks}", "slider")) == len(
        study.evidence.blocks
    )
    _until(browser, "[...document.images].some(i => i.src.includes('maps~before') && i.naturalWidth > 50)", "map")


def test_nothing_was_asked_of_any_other_machine(browser: Browser, page: str) -> None:
    urls = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 20
    assert [url for url in urls if not url.startswith((page, "data:", "blob:"))] == []
