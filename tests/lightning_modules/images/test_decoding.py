"""Images decoded by threads, in order."""

from __future__ import annotations

import os
import threading
from typing import Any

from lightning_modules.images import decoding


def test_threads_stay_few_steps_ahead() -> None:
    running, most, lock = set[int](), 0, threading.Lock()

    def items() -> Any:
        nonlocal most
        for item in range(200):
            with lock:
                running.add(item)
                most = max(most, len(running))
            yield item

    results = []
    for item in decoding.stream(lambda item: item, items()):
        with lock:
            running.discard(item)
        results.append(item)
    assert results == list(range(200))
    assert most <= 4 * len(os.sched_getaffinity(0)) + 1
