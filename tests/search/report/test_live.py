"""The report while trials run: written again after each, in the newest state, and never in the way of a search."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.report import live
from search.report.live import LiveReport


def test_trials_that_end_while_a_page_is_written_share_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    written: list[str] = []

    def write(name: str, *_: Any) -> SimpleNamespace:
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

    def write(*_: Any) -> None:
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
