"""Every peer reads the same files: what the project's own split drew, as lists and as a manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.peers.contract import Lists
from benchmarks.peers.lists import TASKS, as_lists, write_manifest
from lightning_modules.images.splits import Splits
from lightning_modules.images.store import ImageSet
from search.settings.compose import compose_settings
from search.settings.schema import Settings
from search.trial.preparation import load, resolved, split


def read(*overrides: str) -> tuple[Settings, ImageSet, Splits]:
    settings = compose_settings(list(overrides))
    images = load(settings, Console(quiet=True))
    return resolved(settings, images), images, split(settings, images.index)


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    rng = np.random.default_rng(0)
    for name in ("crack", "pore"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (20, 30), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    source = ("data=folder", f"data.path={tmp_path / 'images'}", "data.test=rest", "data.max_train_per_class=3")
    settings, images, splits = read(*source, "data.fit=pad", "seed=5", f"tracking.root={tmp_path / 'a'}")
    return as_lists("neu_10", settings, images.index, splits)


def test_the_lists_are_the_split(lists: Lists) -> None:
    assert (lists.seed, lists.fit, lists.classes) == (5, "pad", ("crack", "pore"))
    assert (len(lists.train), len(lists.val), len(lists.test)) == (6, 6, 12)
    assert len({path for path, _ in (*lists.labelled, *lists.test)}) == 24
    assert all(Path(path).parent.name == lists.classes[label] for path, label in (*lists.labelled, *lists.test))


def test_what_is_written_is_read(lists: Lists, tmp_path: Path) -> None:
    lists.write(tmp_path / "lists.json")
    assert Lists.read(tmp_path / "lists.json") == lists


def test_the_search_splits_the_manifest_as_listed(lists: Lists, tmp_path: Path) -> None:
    table = tmp_path / "elsewhere" / "manifest.csv"
    table.parent.mkdir()
    write_manifest(lists, table)
    with table.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    settings, images, splits = read(
        "data=manifest", "data.outside=allow", f"data.path={table}", "data.fit=pad", f"tracking.root={tmp_path / 'b'}"
    )
    again = as_lists("neu_10", settings, images.index, splits)
    for part in ("train", "val", "test"):
        assert sorted(getattr(again, part)) == sorted(getattr(lists, part))


def test_the_tasks_are_those_of_the_tables() -> None:
    from benchmarks.depth_tables import TASKS as TABLES

    assert set(TASKS) <= set(TABLES)
