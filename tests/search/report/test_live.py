"""The report while trials run: written again after each, in the newest state, and never in the way of a search."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.pipeline import run_search
from search.report import live, writing
from search.report.live import LiveReport
from search.settings.compose import compose_settings


def test_trials_that_end_while_a_page_is_written_share_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    written: list[str] = []

    def write(name: str, *_: Any, **__: Any) -> SimpleNamespace:
        begun.release()
        assert go_on.acquire(timeout=60)
        written.append(name)
        return SimpleNamespace(path=Path("report.html"))

    monkeypatch.setattr(live, "write", write)
    said: list[str] = []
    with LiveReport("study", Path("runs"), said.append) as report:
        report.refresh()
        assert begun.acquire(timeout=60)  # the first page is being written
        for _ in range(5):
            report.refresh()
        go_on.release()
        assert begun.acquire(timeout=60)  # one page for the five
        go_on.release()
    assert written == ["study", "study"]
    assert said == ["Report so far, written again after each trial: report.html"]


def test_what_goes_wrong_is_said_once_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Semaphore(0)

    def write(*_: Any, **__: Any) -> None:
        tried.release()
        raise OSError("no space left\nat all")

    monkeypatch.setattr(live, "write", write)
    said: list[str] = []
    with LiveReport("study", Path("runs"), said.append) as report:
        for _ in range(3):
            report.refresh()
            assert tried.acquire(timeout=60)
    assert said == ["No report yet: OSError: no space left"]


def test_nothing_is_written_where_no_trial_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "write", lambda *_: pytest.fail("written"))
    with LiveReport("study", Path("runs"), pytest.fail):
        pass


def test_a_page_shows_what_the_best_trial_so_far_has_wrong(
    tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search in this process, whose trials wait for their pages."""
    pages: list[str] = []

    def write(*arguments: Any, **named: Any) -> Any:
        report = writing.write(*arguments, **named)
        pages.append(report.html)
        return report

    def refresh(report: LiveReport) -> None:
        before = len(pages)
        report._due.set()
        deadline = time.monotonic() + 120
        while len(pages) == before and time.monotonic() < deadline:
            time.sleep(0.02)

    monkeypatch.setattr(live, "write", write)
    monkeypatch.setattr(LiveReport, "refresh", refresh)
    out = io.StringIO()
    settings = compose_settings(
        [*tiny, "tracking.report=true", "search.study=live", "tracking.model_name=live", "search.trials=2"]
    )
    run_search(settings, Console(file=out, width=200))
    assert len(pages) == 2, out.getvalue()
    for page in pages:
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
        assert "validation images right" in text and "The search is still running" in text
        if "as the best trial so far answers them" in text:
            assert re.search(r"[1-9]\d* of [1-9]\d* validation images, as the best trial so far answers them", text)
        else:
            assert re.search(r"Not one of [1-9]\d* validation images is wrong", text)
        assert "test images" not in text.split("Details")[0]
