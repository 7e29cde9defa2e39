"""A search in a process of its own that is disturbed while it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

__all__ = ["rest_of", "running"]


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The command, once its first trial has ended."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("trial "):
                break
        else:
            pytest.fail(said)
        yield process


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it says until its end; its exit code is known then."""
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait(600)
    return said
