"""Faults by the hands of users: a store that is copied, a clock that is set, and what is deleted while nothing runs."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import subprocess
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.faults.damage import damage_a_cache_file, damage_a_checkpoint, killed
from tests.faults.kills import TooLateError, kill_now, strike
from tests.faults.scene import LONGEST, STUDY, BrokenPromiseError, Scene, finished_runs

__all__ = ["BY_HAND"]

_DAY = 86_400


def _copied(scene: Scene) -> None:
    """A copy goes on, the original stays as it is byte for byte; then the copy is moved to where the original was."""
    waited = killed(scene)
    copy, before = scene.folder / "copy", _contents(scene.root)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(scene.root, copy)
    scene.finish("tracking.root=copy")
    after = _contents(scene.root)
    if changed := sorted(name for name in before.keys() | after if before.get(name) != after.get(name)):
        raise BrokenPromiseError(f"the copy wrote into the original: {changed[:5]}")
    shutil.rmtree(scene.root)
    copy.rename(scene.root)
    scene.finish()
    if copy.exists():
        raise BrokenPromiseError("a moved store writes to where it was")
    scene.notes.append(f"killed after {waited:.2f} s, the store copied, the copy finished and moved")


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _clock_set(scene: Scene) -> None:
    """The wall clock jumps while a search runs; half of them are killed afterwards and go on by another clock."""
    if (compiler := shutil.which("cc")) is None:
        raise RuntimeError("a clock that can be set needs a C compiler")
    library, clock = scene.folder / "clock.so", scene.folder / "clock"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    clock.write_bytes(struct.pack("l", 0))
    command = scene.start(environment={"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(clock)})
    while command.running() and not scene.journal.exists():  # it imports everything anew, which takes its time
        time.sleep(0.05)
    waited, jumps = 0.0, []
    for _ in range(2):
        waited += strike(scene, command, scene.random.uniform(0.02, 0.4))
        jumps.append(scene.random.choice([-30 * _DAY, -3600, -2, 3600, 30 * _DAY]))
        with clock.open("r+b") as file:
            file.write(struct.pack("l", sum(jumps)))
    how = " and ".join(f"{seconds:+d} s" for seconds in jumps)
    if scene.random.random() < 0.5 and command.running():
        kill_now(scene, command)
        scene.notes.append(f"clock set by {how} within {waited:.2f} s, then the driver killed")
        scene.finish()
        return
    scene.notes.append(f"clock set by {how} within {waited:.2f} s")
    if (code := command.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"a clock that was set ended the search with {code}: {command.err[-600:]}")


def _flip(file: Path, chance: random.Random) -> str:
    place, bit = chance.randrange(file.stat().st_size), 1 << chance.randrange(8)
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ bit]))
    return f"with a bit of byte {place} of {file.stat().st_size} flipped"


def _runs_deleted(scene: Scene) -> None:
    """As MLflow's UI does it: the study's run with all below it, or some runs of trials."""
    waited = killed(scene)
    whole = scene.random.random() < 0.5
    with closing(sqlite3.connect(scene.root / "mlflow.db")) as database, database:
        query = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId'"
        trials = [row[0] for row in database.execute(query).fetchall()]
        if not trials:
            raise TooLateError
        gone = scene.random.sample(trials, scene.random.randint(1, len(trials)))
        query = "UPDATE runs SET lifecycle_stage = 'deleted'"
        if whole:
            database.execute(query)
        else:
            database.executemany(f"{query} WHERE run_uuid = ?", [(run,) for run in gone])
    if whole:
        scene.refused("was deleted in MLflow", "tracking.restore=true", "search.fresh=true")
        scene.finish("tracking.restore=true")
    else:
        scene.finish()
        _accept(scene, gone)
    what = "the study's run with those below it" if whole else f"{len(gone)} of {len(trials)} runs of trials"
    scene.notes.append(f"killed after {waited:.2f} s, {what} deleted")


def _accept(scene: Scene, gone: list[str]) -> None:
    """Bring back the runs that were deleted, closed where their trial was attempted again: the search may not."""
    kept = finished_runs(scene)
    with closing(sqlite3.connect(scene.root / "mlflow.db")) as database, database:
        for run in gone:
            database.execute("UPDATE runs SET lifecycle_stage = 'active' WHERE run_uuid = ?", (run,))
            if run not in kept:
                database.execute("UPDATE runs SET status = 'KILLED', end_time = 1 WHERE run_uuid = ?", (run,))


def _experiment_deleted(scene: Scene) -> None:
    waited = killed(scene)
    with closing(sqlite3.connect(scene.root / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = 1")
        database.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    scene.refused("experiment 'thawline' was deleted in MLflow", "tracking.restore=true")
    scene.finish("tracking.restore=true")
    scene.notes.append(f"killed after {waited:.2f} s, the experiment deleted and restored")


def _journal_deleted(scene: Scene) -> None:
    """The study begins anew; what the old one left in MLflow is closed, and no file of it is gone on with."""
    waited = killed(scene)
    if not scene.journal.exists():
        raise TooLateError
    scene.journal.unlink()
    scene.finish()
    scene.notes.append(f"killed after {waited:.2f} s, the journal deleted")


def _checkpoints_deleted(scene: Scene) -> None:
    waited = killed(scene)
    folder = scene.root / "studies" / f"{STUDY}.waiting"
    if not folder.is_dir():
        raise TooLateError
    files = len(list(folder.iterdir()))
    shutil.rmtree(folder)
    scene.finish()
    scene.notes.append(f"killed after {waited:.2f} s, the {files} files of trials that go on later deleted")


def _artifacts_deleted(scene: Scene) -> None:
    waited = killed(scene)
    folders = [scene.root / "artifacts", *(scene.root / "artifacts").glob("*")]
    if not folders[0].is_dir():
        raise TooLateError
    folder = scene.random.choice(folders)
    shutil.rmtree(folder)
    scene.finish()
    what = "all artifacts" if folder is folders[0] else "the artifacts of a run"
    scene.notes.append(f"killed after {waited:.2f} s, {what} deleted")


BY_HAND = {
    "store copied": _copied,
    "clock set": _clock_set,
    "waiting trial flipped": partial(damage_a_checkpoint, damage=_flip),
    "cache flipped": partial(damage_a_cache_file, damage=_flip),
    "runs deleted": _runs_deleted,
    "experiment deleted": _experiment_deleted,
    "journal deleted": _journal_deleted,
    "waiting trials deleted": _checkpoints_deleted,
    "artifacts deleted": _artifacts_deleted,
}
