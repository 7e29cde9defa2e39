"""How commands begin and end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A user that the system does not know, who may read (the interpreter may be in a home folder) and not write.
_AS_NOBODY = (
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", sys.executable,
)  # fmt: skip


def test_no_home_folder_and_no_known_user_is_no_error(tmp_path: Path) -> None:
    if (
        not shutil.which("setpriv")
        or subprocess.run([*_AS_NOBODY, "-c", "import search"], capture_output=True).returncode
    ):
        pytest.skip("needs the right to become another user, who may read this folder")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["-m", "search", "data=folder", "data.path=missing", "executor=inline"]
    done = subprocess.run([*_AS_NOBODY, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("search: data.path=missing is not a folder")
