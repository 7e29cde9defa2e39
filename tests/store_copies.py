"""Copies and contents of an MLflow store, taken by a process of its own.

SQLite's locks belong to the process. When a process closes any file descriptor of a database, it loses its locks on it:
so a copy made by the process that also holds MLflow's connections lets other writers damage the database
(https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True)"
_CONTENTS = """
import hashlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
files = sorted(path for path in root.rglob("*") if path.is_file())
print(json.dumps({str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}))
"""


def copy_store(root: Path, to: Path) -> Path:
    """Copy a store into the folder `to`, which is not there yet, and return it."""
    subprocess.run([sys.executable, "-c", _COPY, str(root), str(to)], check=True)
    return to


def contents(root: Path) -> dict[str, str]:
    """Path below the store -> digest, of every file."""
    words = [sys.executable, "-c", _CONTENTS, str(root)]
    found: dict[str, str] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found
