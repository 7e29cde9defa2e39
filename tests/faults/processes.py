"""`python -m search` as real processes: started, watched, killed; who is left, and who held what."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

__all__ = ["Command", "held_locks", "prepare", "session"]

_LATER = ("hydra", "rich.console", "sklearn.model_selection", "safetensors.torch", "timm", "pandas", "torchmetrics")
_SUBREAPER = 36  # prctl: orphans of ours become our children, so that none is left to a process that reaps nobody
_OVERRIDE = 1 << 1 | 1 << 2  # capabilities by which root may write what is read-only


def prepare() -> None:
    """Import what a search imports; commands are forks of this process, for starting one anew takes five seconds."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    import_module("search.pipeline")
    for name in _LATER:
        import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError("importing the search starts threads, which a fork would lose")
    gc.freeze()  # or the first collection of every fork copies the pages of all that was imported


@dataclass
class Command:
    """One call of `python -m search`, in a session and a process group of its own.

    Attributes:
        arguments: of the search.
        folder: where it runs; its output goes to the files out and err there, its temporary files to tmp/.
        powerless: whether it obeys permissions though it runs as root.
        largest_file: bytes; None sets no limit.
        environment: variables that are read before Python runs; the command is no fork then, and starts slowly.
        pid: of the driver.
        code: exit code, negative for a signal; None while it runs.
    """

    arguments: Sequence[str]
    folder: Path
    powerless: bool = False
    largest_file: int | None = None
    environment: Mapping[str, str] | None = None
    pid: int = 0
    code: int | None = None
    started: float = field(default_factory=time.monotonic)

    def start(self) -> Command:
        """Fork and run."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        for name in ("out", "err"):
            (self.folder / name).write_bytes(b"")  # what an earlier one said is not this one's
        self.pid = os.fork()
        if not self.pid:
            self._become()
        return self

    def _become(self) -> None:
        """The child: its session, its streams, its limits; never returns."""
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with &
            os.chdir(self.folder)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ["TMPDIR"] = str(self.folder / "tmp")
            tempfile.tempdir = None
            if self.powerless:
                _give_up_power()
            if self.largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file))
            if self.environment is not None:
                path = {"PYTHONPATH": str(Path(__file__).parents[2])}
                words = [sys.executable, "-m", "search", *self.arguments]
                os.execve(sys.executable, words, {**os.environ, **path, **self.environment})  # noqa: S606
            # Worker processes import the main module again: the command's, not the one that injects faults.
            sys.modules["__main__"] = import_module("search.__main__")
            sys.argv = ["search", *self.arguments]
            code = sys.modules["__main__"].main(list(self.arguments))
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # taking down every module that was imported would take seconds

    def running(self) -> bool:
        """Whether the driver is alive; notes its exit code when it is not."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, seconds: float) -> int:
        """The exit code; SIGKILL to the whole session and -1 when it takes longer."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                self.signal_all(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -1
                break
            time.sleep(0.01)
        return self.code if self.code is not None else -1

    def signal_all(self, number: int) -> None:
        """To every process of the group, as a terminal does."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def workers(self) -> list[int]:
        """Worker processes of the driver, alive."""
        found = []
        for pid in session(self.pid):
            try:
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except OSError:
                continue
        return found

    def left(self, seconds: float) -> list[int]:
        """Processes of the session, dead ones that nobody has waited for too, after at most so many seconds."""
        deadline = time.monotonic() + seconds
        while (pids := session(self.pid)) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.waitpid(pid, os.WNOHANG)  # orphans are ours to bury
                except ChildProcessError:
                    continue
            time.sleep(0.02)
        return pids

    @property
    def out(self) -> str:
        """What it printed."""
        return (self.folder / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it printed on stderr."""
        return (self.folder / "err").read_text(errors="replace")


def session(leader: int) -> list[int]:
    """All processes of a session, zombies included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def held_locks(root: Path) -> list[str]:
    """Lock files under `root` that some process holds."""
    held = []
    for path in (p for p in root.rglob("*") if p.name.endswith(".lock") and p.is_file()):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(str(path.relative_to(root)))
    return held


def _give_up_power() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for number in range(3):
        sets[number] &= ~_OVERRIDE
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
