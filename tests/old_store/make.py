"""Make an archive of a small store with the code of another commit; README.md says how it is called.

PYTHONPATH names the other code. Usage: python tests/old_store/make.py ARCHIVE.tar.xz
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PLACE, CODE = "@PLACE@", "@CODE@"
"""Stand for the folder that held the store, and for the other code."""
LEFT_OUT = ("cache", "figures", "images", "report", "month.html")
"""Folders and files below mlruns/ that are drawn anew or made again; pictures are most of a store."""

Y, X = np.mgrid[:24, :24]
SHAPES = {
    "2020-01": {"left": X < 12, "middle": np.maximum(abs(X - 11.5), abs(Y - 11.5)) < 7, "top": Y < 12},
    "2020-02": {"left": X % 4 < 2, "middle": (X + Y) % 6 < 3, "top": Y % 4 < 2},
}
COMMON = (
    "data=folder", "data.path=images", "data.size=[24,24]", "model=lenet5", "space.optimizers=[adam]",
    "space.default_optimizer=adam", "trainer.batch_size=8", "executor=inline", "executor.threads=1",
    "tracking.root=mlruns",
)  # fmt: skip
SEARCH = ("search", *COMMON, "data.views=1", "trainer.epochs=3", "search.study=old", "search.startup_trials=2")
RETRAIN = (
    "search.retrain", *COMMON, "data.views=0", "trainer.epochs=6", "search.trials=1", "search.pruner=none",
    "search.evidence=false", "tracking.report=false", "retrain.trials=1", "retrain.epochs=20", "retrain.depth=0",
    "tracking.model_name=sheets",
)  # fmt: skip


def draw(folder: Path, month: str) -> None:
    """Ten seeded pictures of each class."""
    rng = np.random.default_rng([7, int(month[5:])])
    for name, shape in SHAPES.get(month, SHAPES["2020-02"]).items():
        (folder / month / name).mkdir(parents=True)
        for number in range(10):
            grey = 128 + 60 * np.where(shape, 1, -1) + rng.integers(-40, 41, shape.shape)
            Image.fromarray(grey.astype(np.uint8)).save(folder / month / name / f"{number:02d}.png")


def run(module: str, *arguments: str, place: Path) -> None:
    """`python -m MODULE ARGUMENTS` in the folder of the store."""
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=place, check=True)


def as_text(database: Path) -> str:
    """SQL that makes the database again."""
    with sqlite3.connect(database) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        text = "\n".join([*connection.iterdump(), f"PRAGMA user_version = {version};", ""])
    connection.close()
    return text


def pack(place: Path, archive: Path) -> None:
    """Images and store without what LEFT_OUT names; paths become PLACE and CODE, databases become SQL."""
    other = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for file in sorted(path for path in place.rglob("*") if path.is_file()):
            name = file.relative_to(place)
            beside = file.suffix in (".lock", ".db-wal", ".db-shm")
            if beside or (name.parts[0] == "mlruns" and set(name.parts) & set(LEFT_OUT)):
                continue
            if file.suffix == ".db":
                name, content = name.with_suffix(".db.sql"), as_text(file).encode()
            else:
                content = file.read_bytes()
            for path, stands_for_it in ((str(place), PLACE), (other, CODE)):
                content = content.replace(path.encode(), stands_for_it.encode())
            entry = tarfile.TarInfo(str(name))
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Draw, search, retrain month by month, pack."""
    place = Path(tempfile.mkdtemp())
    for month in SHAPES:
        draw(place / "images", month)
    run(*SEARCH, "search.trials=4", place=place)
    later = shutil.move(place / "images" / "2020-02", place / "not yet")
    run(*RETRAIN, place=place)
    shutil.move(later, place / "images" / "2020-02")
    run(*RETRAIN, place=place)
    pack(place, Path(sys.argv[1]))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
