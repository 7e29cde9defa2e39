"""`just setup`: which PyTorch is installed, and that it stays. Programs that write down what they are told stand in."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> {told}
for argument in "$@"; do
    case "$argument" in */packages.txt) cp "$argument" {packages} ;; esac
done
"""

pytestmark = pytest.mark.skipif(shutil.which("just") is None, reason="needs just")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The files that an installation reads, and an environment whose programs only write."""
    for name in ("justfile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "uv"):
        (programs / name).write_text(PROGRAM.format(told=tmp_path / "told", packages=tmp_path / "packages"))
        (programs / name).chmod(0o755)
    return tmp_path


def _setup(place: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What `just setup` said, and what it told the programs."""
    (place / "told").unlink(missing_ok=True)
    done = subprocess.run(["just", "setup", *arguments], cwd=place, capture_output=True, text=True, timeout=120)
    return done, (place / "told").read_text().splitlines() if (place / "told").exists() else []


def _packages(place: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (place / "packages").read_text(), re.MULTILINE))


def test_the_lock_is_installed_once(place: Path) -> None:
    done, told = _setup(place)
    assert done.returncode == 0, done.stderr
    assert {"torch", "torchvision", "nvidia-cublas", "triton", "mlflow"} <= _packages(place)
    assert not any("--torch-backend" in line for line in told)
    assert _setup(place)[1] == []


def test_pytorch_for_cpus_stays_until_the_other_is_asked_for(place: Path) -> None:
    _setup(place)
    done, told = _setup(place, "cpu")
    assert done.returncode == 0, done.stderr
    lock = (ROOT / "requirements.lock").read_text()
    versions = [re.search(rf"^{name}==\S+", lock, re.MULTILINE)[0] for name in ("torch", "torchvision")]  # type: ignore[index]
    (line,) = (line for line in told if "--torch-backend cpu" in line)
    assert line.endswith(" ".join(versions)) and "--no-deps" in line
    of_the_lock = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    left_out = of_the_lock - _packages(place)
    assert {"torch", "torchvision", "triton"} <= left_out
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in left_out)
    assert "torchmetrics" not in left_out
    assert _setup(place)[1] == []  # every other recipe asks for it too
    assert _setup(place, "locked")[1] and "torch" in _packages(place)


@pytest.mark.parametrize(
    ("arguments", "wheelhouse", "said"),
    [
        (["rocm"], False, "setup: which PyTorch must be cpu, or locked"),
        (["cpu"], True, "setup: wheelhouse/ holds the lock's own PyTorch, got 'cpu'; take locked"),
    ],
)
def test_what_is_not_accepted_changes_nothing(place: Path, arguments: list[str], wheelhouse: bool, said: str) -> None:
    if wheelhouse:
        (place / "wheelhouse").mkdir()
    done, told = _setup(place, *arguments)
    assert done.returncode == 2 and done.stderr.startswith(said), done.stderr
    assert told == [] and not (place / ".venv" / "torch").exists()
