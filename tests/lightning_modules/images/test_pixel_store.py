"""Pixels on disk: damaged, half written, on a full disk, and written by several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.errors import InputError
from lightning_modules.images import pixel_store
from tests.lightning_modules.small_folder import SIZE, files_of, load_folder


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: os.truncate(store / "pixels.npy", 300),
        lambda store: (store / "pixels.npy").write_bytes(b""),
        lambda store: np.save(store / "pixels.npy", np.zeros((1, *SIZE, 1), np.uint8)),
        lambda store: np.save(store / "pixels.npy", np.zeros((6, *SIZE, 1), np.float32)),
        lambda store: (store / "pixels.npy").unlink(),
        lambda store: (store / "store.json").write_text("{"),
        lambda store: (store / "store.json").write_text("[]"),
        lambda store: (store / "store.json").unlink(),
    ],
)
def test_a_damaged_store_is_rebuilt(
    make_folder, cache: Path, decodes: list[int], damage: Callable[[Path], object]
) -> None:
    root = make_folder({"a": 3, "b": 3})
    expected = np.array(load_folder(root, cache).pixels)
    damage(next((cache / "images").glob("*/store.json")).parent)
    np.testing.assert_array_equal(load_folder(root, cache).pixels, expected)
    assert len(decodes) == 12
    np.testing.assert_array_equal(load_folder(root, cache).pixels, expected)
    assert len(decodes) == 12


def test_what_a_killed_writer_left_is_removed(make_folder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 3, "b": 3})
    with monkeypatch.context() as patched:
        # As a kill: neither the rename nor the clean-up happens.
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr(pixel_store.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            load_folder(root, cache)
    assert all(".writing-" in name for name in files_of(cache)) and files_of(cache)
    load_folder(root, cache)
    assert not any(".writing-" in name for name in files_of(cache))
    left = cache / "images" / ".writing-of-the-dead"
    left.mkdir()
    load_folder(root, cache)
    assert not left.exists()


def test_a_failed_write_leaves_no_temporary(make_folder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    root = make_folder({"a": 3, "b": 3})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"cache .* cannot be written: No space left on device; make room on the disk, then"
    ):
        load_folder(root, cache)
    assert files_of(cache) == set()


def test_a_cache_that_is_a_file_is_refused(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cache .*file.* cannot be written"):
        load_folder(root, tmp_path / "file")


def test_processes_may_build_the_same_store(make_folder, cache: Path) -> None:
    root = make_folder({"a": 10, "b": 10})
    code = (
        "import sys, pathlib; from lightning_modules.images.store import load_images\n"
        f"images = load_images('folder', pathlib.Path(sys.argv[1]), size={SIZE}, cache=pathlib.Path(sys.argv[2]))\n"
        "print(int(images.pixels.astype('int64').sum()))"
    )
    command = [sys.executable, "-c", code, str(root), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {process.communicate(timeout=300)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sums == {str(np.asarray(load_folder(root, cache).pixels, dtype=np.int64).sum())}
    assert len(list((cache / "images").glob("*/store.json"))) == 1
