"""A long study with two workers: no lock error, every trial counted once, and each the trial one worker would give."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from search.settings.compose import compose_settings
from search.study.record import finished_trials
from search.study.sampler import slot_seed
from search.study.storage import open_storage
from search.tracking.tracker import tracking_uri
from search.trial.preparation import load, split
from search.trial.result import TrialParams
from search.trial.task import build_task
from search.trial.training import run_trial

TRIALS = 200


@pytest.mark.slow
@pytest.mark.long
def test_two_hundred_trials_with_two_workers(run_search: Callable[..., object], stripes: Path, tmp_path: Path) -> None:
    arguments = (
        "data=folder", f"data.path={stripes}", "data.size=[32,32]", "trainer.epochs=2", f"search.trials={TRIALS}",
        "space.freeze_depth=[6,8]", "search.sampler=random", "search.stop=never", "executor=local",
        "executor.workers=2", "executor.threads=1", "search.study=two", "tracking.report=false",
        f"tracking.root={tmp_path / 'mlruns'}",
    )  # fmt: skip
    outcome = run_search(*arguments, timeout=600)
    assert outcome.code == 0, outcome.err  # type: ignore[attr-defined]
    assert "lock" not in outcome.err.lower() and "traceback" not in outcome.err.lower()  # type: ignore[attr-defined]
    study = optuna.load_study(study_name="two", storage=open_storage(tmp_path / "mlruns" / "studies" / "two.journal"))
    trials = finished_trials(study)
    assert [t.user_attrs["slot"] for t in trials] == list(range(TRIALS))
    assert len(study.trials) == TRIALS  # none was lost
    uri = tracking_uri(tmp_path / "mlruns")
    client = MlflowClient(uri, registry_uri=uri)
    parent = study.user_attrs["parent"]
    runs = client.search_runs(
        [client.get_run(parent).info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
    )
    assert len(runs) == TRIALS and {r.info.status for r in runs} == {"FINISHED"}

    torch.set_num_threads(1)
    settings = compose_settings(arguments)
    images = load(settings, Console(quiet=True))
    task = build_task(settings, images, split(settings, images.index), cache=tmp_path / "mlruns" / "cache")
    for trial in trials[::25]:
        steps = len(trial.intermediate_values)
        again = run_trial(
            task,
            TrialParams(**trial.params),
            slot_seed(settings.seed, trial.user_attrs["slot"]),
            report=lambda r, steps=steps: "train" if r.step + 1 < steps else "stop",  # type: ignore[misc]
        )
        assert {r.step + 1: r.value for r in again.curve} == trial.intermediate_values


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)], ids=["once", "twice"])
def test_ctrl_c_reaches_the_driver_alone(stripes: Path, tracking_root: Path, times: int) -> None:
    """A terminal sends it to every process of the group; the trials must not die of it."""
    arguments = (
        "data=folder", f"data.path={stripes}", "data.size=[32,32]", "trainer.epochs=40", "search.trials=30",
        "search.pruner=none", "executor=local", "executor.workers=2", "executor.threads=1",
        f"search.study=ctrl-c-{times}", f"tracking.root={tracking_root}",
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "search", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("trial") and times:
                for _ in range(times):
                    os.killpg(process.pid, signal.SIGINT)
                    time.sleep(0.2)
                times = 0
    text = "".join(said)
    assert process.returncode == 130, text
    assert "the same command continues the study" in text
    assert "failed" not in text and "Traceback" not in text
    deadline = time.monotonic() + 120
    while _session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _session(process.pid) == []
    if found := re.search(r"and with (search\.trials=\d+) delivers what it has", text):
        done = subprocess.run(
            [sys.executable, "-m", "search", *arguments, found[1], "tracking.report=false"],
            capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0 and "\nResult: " in done.stdout, done.stdout + done.stderr


def _session(leader: int) -> list[int]:
    """Processes of a session that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found
