"""Trials on the machines of a Ray cluster: each worker is an actor that lives as long as the search.

The driver stays one process, which alone owns study and sampler, so a search is what it is with the other executors.
Ray places actors, carries messages and pixels, and says which actor is gone; whatever a worker dies of costs the trial
it was training, and another takes its place, on another node where its own is gone. What ran out of a node's memory is
such a death too. Workers count from the moment in which their node has room for them, so machines may come and go.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.errors import InputError, printable
from search.executor.pool import STARTING_SECONDS, PoolWorker, WorkerPool
from search.executor.protocol import Failed, Job, Refit
from search.executor.ray_actor import Greeting, TrialActor, versions
from search.executor.ray_head import HeadWatch, reachable
from search.executor.worker import Channel, ChannelClosedError, WorkerPlan
from search.settings.schema import ExecutorSettings
from search.trial.task import Task

__all__ = ["RayExecutor", "check", "make"]

_CLOSING_SECONDS = 5.0
_MOST_STILLBORN = 3
_MOST_WORKERS = 256
_PREVIEW_SECONDS = 10.0  # without room for a worker before the user is told
_CONNECTING_SECONDS = 10.0
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}  # see docs/architecture.md
_LONGEST_CAUSE = 300
_DISCARD = "http://127.0.0.1:9"  # the discard port: nobody listens there


class _Line:
    """The calls of an actor as a channel; a call that fails is a channel that is closed.

    Attributes:
        waiting: the call that is under way; ready when it has something to say.
        death: what the actor died of, once it is known.
    """

    def __init__(self, actor: Any) -> None:
        self.actor, self.death = actor, ""
        self.waiting: Any = None
        self._sent = 0
        self._read: deque[object] = deque()

    def channel(self) -> Channel:
        """As the driver's end of a line."""
        return Channel(self.send, self.receive, self.waits)

    def send(self, message: object) -> None:
        """Send it; that the actor is gone is found by `receive`."""
        self.actor.send.remote(self._sent, message)
        self._sent += 1

    def receive(self) -> object:
        """The next message; waits for one."""
        if not self._read:
            self._read.extend(self.result())
            self.waiting = self.actor.receive.remote()
        return self._read.popleft()

    def result(self) -> Any:
        """What the call under way gives.

        Raises:
            ChannelClosedError: the actor is gone, cannot be reached, or never was.
        """
        import ray

        try:
            return ray.get(self.waiting)
        except ray.exceptions.RayError as error:
            self.death = _cause(error)
            raise ChannelClosedError from error

    def waits(self) -> bool:
        """Whether there is something to receive."""
        import ray

        return bool(self._read) or bool(ray.wait([self.waiting], timeout=0)[0])

    @property
    def unread(self) -> bool:
        """Whether a message is here already."""
        return bool(self._read)


class _Worker(PoolWorker):
    def __init__(self, line: _Line, on_note: Callable[[str], None]) -> None:
        super().__init__(line.channel(), on_note)
        self.line = line
        self.host = ""  # empty before it has greeted


class RayExecutor(WorkerPool[_Worker]):
    """Executor of actors; Ray must be initialised.

    Args:
        task: of the study.
        workers: how many; they count once they have room.
        gpus: share of a GPU that each takes.
        threads: cores that each takes, and trains with.
        shared: folder of the study's checkpoints, which every node must have under the same path.
        on_note: called with a worker's line for the user, once a line.
        head: what watches the cluster's head; None watches it from now on.
        leave: called when all is given back.

    Raises:
        InputError: here and in `poll`: a node lacks the shared folder, a file of weights, a token or the same versions;
            no node has room for a worker for `executor.silence_seconds`, or two minutes where that is less; the
            cluster's head is gone.
    """

    def __init__(
        self,
        task: Task,
        *,
        workers: int,
        gpus: float,
        threads: int,
        shared: Path,
        on_note: Callable[[str], None] = lambda _: None,
        head: HeadWatch | None = None,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        import ray

        settings = task.settings
        super().__init__(settings, on_note)
        self._leave = leave
        self._head = head or HeadWatch(ray.get_runtime_context().gcs_address)
        self._queued: deque[Job | Refit] = deque()  # no worker has room for them
        self._needs = {"num_cpus": threads, "num_gpus": gpus}
        self._shared = shared
        plan = WorkerPlan(
            settings=settings,
            index=task.index,
            pixels=np.zeros((0, 1, 1, 1), np.uint8),
            splits=task.splits,
            cache=settings.executor.node_cache or Path(),
            threads=threads,
            device=None if gpus else "",
            start=task.start.absolute() if task.start is not None else None,
        )
        weights = settings.model.weights
        self._files = [Path(weights)] if weights not in ("imagenet", "none") else []
        self._files += [plan.start] if plan.start is not None else []
        self._plan, self._pixels = ray.put(plan), ray.put(np.asarray(task.images.pixels))
        self._class = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=4)(TrialActor)
        shared.mkdir(parents=True, exist_ok=True)
        self._workers = [self._spawn() for _ in range(workers)]
        try:
            self._wait_for_first()
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        """How many jobs may run at the same time now: as many as there are workers whose node has room for them."""
        return max(1, sum(bool(worker.host) for worker in self._workers))

    def submit(self, job: Job | Refit) -> None:
        """See `Executor.submit`."""
        self._queued.append(job)
        self._hand_out()

    def cancel(self, slot: int) -> None:
        """See `Executor.cancel`."""
        super().cancel(slot)
        self._queued = deque(job for job in self._queued if job.slot != slot)

    def close(self) -> None:
        """End the actors, busy ones after their batch; kill what stays. All are gone with their head."""
        import ray

        self._head.close()
        if self._head.lost:
            return
        actors = [worker.line.actor for worker in self._workers]
        placed = [worker.line.actor for worker in self._workers if worker.host]
        self._workers.clear()
        with suppress(ray.exceptions.RayError):  # dead ones are what is wanted
            if placed:
                ending = [actor.end.remote(_CLOSING_SECONDS) for actor in placed]
                ray.wait(ending, num_returns=len(ending), timeout=_CLOSING_SECONDS)
            for actor in actors:
                ray.kill(actor, no_restart=True)
        self._leave()

    def _spawn(self) -> _Worker:
        actor = self._class.options(
            **self._needs, scheduling_strategy="SPREAD", runtime_env={"env_vars": _ENVIRONMENT}
        ).remote(self._plan, self._pixels, Path.cwd())
        line = _Line(actor)
        line.waiting = actor.greet.remote(self._shared, self._files)
        return _Worker(line, self._note)

    def _wait_for_first(self) -> None:
        """Return when a node has room for a worker: what is wrong with the nodes is said before anything else."""
        began, told = time.monotonic(), False
        patience = max(self._silence, STARTING_SECONDS)  # one that has room may still be importing torch
        while not any(worker.host for worker in self._workers):
            self._receive(0.2)
            waited = time.monotonic() - began
            if waited > patience:
                raise InputError(
                    f"no node of the Ray cluster had room for a worker ({self._room()}) for {patience:g} s "
                    f"(executor.silence_seconds, {STARTING_SECONDS:g} at least); {_resources()}"
                )
            if waited > _PREVIEW_SECONDS and not told:
                told = True
                self._note(f"Waiting for a node that has room for a worker ({self._room()}); {_resources()}.")

    def _room(self) -> str:
        gpus = self._needs["num_gpus"]
        return f"{self._needs['num_cpus']} CPU" + (f", {gpus:g} GPU" if gpus else "")

    def _receive(self, timeout: float) -> None:
        """Wait for something to happen; what every worker has said is read."""
        import ray

        self._head.check()
        self._end_overdue(timeout + 1.0)
        by_call = {worker.line.waiting: worker for worker in self._workers}
        ready, rest = ray.wait(list(by_call), timeout=timeout)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for call in ready:
            self._hear(by_call[call])
        self._hand_out()

    def _hear(self, worker: _Worker) -> None:
        try:
            if not worker.host:
                worker.host = self._checked(worker.line.result())
                worker.line.waiting = worker.line.actor.receive.remote()
                self._stillborn = 0
                return
            worker.silent = 0.0
            while True:
                if (event := worker.take(worker.channel.receive())) is not None:
                    self._events.append(event)
                if not worker.line.unread:
                    return
        except ChannelClosedError:
            self._replace(worker)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._queued and worker.idle and worker.host:
                worker.submit(self._queued.popleft())

    def _checked(self, greeting: Greeting) -> str:
        """Name of a worker's node, which has all that a trial needs.

        Raises:
            InputError: it has not.
        """
        host = printable(greeting.host)
        if not greeting.guarded:
            raise InputError(
                f"node {host} of the Ray cluster asks for no token, so whoever reaches its ports can run code there; "
                "start the cluster with RAY_AUTH_MODE=token (docs/scaling.md)"
            )
        try:
            (self._shared / greeting.mark).unlink()
            missing = greeting.missing
        except OSError:  # it was made in another folder of that name
            missing = (*greeting.missing, str(self._shared))
        if missing:
            raise InputError(
                f"node {host} of the Ray cluster does not share {printable(missing[0])} with this machine; "
                "mount it at the same path on every node (docs/scaling.md)"
            )
        for name, here in versions().items():
            if (there := greeting.versions[name]) != here:
                raise InputError(f"node {host} of the Ray cluster has {name} {printable(there)}, this machine {here}")
        return greeting.host

    def _name(self, worker: _Worker) -> str:
        return f"a worker on {printable(worker.host)}"

    def _end(self, worker: _Worker) -> None:
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.kill(worker.line.actor, no_restart=True)  # one that cannot be reached may come back
        if worker.slot is not None:
            why = worker.ended or f"WorkerDied: {self._name(worker)} ended: {worker.line.death}"
            self._events.append(Failed(worker.slot, why))
        else:
            self._stillborn += 1
            if self._stillborn > _MOST_STILLBORN:
                raise InputError(f"workers on Ray end before they are given anything to do: {worker.line.death}")
        self._workers[self._workers.index(worker)] = self._spawn()


def make(task: Task, on_note: Callable[[str], None]) -> RayExecutor:
    """See `search.executor.registry`.

    Raises:
        InputError: Ray is not installed, no cluster answers, or its nodes are not fit for the search.
    """
    settings = task.settings.executor
    check(settings)
    # Ray waits for ever for a head that has gone since `check` asked for it.
    named = ":" in settings.address and not settings.address.startswith("ray://")
    head = HeadWatch(settings.address) if named else None
    leave = _connect(settings.address)
    try:
        nodes = _nodes()
        cores, cards = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
        gpus = settings.gpus
        if gpus is None:
            gpus = 1.0 if cards and task.settings.trainer.accelerator != "cpu" else 0.0
        threads = settings.threads or (max(1, int(cores * gpus / cards)) if gpus and cards else 1)
        workers = settings.workers or min(_MOST_WORKERS, max(1, sum(_room_of(node, threads, gpus) for node in nodes)))
        shared = task.settings.tracking.root.absolute() / "studies"
        return RayExecutor(
            task, workers=workers, gpus=gpus, threads=threads, shared=shared, on_note=on_note, head=head, leave=leave
        )
    except BaseException:
        if head is not None:
            head.close()
        if head is None or not head.lost:  # it would not come back from a lost one
            leave()
        raise


def check(settings: ExecutorSettings) -> None:
    """Look whether there is a Ray and a cluster, before anything is written; Ray itself is not loaded.

    Raises:
        InputError: there is not, or no token to show it.
    """
    if find_spec("ray") is None:
        raise InputError("executor=ray needs Ray, which is not installed: pip install 'thawline[ray]'")
    _take_token(own=settings.address == "local")
    if ":" in settings.address and (why := reachable(settings.address.removeprefix("ray://"), _CONNECTING_SECONDS)):
        raise InputError(f"no Ray cluster answers at executor.address={settings.address} ({why})")


def _connect(address: str) -> Callable[[], object]:
    """Connect this process to the cluster, unless it is connected; returns what gives the connection back.

    Raises:
        InputError: nothing answers there.
    """
    # Before Ray is imported, which reads them once. It reports usage to its makers by default.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": _DISCARD}
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: trials would wait for everything else
    import ray

    if ray.is_initialized():
        return lambda: None
    ours = {"include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))} if address == "local" else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="error", **ours)
    except (ConnectionError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
        reason = printable(str(error).strip().splitlines()[0])
        raise InputError(f"executor.address={address} leads to no Ray cluster: {reason}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the search with its books open
    # It would print the last twenty lines of a node's log where that dies, which the driver tells in one.
    ray._private.worker._worker_logs_enabled = False
    shutdown: Callable[[], object] = ray.shutdown
    return shutdown


def _take_token(*, own: bool) -> None:
    """Let this process show the cluster its token.

    Args:
        own: whether the cluster is started here, with a new token if there is none.

    Raises:
        InputError: there is none, or Ray is told to do without.
    """
    if (mode := os.environ.setdefault("RAY_AUTH_MODE", "token")).lower() != "token":
        raise InputError(
            f"executor=ray needs token authentication: RAY_AUTH_MODE=token, got {printable(mode)!r}; Ray's ports "
            "listen on every network, and whoever reaches them can run code (docs/scaling.md)"
        )
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    if not (Path.home() / ".ray" / "auth_token").is_file():
        if not own:
            raise InputError(
                "executor=ray needs the cluster's token, in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names "
                "or in ~/.ray/auth_token (docs/scaling.md)"
            )
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _nodes() -> list[dict[str, float]]:
    """Resource -> how much of it there is, of each node."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _room_of(node: Mapping[str, float], threads: int, gpus: float) -> int:
    """How many workers a node has room for."""
    by_cores = int(node.get("CPU", 0.0) // threads)
    return min(by_cores, int(node.get("GPU", 0.0) / gpus + 1e-6)) if gpus else by_cores


def _resources() -> str:
    nodes = _nodes()
    counted = ", ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in ("CPU", "GPU"))
    return f"it has {counted} on {len(nodes)} node{'s' * (len(nodes) != 1)}"


def _cause(error: Exception) -> str:
    """What ended an actor, in one line of what Ray says in many."""
    text = str(error)
    if "low on memory" in text:
        return "its node ran out of memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    line = next((line for line in lines if line.startswith("The actor is dead because")), lines[-1])
    return printable(line if len(line) <= _LONGEST_CAUSE else f"{line[:_LONGEST_CAUSE]}…")
