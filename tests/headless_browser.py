"""Headless Chromium for tests of pages, spoken to through a pipe: no port is opened."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["OVERFLOWING", "Browser", "opened_browser"]

OVERFLOWING = """
[...document.body.querySelectorAll('*')].filter(e => !e.closest('.scroll') || e.matches('.scroll'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40))
"""
"""Elements that reach beyond the page's right edge, those inside a scrolling region left out."""


class Browser:
    """Headless Chromium, spoken to through its pipe: no port is opened and nothing beyond the file is asked for."""

    def __init__(self, chromium: str, profile: Path) -> None:
        child_reads, self._write = os.pipe()
        self._read, child_writes = os.pipe()
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run"
        script = f'exec "$0" {options} --user-data-dir="$1" 3<&{child_reads} 4>&{child_writes}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, chromium, str(profile)],
            pass_fds=(child_reads, child_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self._left, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", ""):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=300)
        os.close(self._write)
        os.close(self._read)

    def _receive(self, patience: float = 180) -> dict[str, Any]:
        end = time.monotonic() + patience
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser closed"
            self._left += data
        message, self._left = self._left.split(b"\0", 1)
        return dict(json.loads(message))


@contextmanager
def opened_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; skips the test where none is installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on PATH: install it (Debian: apt-get install chromium) to test the page in a browser")
    opened = Browser(chromium, profile)
    try:
        yield opened
    finally:
        opened.close()
