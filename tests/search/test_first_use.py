"""A first use through the console script: every command, and every command that is printed, is executed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.invocation import STARTED_BY

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SHORT = (
    "data.size=[32,32]", "search.trials=2", "trainer.epochs=1", "search.members=1", "executor=inline",
    "executor.threads=1", "search.study=first use", "space.default_depths=1", "search.stop=never",
)  # fmt: skip
Shell = Callable[..., str]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Lines pasted into a shell whose PATH has the console script: what they print."""
    folder, scripts = tmp_path_factory.mktemp("first use"), tmp_path_factory.mktemp("bin")
    script = scripts / "thawline"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom search.thawline import main\nsys.exit(main())\n")
    script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name != STARTED_BY}
    found = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    found["PATH"] = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(line: str, code: int = 0) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=found, capture_output=True, text=True)
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    run.folder, run.environment = folder, found  # type: ignore[attr-defined]
    yield run


def _opens(line: str, shell: Shell) -> str:
    """What `thawline ui` prints, once its page answers; it is ended then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*shlex.split(line), f"port={port}"]
    folder, environment = shell.folder, shell.environment  # type: ignore[attr-defined]
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        end = time.monotonic() + 200
        while time.monotonic() < end:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    return said
            time.sleep(0.5)
        raise AssertionError("the UI does not answer")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=200)


def test_from_a_folder_of_images_to_predictions(shell: Shell, make_stripes: Callable[..., Path]) -> None:
    folder: Path = shell.folder  # type: ignore[attr-defined]
    make_stripes(folder / "my images", {"crack": 20, "pore": 20})
    looked = shell("thawline look 'my images'")
    steps = [line.strip() for line in looked.split("\nNext:\n")[1].splitlines() if line.startswith("  thawline ")]
    assert steps == ["thawline search 'images=my images' experiment=quick", "thawline search 'images=my images'"]
    assert (folder / "mlruns" / "look" / "my images.png").is_file()

    searched = shell(f"{steps[1]} {shlex.join(SHORT)}")
    result = re.search(r"^Result: \d+ of 8 new images right \(.*\); .*\.$", searched, re.MULTILINE)
    assert result, searched
    (so_far,) = re.findall(r"^Report so far, written again after each trial: (.+)$", searched, re.MULTILINE)
    (report,) = re.findall(r"^Report: (.+)$", searched, re.MULTILINE)
    assert so_far == report and (folder / report).is_file()  # the path is whole, on one line of a page of 80 columns
    (ui,) = re.findall(r"^All trials: (.+)$", searched, re.MULTILINE)
    assert ui == "thawline ui"
    said = _opens(ui, shell)
    assert said.startswith("Trials of experiment thawline, the best first: http://127.0.0.1:")
    assert "viewStateShareKey=trials" in said

    predicted = shell("thawline predict 'images=my images' to=answers.csv")
    assert "model: version 1, the newest, for there is no champion yet" in predicted
    assert "By class: " in predicted and "Doubtful: " in predicted
    explained = shell("thawline explain 'images=my images/crack' figures=1 to=maps")
    assert "Explained 20 of 20 images" in explained and (folder / "maps" / "index.html").is_file()
    assert "Report: again.html" in shell("thawline report 'study=first use' to=again.html")
    assert "has had no champion yet" in shell("thawline retrain history")
    assert "Next times" in shell("thawline schedule cron=@monthly times=1 'images=my images'")
    assert "freed." in shell("thawline clean")
    assert not any((folder / "mlruns" / "cache").iterdir())
    again = shell(f"{steps[1]} {shlex.join(SHORT)}")  # the caches are made again
    assert "complete with 2 finished trials" in again and result[0] in again


def test_what_is_printed_where_nothing_is_there_yet(shell: Shell) -> None:
    for command in ("ui", "predict images=.", "report study=x", "retrain rollback reason=x"):
        said = shell(f"thawline {command} root=none", code=2).replace("Loading PyTorch, Lightning and MLflow.\n", "")
        (line,) = (one for one in said.splitlines() if not one.startswith("  after "))
        assert "python" not in line
