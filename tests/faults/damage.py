"""Faults of files and places: full disks, read-only folders, damaged, locked, vanished and changed files."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.kills import TooLateError, kill_now, strike
from tests.faults.processes import Command
from tests.faults.scene import LONGEST, TRIALS, BrokenPromiseError, Scene, check_refusal, open_runs

__all__ = ["DAMAGE", "damage_a_cache_file", "damage_a_checkpoint", "killed"]


def _stopped_or_done(command: Command, *words: str) -> bool:
    """Wait; whether it went on regardless. If it stopped, then with one line."""
    code = command.wait(LONGEST)
    if code == 0:
        return True
    check_refusal(command, code, *words)
    return False


@contextmanager
def _small_disk(root: Path) -> Iterator[None]:
    """The store on a disk of its own, of 48 MB."""
    kept = root.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(root, kept)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "faults", str(root)], check=False)
    if done.returncode:
        raise RuntimeError("a disk that fills up needs the right to mount one")
    try:
        shutil.copytree(kept, root, dirs_exist_ok=True)
        yield
        shutil.rmtree(kept)
        shutil.copytree(root, kept)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
    shutil.copytree(kept, root, dirs_exist_ok=True)
    shutil.rmtree(kept)


def _full_disk(scene: Scene) -> None:
    if os.geteuid():
        scene.notes.append("no right to mount a disk")
        _no_long_files(scene)
        return
    with _small_disk(scene.root):
        command = scene.start()
        waited = strike(scene, command)
        spare = scene.random.choice([0, 4, 16, 64, 256]) * 1024
        _fill(scene.root / "filler", shutil.disk_usage(scene.root).free - spare)
        went_on = _stopped_or_done(command, "room on the disk")
        scene.notes.append(f"disk full but for {spare} bytes after {waited:.2f} s, {_did(went_on)}")
        (scene.root / "filler").unlink()
        if not went_on:
            scene.finish()


def _fill(file: Path, size: int) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as sink:
        for _ in range(max(0, size) // 4096):
            sink.write(bytes(4096))


def _did(went_on: bool) -> str:
    return "it went on" if went_on else "it stopped with one line"


def _no_long_files(scene: Scene) -> None:
    """No file may grow beyond a random size: what a quota does, in MLflow, Optuna, the caches or a checkpoint."""
    limit = int(2 ** scene.random.uniform(8, 21))
    command = scene.start(largest_file=limit)
    went_on = _stopped_or_done(command)
    scene.notes.append(f"no file above {limit} bytes, {_did(went_on)}")
    if not went_on:
        scene.finish()


def _read_only(scene: Scene) -> None:
    command = scene.start(powerless=True)
    waited = strike(scene, command)
    folders = [p for p in (scene.root, *scene.root.rglob("*")) if p.is_dir()]
    files = [p for p in (scene.root / "mlflow.db", scene.journal) if p.exists()]
    for place in (*folders, *files):
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        went_on = _stopped_or_done(command, "writ")
    finally:
        for place in (*folders, *files):
            place.chmod(0o755)
    scene.notes.append(f"read-only after {waited:.2f} s, {_did(went_on)}")
    if not went_on:
        scene.finish()


def killed(scene: Scene) -> float:
    """Kill the driver at a random time; returns the seconds."""
    command = scene.start()
    waited = strike(scene, command)
    kill_now(scene, command)
    return waited


def _half_line(scene: Scene) -> None:
    """What a power cut leaves of the journal: its last line cut, or zeros where one was to be."""
    waited = killed(scene)
    if not scene.journal.exists():
        scene.finish()
        scene.notes.append(f"killed after {waited:.2f} s, before there was a journal")
        return
    content = scene.journal.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    if scene.random.random() < 0.5:
        cut = scene.random.randrange(start, len(content))
        scene.journal.write_bytes(content[:cut])
        scene.notes.append(f"killed after {waited:.2f} s, {len(content) - cut} bytes of the journal's last line lost")
    else:
        scene.journal.write_bytes(content + bytes(scene.random.randrange(1, 5000)))
        scene.notes.append(f"killed after {waited:.2f} s, zeros behind the journal")
    scene.finish()


def _damaged_database(scene: Scene) -> None:
    """A file that lost its end: refused with the way out, which is a copy put back."""
    waited = killed(scene)
    database = scene.root / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = database.read_bytes()
    cut = scene.random.randrange(len(content) // 10, len(content) * 9 // 10)
    database.write_bytes(content[:cut])
    scene.refused("mlflow.db is damaged", "put back a copy")
    database.write_bytes(content)
    scene.notes.append(f"killed after {waited:.2f} s, database cut to {cut} of {len(content)} bytes and put back")
    scene.finish()


def _damage_a_file(
    scene: Scene, choose: Callable[[], list[Path]], what: str, damage: Callable[[Path, Random], str]
) -> None:
    """Kill the driver, damage one of the files that are there then, and finish."""
    command = scene.start()
    waited = strike(scene, command)
    while command.running() and not choose():  # there is not one at every moment
        time.sleep(0.01)
    if not command.running():
        raise TooLateError
    kill_now(scene, command)
    if not (found := sorted(choose())):
        raise TooLateError
    file = scene.random.choice(found)
    scene.notes.append(f"killed after {waited:.2f} s, {what} {damage(file, scene.random)}")
    scene.finish()


def _cut(file: Path, random: Random) -> str:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(cut := random.randrange(size) if size else 0)
    return f"cut to {cut} of {size} bytes"


def damage_a_checkpoint(scene: Scene, damage: Callable[[Path, Random], str]) -> None:
    """Kill the driver, damage the file of a waiting trial, and finish."""
    _damage_a_file(scene, lambda: list(scene.root.glob("studies/*.waiting/*.pt")), "a waiting trial", damage)


def damage_a_cache_file(scene: Scene, damage: Callable[[Path, Random], str]) -> None:
    """Kill the driver, damage a file of the caches, and finish."""
    _damage_a_file(scene, lambda: list(scene.root.glob("cache/**/*.np?")), "a file of the caches", damage)


def _image_gone(scene: Scene) -> None:
    waited = killed(scene)
    image = scene.random.choice(sorted((scene.folder / "images").rglob("*.png")))
    away = scene.folder / "away.png"
    image.rename(away)
    try:
        _refused_if_begun(scene, "other images or labels")
    finally:
        away.rename(image)
    scene.notes.append(f"killed after {waited:.2f} s, {image.parent.name}/{image.name} gone and put back")
    scene.finish()


def _image_changed(scene: Scene) -> None:
    waited = killed(scene)
    one, other = scene.random.sample(sorted((scene.folder / "images").rglob("*.png")), 2)
    before = one.read_bytes()
    changed = bytearray(before)
    if scene.random.random() < 0.5:  # another picture of the same class, or bytes that are no picture
        changed = bytearray((one.parent / f"{(int(one.stem) + 1) % 12:02d}.png").read_bytes())
        words: tuple[str, ...] = ()
    else:
        changed[len(changed) // 2] ^= 255
        words = (one.name,)
    one.write_bytes(changed)
    try:
        _refused_if_begun(scene, *words)
    finally:
        one.write_bytes(before)
    scene.notes.append(f"killed after {waited:.2f} s, {one.name} changed and put back ({other.name} was not)")
    scene.finish()


def _refused_if_begun(scene: Scene, *words: str) -> None:
    """A study that has begun refuses other images; before it, they would be the study's own."""
    if not scene.journal.exists() or b"identity" not in scene.journal.read_bytes():
        raise TooLateError
    scene.refused(*words)


def _store_away(scene: Scene) -> None:
    """The database is locked by something else: a search waits for it, and stops when it takes too long."""
    command = scene.start()
    waited = strike(scene, command)
    seconds = scene.random.choice([0.5, 2.0, 40.0])
    with closing(sqlite3.connect(scene.root / "mlflow.db", timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        end = time.monotonic() + seconds
        while time.monotonic() < end and command.running():
            time.sleep(0.05)
        other.rollback()
    went_on = _stopped_or_done(command, "mlflow.db is locked by another program")
    scene.notes.append(f"database locked for {seconds:g} s after {waited:.2f} s, {_did(went_on)}")
    if seconds < 1 and not went_on:
        raise BrokenPromiseError("half a second of a locked database stopped the search")
    if not went_on:
        scene.finish()


def _second_driver(scene: Scene) -> None:
    first = scene.start()
    waited = strike(scene, first)
    if not (scene.root / "studies" / "faults.owner.json").exists():
        raise TooLateError
    second = Command(scene.arguments, scene.folder / "second")
    second.folder.mkdir(exist_ok=True)
    for name in ("images", "weights.safetensors", "mlruns"):
        (second.folder / name).unlink(missing_ok=True)
        (second.folder / name).symlink_to(scene.folder / name)
    scene.commands.append(second.start())
    code = second.wait(LONGEST)
    late = not first.running()
    if (first_code := first.wait(LONGEST)) != 0:
        raise BrokenPromiseError(f"the first driver ended with {first_code}: {first.err[-600:]}")
    if not (late and code == 0):
        check_refusal(second, code, f"is being run by process {first.pid}, started ")
    scene.notes.append(f"second driver after {waited:.2f} s, {'too late' if late else 'refused'}")
    if late:
        raise TooLateError


def _diverges(scene: Scene) -> None:
    """An absurd learning rate: the trial ends with its reason, and an interruption changes nothing of that."""
    killed(scene)
    command = scene.finish()
    if "diverged" not in command.out and not _diverged(scene):
        raise BrokenPromiseError("no trial diverged")
    scene.notes.append(f"{_diverged(scene)} of {TRIALS} trials diverged")


def _diverged(scene: Scene) -> int:
    with closing(sqlite3.connect(scene.root / "mlflow.db")) as database:
        query = "SELECT count(*) FROM tags WHERE key = 'reason' AND value LIKE '%not finite in epoch%'"
        return int(database.execute(query).fetchone()[0])


def _closed_books(scene: Scene) -> None:
    """SIGTERM while the store is locked for two seconds: the books are closed as soon as they can be."""
    command = scene.start()
    waited = strike(scene, command)
    with closing(sqlite3.connect(scene.root / "mlflow.db", timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        command.signal_all(signal.SIGTERM)
        time.sleep(2)
        other.rollback()
    code = command.wait(LONGEST)
    if code not in (0, 143, -signal.SIGTERM):
        raise BrokenPromiseError(f"SIGTERM ended with {code}: {command.err[-600:]}")
    if left := open_runs(scene.root):
        raise BrokenPromiseError(f"{left} runs are open after SIGTERM")
    scene.notes.append(f"SIGTERM and a locked database after {waited:.2f} s, left with {code}")
    if code:
        scene.finish()


DAMAGE = {
    "disk full": _full_disk,
    "file size limited": _no_long_files,
    "store read-only": _read_only,
    "journal cut": _half_line,
    "database cut": _damaged_database,
    "waiting trial cut": partial(damage_a_checkpoint, damage=_cut),
    "cache cut": partial(damage_a_cache_file, damage=_cut),
    "image gone": _image_gone,
    "image changed": _image_changed,
    "store locked": _store_away,
    "store locked at SIGTERM": _closed_books,
    "second driver": _second_driver,
    "loss not finite": _diverges,
}
