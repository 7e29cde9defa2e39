"""How commands begin and end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from search.command_line.exits import until_interrupted
from search.command_line.interrupts import graceful_interrupts

# A user that the system does not know, who may read (the interpreter may be in a home folder) and not write.
_AS_NOBODY = (
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", sys.executable,
)  # fmt: skip


def _drawn() -> int:
    """Code in C that is interrupted by a signal and makes an error of its own of it, as Matplotlib's does."""
    with suppress(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    raise ValueError("Invalid bounding box")


def test_sigterm_that_code_in_c_turned_into_an_error_is_still_sigterm() -> None:
    with pytest.raises(SystemExit) as left:
        until_interrupted("search", _drawn)
    assert left.value.code == 143


def test_the_same_where_the_flag_answers() -> None:
    with pytest.raises(SystemExit) as left, graceful_interrupts(lambda _: None) as stopping:
        try:
            _drawn()
        except ValueError:
            stopping()
    assert left.value.code == 143


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python ARGUMENTS` as that user, without a home folder but for `home`, in a folder of the user's own."""
    probe = [*_AS_NOBODY, "-c", "import search"]
    if not shutil.which("setpriv") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs the right to become another user, who may read this folder")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    folder = tmp_path / "own"
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    def run(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        words, own = [*_AS_NOBODY, *arguments], {} if home is None else {"HOME": str(home)}
        return subprocess.run(words, cwd=folder, env=environment | own, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow  # processes of their own that load PyTorch
@pytest.mark.long  # nine of them
def test_no_home_folder_and_no_known_user_is_no_error(
    as_nobody: Callable[..., subprocess.CompletedProcess[str]], stripes: Path, tmp_path: Path
) -> None:
    refused = as_nobody("-m", "search", "data=folder", "data.path=missing", "executor=inline")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("search: data.path=missing is not a folder")
    done = as_nobody(
        "-m", "search", "search.study=s", "data=folder", f"data.path={stripes}", "data.size=[32,32]", "model=lenet5",
        "search.trials=1",
        "trainer.epochs=1", "executor.workers=1", "search.evidence=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "Report: mlruns/" in done.stdout
    image = next(path for path in stripes.rglob("*.png"))
    notebook = "import sys; from search import load_study; load_study('s').explain(sys.argv[1])"
    for number, words in enumerate([
        ("-m", "search.predict", f"images={image}", "model=1"),
        ("-m", "explain", f"images={image}", "model=1", "figures=1"),
        ("-m", "search.report", "study=s"),
        ("-m", "search.retrain", "history"),
        ("-m", "search.schedule", "cron=@daily", "times=1"),
        ("-m", "search.settings.reference"),
        ("-c", notebook, str(image)),
    ]):  # fmt: skip
        done = as_nobody(*words, home=(None, tmp_path / "missing", stripes)[number % 3])
        said = done.stderr if words[1] != "search.predict" else ""  # it says there what it has done
        assert (done.returncode, said) == (0, ""), (words, done.stderr)
