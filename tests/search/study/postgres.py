"""A PostgreSQL server of a test's own, without a port: Debian's binaries, or whatever `pg_ctl` is on the path."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

__all__ = ["Server", "server"]


def _binaries() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = shutil.which("pg_ctl") or (versions[-1] if versions else None)
    return Path(found).resolve().parent if found else None


class Server:
    """A server with an empty database `studies`, whose only user is `thawline`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self.url = f"postgresql+psycopg2://thawline@/studies?host={folder}"
        if os.getuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "thawline", "--no-sync")
        self.start()
        self._run("createdb", "-h", str(folder), "-U", "thawline", "studies")

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-l", f"{self._folder}/log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """End it, its connections too."""
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests of the session."""
    pytest.importorskip("psycopg2")
    if (binaries := _binaries()) is None:
        pytest.skip("there is no PostgreSQL here")
    with TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:  # a short path: sockets want one
        found = Server(binaries, Path(folder))
        yield found
        found.stop()
