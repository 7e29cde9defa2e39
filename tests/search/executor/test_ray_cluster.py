"""Whole searches on a cluster of three nodes: the trials of this process; workers, nodes and drivers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from search.study.storage import open_storage
from search.tracking.tracker import tracking_uri
from tests.search.executor.ray_nodes import Nodes, actors, cluster, kill_one_actor, no_actor_left
from tests.search.running_search import rest_of, running

__all__ = ["cluster"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS = 6
COMMON = (
    "data=folder", "data.size=[32,32]", "trainer.epochs=8", f"search.trials={TRIALS}", "search.startup_trials=3",
    "search.members=1", "search.stop=never", "search.pruner=halving", "space.default_depths=1",
    "search.evidence=false", "tracking.report=false", "executor.threads=1", "executor.checkpoint_seconds=0",
)  # fmt: skip
SAME = ("slot", "attempt", "loss", "losses", "value", "epochs", "outcome", "reason", "waiting")


def _study(root: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(root / "studies" / f"{name}.journal"))


def _trials(root: Path, name: str) -> list[tuple[Any, ...]]:
    """All that does not depend on the clock."""
    return [
        (t.number, t.state, t.params, t.intermediate_values, t.values, {k: t.user_attrs.get(k) for k in SAME})
        for t in _study(root, name).trials
    ]


@pytest.fixture
def command(stripes: Path, tracking_root: Path, cluster: Nodes) -> Callable[..., list[str]]:
    def make(name: str, *more: str) -> list[str]:
        ray = ("executor=ray", f"executor.address={cluster.address}")
        own = (f"data.path={stripes}", f"tracking.root={tracking_root}", f"search.study={name}")
        return [sys.executable, "-m", "search", *COMMON, *own, *(more or ray)]

    return make


def _finish(process: subprocess.Popen[str]) -> str:
    said = rest_of(process)
    assert process.returncode == 0, said
    return said


def _assert_whole(root: Path, name: str, lost: int | None) -> None:
    """Every slot has one finished trial with one closed run, nothing is left running; `lost` attempts failed."""
    study = _study(root, name)
    states = Counter(t.state.name for t in study.trials)
    assert states["RUNNING"] == states["WAITING"] == 0
    done = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(t.user_attrs["slot"] for t in done) == list(range(TRIALS))
    if lost is not None:
        assert states["FAIL"] == lost
    uri = tracking_uri(root)
    client = MlflowClient(uri, registry_uri=uri)
    parent = study.user_attrs["parent"]
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000)
    assert Counter(run.info.status for run in runs)["FINISHED"] == TRIALS == len({t.user_attrs["run_id"] for t in done})
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    assert client.get_run(parent).info.status == "FINISHED"
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert all(run.data.tags["node"] and run.data.tags["cpu"] for run in finished)
    left = {path.name for path in (root / "studies").iterdir() if path.name.startswith((".ray-", f"{name}."))}
    assert left == {f"{name}.journal", f"{name}.lock"}
    assert no_actor_left()


@pytest.mark.long
def test_one_worker_gives_bit_for_bit_the_trials_of_this_process(
    command: Callable[..., list[str]], tracking_root: Path, cluster: Nodes
) -> None:
    ray = command("on-ray", "executor=ray", f"executor.address={cluster.address}", "executor.workers=1")
    for one in (ray, command("on-inline", "executor=inline")):
        done = subprocess.run(one, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr + done.stdout
        assert "raylet" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert _trials(tracking_root, "on-ray") == _trials(tracking_root, "on-inline")
    _assert_whole(tracking_root, "on-ray", lost=0)


@pytest.mark.long
def test_a_worker_that_is_killed_costs_one_attempt(command: Callable[..., list[str]], tracking_root: Path) -> None:
    with running(command("worker-killed")) as process:
        kill_one_actor()
        _finish(process)
    lost = [t for t in _study(tracking_root, "worker-killed").trials if t.state.name == "FAIL"]
    assert len(lost) <= 1  # it may have had nothing to do just then
    assert all("WorkerDied: a worker on " in t.user_attrs["error"] for t in lost)
    _assert_whole(tracking_root, "worker-killed", lost=len(lost))


@pytest.mark.long
def test_a_node_that_is_killed_costs_the_trials_on_it(
    command: Callable[..., list[str]], tracking_root: Path, cluster: Nodes
) -> None:
    try:
        with running(command("node-killed")) as process:
            cluster.kill()
            said = _finish(process)
    finally:
        cluster.add()
    assert "raylet" not in said
    _assert_whole(tracking_root, "node-killed", lost=None)
    assert sum(t.state.name == "FAIL" for t in _study(tracking_root, "node-killed").trials) <= 1


@pytest.mark.long
def test_a_driver_that_is_killed_takes_its_workers_along_and_the_same_command_goes_on(
    command: Callable[..., list[str]], tracking_root: Path
) -> None:
    with running(command("driver-killed")) as process:
        assert actors()
        process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert no_actor_left(), actors()
    assert time.monotonic() - began < 20
    done = subprocess.run(command("driver-killed"), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "continued with" in done.stdout
    _assert_whole(tracking_root, "driver-killed", lost=None)


@pytest.mark.long
def test_workers_share_a_gpu(command: Callable[..., list[str]], tracking_root: Path, cluster: Nodes) -> None:
    """Ray takes a node's word for its GPU; the trials themselves are computed by the processor."""
    ray = ("executor=ray", f"executor.address={cluster.address}", "trainer.accelerator=cpu")
    cluster.add(num_cpus=3, num_gpus=1)
    try:
        with running(command("half", *ray, "executor.gpus=0.5")) as process:
            assert len(actors()) == 2  # the other nodes have no GPU
            _finish(process)
    finally:
        cluster.kill(-1)
    _assert_whole(tracking_root, "half", lost=0)
    refused = subprocess.run(command("two", *ray, "executor.gpus=2"), capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "2 GPU" in refused.stderr


@pytest.mark.long
def test_a_node_without_memory_is_named_as_the_cause(
    command: Callable[..., list[str]], tracking_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends workers where more than a share of the memory is in use, here a hundredth, whoever uses it."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    nodes = Nodes(1)
    try:
        words = command("starved", "executor=ray", f"executor.address={nodes.address}", "executor.workers=1")
        done = subprocess.run(words, capture_output=True, text=True)
    finally:
        nodes.close()
    assert done.returncode != 0
    lost = [t.user_attrs.get("error", "") for t in _study(tracking_root, "starved").trials]
    assert "its node ran out of memory" in "\n".join([done.stderr, *lost])
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_folder_that_is_not_shared_is_refused_in_one_line(
    command: Callable[..., list[str]], tmp_path: Path, cluster: Nodes
) -> None:
    """All nodes are this machine, so the workers are told of another folder than the driver looks into."""
    arguments = command("not-shared", "executor=ray", f"executor.address={cluster.address}", "search.fresh=true")
    code = (
        "import sys; from pathlib import Path; from search.executor import ray; real = ray.RayExecutor._spawn\n"
        "def spawn(self):\n"
        "    here, self._shared = self._shared, Path(sys.argv[1])\n"
        "    worker, self._shared = real(self), here\n"
        "    return worker\n"
        "ray.RayExecutor._spawn = spawn\n"
        "from search.__main__ import main; sys.exit(main(sys.argv[2:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *arguments[3:]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr + done.stdout
    line = done.stderr.strip()
    assert "\n" not in line and "does not share" in line and "mount it at the same path on every node" in line


@pytest.mark.long
def test_a_cluster_that_asks_for_another_token_is_refused(command: Callable[..., list[str]]) -> None:
    wrong = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(command("wrong-token"), capture_output=True, text=True, timeout=300, env=wrong)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "leads to no Ray cluster" in done.stderr.splitlines()[-1]
