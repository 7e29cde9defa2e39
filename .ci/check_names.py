"""Refuse package-registry hosts and machine paths in committed files: the project must not depend on either."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Split so that this file does not find itself.
HOSTS = ("python" + "hosted", "pypi" + r"\.org", "npm" + r"js\.org", "debian" + r"\.org", "crates" + r"\.io")
PATHS = r"(?<![\w.])/(?:work|farm|home|root|tmp)/[a-z]"
PATTERN = re.compile("|".join((*HOSTS, PATHS)))
BINARY = {".png", ".jpg", ".npz", ".ico", ".whl", ".parquet", ".xz"}


def main() -> int:
    """Print every place found; 1 if there is any."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, text=True).stdout
    found = 0
    for name in filter(None, listed.split("\0")):
        path = Path(name)
        if path.suffix in BINARY or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if PATTERN.search(line):
                print(f"{name}:{number}: names a registry host or a machine path: {line.strip()[:120]}")
                found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
