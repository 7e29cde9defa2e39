"""Faults that end processes: signals to driver and workers, at random times."""

from __future__ import annotations

import os
import shutil
import signal
import time

from tests.faults.processes import Command
from tests.faults.scene import LONGEST, BrokenPromiseError, Scene, open_runs

__all__ = [
    "KILLS",
    "TooLateError",
    "ctrl_c_twice",
    "kill_now",
    "stop_driver",
    "strike",
    "terminate",
    "wait_for_trial",
]

_SIGTERM_SECONDS = 5.0
_WORKER_SECONDS = 60  # one that is importing PyTorch when its driver dies notices afterwards


class TooLateError(Exception):
    """The command had ended before anything could happen to it."""


def strike(scene: Scene, command: Command, share: float | None = None) -> float:
    """Let the command run for a random time; returns the seconds."""
    waited = scene.sleep(share)
    if not command.running():
        raise TooLateError
    return waited


def kill_now(scene: Scene, command: Command) -> None:
    """SIGKILL to the driver alone."""
    os.kill(command.pid, signal.SIGKILL)
    command.wait(10)
    scene.killed = True


def _kill_driver(scene: Scene) -> None:
    command = scene.start()
    waited = strike(scene, command)
    kill_now(scene, command)
    scene.notes.append(f"driver killed after {waited:.2f} s")
    if left := command.left(_WORKER_SECONDS):
        raise BrokenPromiseError(f"{left} outlive a killed driver")
    scene.finish()


def _kill_first_driver(scene: Scene) -> None:
    """The first search of all, which makes the store."""
    shutil.rmtree(scene.root)
    command = scene.start()
    waited = strike(scene, command, scene.random.uniform(0.1, 1.5))
    kill_now(scene, command)
    scene.notes.append(f"the first driver killed after {waited:.2f} s")
    scene.finish()


def _kill_driver_three_times(scene: Scene) -> None:
    for _ in range(3):
        command = scene.start()
        waited = scene.sleep()
        if not command.running():
            break
        kill_now(scene, command)
        scene.notes.append(f"driver killed after {waited:.2f} s")
    if not scene.notes:
        raise TooLateError
    scene.finish()


def _kill_all(scene: Scene) -> None:
    command = scene.start()
    waited = strike(scene, command)
    command.signal_all(signal.SIGKILL)
    command.wait(10)
    scene.killed = True
    scene.notes.append(f"driver and workers killed after {waited:.2f} s")
    scene.finish()


def terminate(scene: Scene) -> None:
    """SIGTERM: it closes its books, and goes on when it is called again."""
    command = scene.start()
    waited = strike(scene, command)
    os.kill(command.pid, signal.SIGTERM)
    started = time.monotonic()
    code = command.wait(LONGEST)
    took = time.monotonic() - started
    scene.notes.append(f"SIGTERM after {waited:.2f} s, left with {code} after {took:.2f} s")
    if code == 0:  # it was printing its last lines
        return
    if code not in (143, -signal.SIGTERM):
        raise BrokenPromiseError(f"SIGTERM ended with {code}: {command.err[-600:]}")
    if took > _SIGTERM_SECONDS * _slowness():
        raise BrokenPromiseError(f"SIGTERM took {took:.1f} s")
    if command.err.strip():
        raise BrokenPromiseError(f"SIGTERM said {command.err[-600:]}")
    if left := open_runs(scene.root):
        raise BrokenPromiseError(f"{left} runs are open after SIGTERM")
    scene.finish()


def _slowness() -> float:
    """How many processes want each core: what takes 5 s alone takes longer beside others."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def _ctrl_c(scene: Scene, times: int) -> None:
    command = scene.start()
    waited = strike(scene, command)
    for _ in range(times):
        command.signal_all(signal.SIGINT)
        time.sleep(0.1)
    code = command.wait(LONGEST)
    scene.notes.append(f"Ctrl-C {('once', 'twice')[times - 1]} after {waited:.2f} s, left with {code}")
    if code == 0:  # the trials were over: the first Ctrl-C lets what runs come to its end
        return
    if code != 130 or "Traceback" in command.err:
        raise BrokenPromiseError(f"Ctrl-C ended with {code}: {command.err[-600:]}")
    if left := open_runs(scene.root):
        raise BrokenPromiseError(f"{left} runs are open after Ctrl-C")
    scene.finish()


def _ctrl_c_once(scene: Scene) -> None:
    _ctrl_c(scene, 1)


def ctrl_c_twice(scene: Scene) -> None:
    """Ctrl-C twice: it closes its books, and goes on when it is called again."""
    _ctrl_c(scene, 2)


def _worker_of(scene: Scene, command: Command) -> int:
    deadline = time.monotonic() + LONGEST
    while command.running() and time.monotonic() < deadline:
        if workers := command.workers():
            return scene.random.choice(workers)
        time.sleep(0.05)
    raise TooLateError


def _kill_worker(scene: Scene) -> None:
    command = scene.start()
    wait_for_trial(command)
    strike(scene, command, scene.random.uniform(0.0, 0.2))
    os.kill(_worker_of(scene, command), signal.SIGKILL)
    scene.killed = True
    scene.notes.append("worker killed")
    if (code := command.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"a killed worker ended the search with {code}: {command.err[-600:]}")


def _hang_worker(scene: Scene) -> None:
    """A worker that stands still: its trial's time runs out, another takes its place."""
    _stop_worker(scene, "search.trial_seconds=20")


def _silent_worker(scene: Scene) -> None:
    """The same without a limit to a trial: it gives no sign of life."""
    _stop_worker(scene, "executor.silence_seconds=10")


def _stop_worker(scene: Scene, setting: str) -> None:
    command = scene.start(setting)
    wait_for_trial(command)
    worker = _worker_of(scene, command)
    os.kill(worker, signal.SIGSTOP)
    scene.killed = True
    scene.notes.append("worker stopped")
    if (code := command.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"a worker that hung ended the search with {code}: {command.err[-600:]}")
    if worker in command.left(0):
        raise BrokenPromiseError("the worker that hung is still there")


def stop_driver(scene: Scene) -> None:
    """Ctrl-Z and fg, with or without the workers: nothing is lost, and no worker is taken for one that hangs."""
    command = scene.start("executor.silence_seconds=5")
    if "executor=inline" not in scene.arguments:
        wait_for_trial(command)
    waited = strike(scene, command)
    alone, seconds = scene.random.random() < 0.5, scene.random.uniform(6, 9)
    stop = os.kill if alone else os.killpg
    stop(command.pid, signal.SIGSTOP)
    time.sleep(seconds)
    stop(command.pid, signal.SIGCONT)
    who = "the driver" if alone else "all its processes"
    scene.notes.append(f"{who} stopped for {seconds:.1f} s after {waited:.2f} s")
    if (code := command.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"a driver that was stopped ended with {code}: {command.err[-600:]}")
    if "WorkerSilent" in scene.journal.read_text():
        raise BrokenPromiseError("a worker was ended because the driver was stopped")


def wait_for_trial(command: Command) -> None:
    """Workers take seconds to start; wait for the first line of a trial."""
    deadline = time.monotonic() + LONGEST
    while command.running() and time.monotonic() < deadline:
        if "\ntrial " in command.out:
            return
        time.sleep(0.05)
    if command.code:
        raise BrokenPromiseError(f"it ended with {command.code} before its first trial: {command.err[-600:]}")
    raise TooLateError


KILLS = {
    "driver killed": _kill_driver,
    "driver killed while the store is made": _kill_first_driver,
    "driver killed with evidence and report": _kill_driver,
    "driver killed three times": _kill_driver_three_times,
    "SIGTERM": terminate,
    "Ctrl-C once": _ctrl_c_once,
    "Ctrl-C twice": ctrl_c_twice,
    "worker killed": _kill_worker,
    "worker hangs": _hang_worker,
    "worker silent": _silent_worker,
    "driver stopped": stop_driver,
    "driver stopped beside its workers": stop_driver,
    "driver killed beside its workers": _kill_driver,
    "driver and workers killed": _kill_all,
    "SIGTERM beside workers": terminate,
    "Ctrl-C twice beside workers": ctrl_c_twice,
}
