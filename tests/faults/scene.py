"""A small study on a small store, what it comes to when nothing happens, and whether another came to the same.

All studies of a scene lie at the same place, since MLflow's store holds absolute paths: each starts from a copy of one
empty store.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.faults.processes import Command, held_locks

if TYPE_CHECKING:
    from optuna import Study

    from tests.faults.cluster import Cluster

__all__ = [
    "ARGUMENTS",
    "STUDY",
    "TRIALS",
    "BrokenPromiseError",
    "Scene",
    "Undisturbed",
    "examine",
    "finished_runs",
    "make_scene",
    "open_runs",
]

TRIALS = 6
STUDY = "faults"
LONGEST = 1200.0  # seconds; a machine may be busy
_ID = re.compile(r"\b(m-)?[0-9a-f]{32}\b|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{6,}")
ARGUMENTS = (
    "data=folder", "data.path=images", "data.size=[32,32]", "trainer.epochs=4", "trainer.batch_size=8",
    f"search.trials={TRIALS}", "search.stop=never",  # six validation images never show a better trial
    "search.startup_trials=2", "executor.threads=1", "executor.checkpoint_seconds=0",
    f"search.study={STUDY}",
)  # fmt: skip


class BrokenPromiseError(Exception):
    """The search did not do what it promises."""


@dataclass(frozen=True)
class Undisturbed:
    """What a study comes to when nothing happens.

    Attributes:
        trials: slot -> parameters, outcome, value and curve.
        files: of the store, ids left out.
        seconds: it took.
    """

    trials: dict[int, tuple[Any, ...]]
    files: frozenset[str]
    seconds: float


@dataclass
class Scene:
    """Where a fault happens.

    Attributes:
        folder: holds images/, weights.safetensors, mlruns/.
        arguments: of the search.
        random: when and what.
        undisturbed: what the study should come to; None while that is found out.
        exact: whether trials must be the undisturbed ones, not only as many.
        commands: started so far.
        notes: what happened.
        killed: whether a process was killed that could not remove its temporary files outside the store.
        cluster: of Ray, where trials run; None on this machine alone.
    """

    folder: Path
    arguments: tuple[str, ...]
    random: Random
    undisturbed: Undisturbed | None = None
    exact: bool = True
    commands: list[Command] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    killed: bool = False
    earlier: float = 1.0  # times every wait: less than 1 after a try that came too late
    cluster: Cluster | None = None

    @property
    def root(self) -> Path:
        """The store."""
        return self.folder / "mlruns"

    @property
    def journal(self) -> Path:
        """Of the study."""
        return self.root / "studies" / f"{STUDY}.journal"

    def fresh(self) -> None:
        """An empty store and nothing else of an earlier study."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("tmp", "node-cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.folder / "empty", self.root)

    def start(self, *more: str, **limits: Any) -> Command:
        """Start the command, the same every time but for `more` arguments."""
        command = Command((*self.arguments, *more), self.folder, **limits).start()
        self.commands.append(command)
        return command

    def finish(self, *more: str) -> Command:
        """The command, to its end, which must be a good one."""
        command = self.start(*more)
        if (code := command.wait(LONGEST)) != 0:
            raise BrokenPromiseError(f"the same command ended with {code}: {_last(command.err) or _last(command.out)}")
        return command

    def refused(self, *words: str) -> None:
        """The command, which must say one line with these words and leave with 2."""
        command = self.start()
        code = command.wait(LONGEST)
        check_refusal(command, code, *words)

    def sleep(self, share: float | None = None) -> float:
        """A random time within the undisturbed study; returns it in seconds."""
        seconds = self.undisturbed.seconds if self.undisturbed else 0.0
        wait = (self.random.uniform(0.02, 0.95) if share is None else share) * seconds * self.earlier
        time.sleep(wait)
        return wait


def check_refusal(command: Command, code: int, *words: str) -> None:
    """Assert that a command that ended with 2 said so in one line with these words."""
    lines = command.err.strip().splitlines()
    if code != 2 or len(lines) != 1 or not all(word in lines[0] for word in words):
        raise BrokenPromiseError(
            f"one line with {words} and exit code 2 expected, got {code}: {command.err.strip()[-600:]}"
        )


def make_scene(folder: Path, random: Random) -> Scene:
    """Images, weights and an empty store."""
    _write_images(folder / "images")
    child = os.fork()
    if not child:
        _write_weights_and_store(folder)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the scene could not be made")
    shutil.copytree(folder / "mlruns", folder / "empty")
    return Scene(folder, ARGUMENTS, random)


def _write_images(root: Path) -> None:
    """Three classes of twelve 32 x 32 images, so noisy that scores differ."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for kind, name in enumerate("abc"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            phase = rng.uniform(0, 6)
            waves = (np.sin(y + phase), np.sin(x + phase), np.sin(0.6 * x + phase) * np.sin(0.6 * y + phase))
            grey = np.clip(128 + 40 * waves[kind] + rng.normal(0, 90, (32, 32)), 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(root / name / f"{number:02d}.png")


def _write_weights_and_store(folder: Path) -> None:
    """In a process of its own: computing starts threads, which later forks would lack."""
    code = 1
    try:
        import timm
        import torch
        from safetensors.torch import save_file

        from search.tracking.tracker import Tracker

        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "weights.safetensors")
        os.chdir(folder)
        Tracker(Path("mlruns"), "thawline")
        code = 0
    finally:
        os._exit(code)


def observe(scene: Scene) -> Undisturbed:
    """What the finished study of a scene came to."""
    from search.study.record import finished_trials

    trials = {
        int(t.user_attrs["slot"]): (t.params, t.user_attrs["outcome"], t.user_attrs["value"], t.intermediate_values)
        for t in finished_trials(_study(scene))
    }
    files = frozenset(_ID.sub("ID", str(p.relative_to(scene.root))) for p in scene.root.rglob("*"))
    return Undisturbed(trials, files, time.monotonic() - scene.commands[-1].started)


def examine(scene: Scene) -> list[str]:
    """What is not as if nothing had happened; empty where all is."""
    if scene.undisturbed is None:
        raise ValueError("nothing to compare with")
    problems = [f"process {pid} is left" for command in scene.commands for pid in command.left(10)]
    found = observe(scene)
    if sorted(found.trials) != sorted(scene.undisturbed.trials):
        problems.append(f"slots {sorted(found.trials)} are finished, not {sorted(scene.undisturbed.trials)}")
    elif scene.exact:
        problems += [
            f"trial {slot} is {found.trials[slot]}, undisturbed {trial}"
            for slot, trial in scene.undisturbed.trials.items()
            if found.trials[slot] != trial
        ]
    problems += _runs(scene)
    if scene.cluster is not None:
        problems += [f"actor {pid} is left" for pid in scene.cluster.left(30)]
    problems += [f"lock {name} is held" for name in held_locks(scene.root)]
    problems += [f"{p.name} is left" for p in (scene.root / "studies").iterdir() if _leftover(p)]
    problems += [f"file {name} is left" for name in sorted(found.files - scene.undisturbed.files) if _unexpected(name)]
    if not scene.killed:
        problems += [f"temporary {p.name} is left" for p in (scene.folder / "tmp").iterdir()]
    return problems


def _leftover(path: Path) -> bool:
    marks = path.name.startswith(".ray-") or ".journal.lock." in path.name
    return marks or path.name.endswith((".owner.json", ".journal.lock", ".waiting", ".tmp"))


def _unexpected(name: str) -> bool:
    # An attempt that failed keeps its traceback; other trials store other cuts; a store that is open has a log.
    cut = re.fullmatch(r"cache/activations/ID/(cut[0-9]+-[0-9]+|head-[^/]+)\.(npy|lock|safetensors)", name)
    return not (name.endswith(("/traceback.txt", "mlflow.db-wal", "mlflow.db-shm")) or cut or _run_folder(name))


def _run_folder(name: str) -> bool:
    return name in ("artifacts/ID", "artifacts/ID/artifacts")


def open_runs(root: Path) -> int:
    """How many runs MLflow takes to be running."""
    with closing(sqlite3.connect(root / "mlflow.db", timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0])


def _study(scene: Scene) -> Study:
    import optuna

    from search.study.storage import open_storage

    return optuna.load_study(study_name=STUDY, storage=open_storage(scene.journal))


def finished_runs(scene: Scene) -> set[str]:
    """MLflow's runs of the trials that are finished."""
    from search.study.record import finished_trials

    return {t.user_attrs["run_id"] for t in finished_trials(_study(scene))}


def _runs(scene: Scene) -> list[str]:
    """One parent, one closed run for each trial below it, one model registered of it."""
    from search.study.record import finished_trials

    study = _study(scene)
    parent = study.user_attrs["parent"]
    with closing(sqlite3.connect(scene.root / "mlflow.db", timeout=10)) as database:
        status = dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
        ended = {row[0] for row in database.execute("SELECT run_uuid FROM runs WHERE end_time IS NOT NULL").fetchall()}
        slots: dict[str, list[str]] = {}
        below = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?"
        query = f"SELECT run_uuid, value FROM tags WHERE key = 'slot' AND run_uuid IN ({below})"  # noqa: S608
        for run, slot in database.execute(query, (parent,)).fetchall():
            if status[run] == "FINISHED":
                slots.setdefault(slot, []).append(run)
        kept = "SELECT count(*) FROM model_versions WHERE current_stage != 'Deleted_Internal' AND run_id = ?"
        versions = database.execute(kept, (parent,)).fetchone()[0]  # MLflow keeps the row of a deleted one
        aliases = database.execute("SELECT count(*) FROM registered_model_aliases").fetchone()[0]
        try:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
        except sqlite3.OperationalError as error:
            return [f"the database is locked ({error})"]
    trials = {str(t.user_attrs["slot"]): t.user_attrs["run_id"] for t in finished_trials(study)}
    attempts = [t.user_attrs["run_id"] for t in study.get_trials(deepcopy=False) if "run_id" in t.user_attrs]
    checks = {
        f"runs are open: {status}": set(status.values()) <= {"FINISHED", "KILLED", "FAILED"} and ended == set(status),
        f"the study's run is {status.get(parent)}": status.get(parent) == "FINISHED",
        f"finished runs by slot are {slots}, trials {trials}": slots == {slot: [run] for slot, run in trials.items()},
        "two attempts share a run": len(set(attempts)) == len(attempts) and set(attempts) <= set(status),
        f"{versions} versions and {aliases} aliases are registered": versions == aliases == 1,
        f"trials are {[t.state.name for t in study.get_trials(deepcopy=False)]}": all(
            t.state.is_finished() for t in study.get_trials(deepcopy=False)
        ),
    }
    return [problem for problem, good in checks.items() if not good]


def _last(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1] if lines else ""
