"""A console that is never silent for long."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.command_line.steady_console import LONGEST_SILENCE, SteadyConsole, loading

ROOT = Path(__file__).parents[3]


def test_silence_is_told_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    console = SteadyConsole(file=out, silence=0.2)
    with console.steady():
        with console.status("Reading images") as status:
            time.sleep(0.5)
            status.update("Reading images: 3 of 5")
            time.sleep(0.5)
        time.sleep(0.5)
    told = [line.split(": ", 1)[1] for line in out.getvalue().splitlines()]
    assert list(dict.fromkeys(told)) == ["Reading images", "Reading images: 3 of 5", "working"]


def test_who_speaks_is_not_told_over() -> None:
    out = io.StringIO()
    console = SteadyConsole(file=out, silence=0.5)
    with console.steady():
        for number in range(12):
            console.print(number)
            time.sleep(0.1)
    assert len(out.getvalue().splitlines()) == 12
    time.sleep(0.7)
    assert len(out.getvalue().splitlines()) == 12, "it goes on after the block"


def test_statuses_may_stand_in_each_other() -> None:
    console = SteadyConsole(file=io.StringIO())
    with console.status("outer"):
        with console.status("inner"):
            assert console.doing == "inner"
        assert console.doing == "outer"
    assert console.doing == ""


def test_a_terminal_has_its_spinner_and_no_lines() -> None:
    out = io.StringIO()
    console = SteadyConsole(file=out, silence=0.1, force_terminal=True)
    with console.steady(), console.status("Reading images"):
        time.sleep(0.4)
    assert "after" not in out.getvalue()


def test_the_longest_silence_is_below_ten_seconds() -> None:
    assert LONGEST_SILENCE + 1 <= 10


def test_loading_is_not_told_where_it_is_done() -> None:
    import torch  # noqa: F401

    out = io.StringIO()
    with loading(SteadyConsole(file=out)):
        pass
    assert out.getvalue() == ""


def test_a_search_says_what_it_does_before_it_loads_pytorch(tmp_path: Path, stripes: Path) -> None:
    """Stopped once it has said so; a wrong path is refused before."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "search", f"images={stripes}", f"root={tmp_path}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "Found 36 files in 3 classes: 가로 줄무늬 12, 세로 12, 점 12.\n"
        assert process.stdout.readline() == "Loading PyTorch, Lightning and MLflow.\n"
    finally:
        process.kill()
        process.communicate()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["search", "search.retrain"])
def test_a_wrong_path_is_refused_before_pytorch_is_loaded(command: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    code = (
        "import sys; from importlib import import_module; main = import_module(sys.argv[1] + '.__main__').main; "
        "assert main(sys.argv[2:]) == 2; assert 'torch' not in sys.modules"
    )
    words = [command, "data=folder", f"data.path={tmp_path / 'images'}", f"root={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and "holds no class folders" in done.stderr


def test_a_terminal_shows_something_at_once() -> None:
    """Settings take half a second to read on an idle machine; a terminal says so before."""
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "search", "--cfg", "job"], cwd=ROOT, stdout=child, stderr=child)
    os.close(child)
    said = b""
    try:
        while select.select([parent], [], [], 60)[0]:
            try:
                said += os.read(parent, 4096)
            except OSError:  # the other end is closed
                break
    finally:
        process.wait()
        os.close(parent)
    assert said.startswith(b"Reading settings\r\x1b[Kseed: 0")


@pytest.mark.slow
@pytest.mark.long
def test_no_silence_of_a_search_is_long(
    tiny: tuple[str, ...], tmp_path: Path, make_stripes: Callable[..., Path]
) -> None:
    """A whole search in a process of its own, into a store of its own: time between any two lines."""
    images = make_stripes(tmp_path / "images", {"a": 60, "b": 60})
    words = [word for word in tiny if not word.startswith(("data", "tracking.root"))]
    line = [sys.executable, "-u", "-m", "search", f"images={images}", "data.size=[32,32]", *words, f"root={tmp_path}"]
    last, longest, lines = time.monotonic(), 0.0, []
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for said in process.stdout:
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            lines.append(said)
    assert process.returncode == 0, "".join(lines)
    assert longest < 15, lines  # ten, and what a loaded machine adds
    assert all(re.search("[a-zA-Z]", said.split(": ", 1)[-1]) for said in lines if said.startswith("  after "))
