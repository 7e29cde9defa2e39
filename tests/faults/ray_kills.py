"""Faults of a search on a Ray cluster: workers, nodes, the head and the driver are killed, stopped and cut off."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from tests.faults.cluster import Cluster
from tests.faults.kills import TooLateError, ctrl_c_twice, kill_now, stop_driver, strike, terminate, wait_for_trial
from tests.faults.processes import Command
from tests.faults.scene import LONGEST, BrokenPromiseError, Scene

__all__ = ["RAY_KILLS", "on_ray"]

_ACTOR_SECONDS = 20.0  # within which the workers of a killed driver must be gone
_CUT_SECONDS = (20.0, 40.0)  # Ray gives a node up after 10 to 20 s
_HEAD_SECONDS = 180.0


def on_ray(scene: Scene, cluster: Cluster, workers: int) -> tuple[str, ...]:
    """Settings that let trials run on the cluster."""
    return (
        "executor=ray", f"executor.address={cluster.address}", f"executor.workers={workers}",
        f"executor.node_cache={scene.folder / 'node-cache'}",
    )  # fmt: skip


def _cluster(scene: Scene) -> Cluster:
    if scene.cluster is None:
        raise ValueError("no cluster")
    return scene.cluster


def _kill_driver(scene: Scene) -> None:
    _kill_drivers(scene, 1)


def _kill_driver_three_times(scene: Scene) -> None:
    _kill_drivers(scene, 3)


def _kill_drivers(scene: Scene, times: int) -> None:
    for _ in range(times):
        command = scene.start()
        waited = scene.sleep()
        if not command.running():
            break
        kill_now(scene, command)
        scene.notes.append(f"driver killed after {waited:.2f} s")
        if left := _cluster(scene).left(_ACTOR_SECONDS):
            raise BrokenPromiseError(f"workers {left} outlive a killed driver by {_ACTOR_SECONDS:g} s")
    if not scene.notes:
        raise TooLateError
    scene.finish()


def _some_worker(scene: Scene, command: Command) -> int:
    """A worker, some time after the first trial."""
    wait_for_trial(command)
    strike(scene, command, scene.random.uniform(0.0, 0.2))
    if not (workers := _cluster(scene).actors()):
        raise TooLateError
    return scene.random.choice(workers)


def _ends_well(command: Command, what: str) -> None:
    if (code := command.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"{what} ended the search with {code}: {command.err[-600:]}")


def _kill_worker(scene: Scene) -> None:
    command = scene.start()
    os.kill(_some_worker(scene, command), signal.SIGKILL)
    scene.notes.append("worker killed")
    _ends_well(command, "a killed worker")


def _hang_worker(scene: Scene) -> None:
    """A worker that stands still: its trial's time runs out, another takes its place."""
    _stop_worker(scene, "search.trial_seconds=20")


def _silent_worker(scene: Scene) -> None:
    """The same without a limit to a trial: it gives no sign of life."""
    _stop_worker(scene, "executor.silence_seconds=10")


def _stop_worker(scene: Scene, setting: str) -> None:
    command = scene.start(setting)
    worker = _some_worker(scene, command)
    os.kill(worker, signal.SIGSTOP)
    scene.notes.append("worker stopped")
    _ends_well(command, "a worker that hung")
    if worker in _cluster(scene).left(10):
        raise BrokenPromiseError("the worker that hung is still there")


def _kill_node(scene: Scene) -> None:
    """A node with a worker loses its power; another of its kind is switched on some time later."""
    cluster, command = _cluster(scene), scene.start()
    _some_worker(scene, command)
    cluster.ask(f"kill {cluster.busy_node()}")
    later = scene.random.uniform(0, 10)
    time.sleep(later)
    cluster.ask("add")
    scene.notes.append(f"node killed, another came after {later:.1f} s")
    _ends_well(command, "a killed node")


def _cut_node_off(scene: Scene) -> None:
    """A node stands still with all its processes until it is given up; then they go on, and may write as before."""
    cluster, command = _cluster(scene), scene.start()
    _some_worker(scene, command)
    position = cluster.busy_node()
    raylet = cluster.raylets[position]
    processes = [*cluster.actors(raylet), raylet]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    seconds = scene.random.uniform(*_CUT_SECONDS)
    time.sleep(seconds)
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    scene.notes.append(f"node cut off for {seconds:.1f} s")
    try:
        _ends_well(command, "a node that was cut off")
    finally:
        cluster.ask(f"kill {position}")
        cluster.ask("add")


def _kill_head(scene: Scene) -> None:
    """The cluster is gone with its head: the search ends with one line, and goes on with another cluster."""
    cluster, command = _cluster(scene), scene.start()
    waited = strike(scene, command)
    cluster.ask("restart")
    code = command.wait(_HEAD_SECONDS)
    scene.notes.append(f"head killed after {waited:.2f} s, left with {code}")
    lines = command.err.strip().splitlines()
    if code and (code != 2 or len(lines) != 1 or "Ray" not in lines[0]):
        raise BrokenPromiseError(f"one line and exit code 2 expected of a lost head, got {code}: {command.err[-600:]}")
    scene.killed = True
    scene.arguments = tuple(
        f"executor.address={cluster.address}" if one.startswith("executor.address=") else one for one in scene.arguments
    )
    scene.finish()


RAY_KILLS = {
    "worker killed": _kill_worker,
    "worker hangs": _hang_worker,
    "worker silent": _silent_worker,
    "node killed": _kill_node,
    "node cut off": _cut_node_off,
    "head killed": _kill_head,
    "driver killed": _kill_driver,
    "driver killed three times": _kill_driver_three_times,
    "driver stopped": stop_driver,
    "SIGTERM": terminate,
    "Ctrl-C twice": ctrl_c_twice,
}
