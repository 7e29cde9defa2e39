"""The activation cache: what is stored, shared, evicted and counted, and what happens when the disk is full."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.networks.backbones import build
from lightning_modules.training import activation_cache
from lightning_modules.training.activation_cache import ActivationCache
from lightning_modules.training.cut_choice import choose_cut, load_choices, save_choice
from lightning_modules.training.datamodule import ActivationBatches, view_order

ROWS = 12
VIEWS = 2


def _inputs(rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    """Images that depend on row and view alone."""
    images = []
    for row, view in zip(rows, views, strict=True):
        generator = torch.Generator().manual_seed(int(row) * 100 + int(view))
        images.append(torch.rand(3, 32, 32, generator=generator))
    return torch.stack(images).contiguous(memory_format=torch.channels_last)


def _pairs() -> np.ndarray:
    return np.array([(r, v) for r in range(ROWS) for v in range(VIEWS + 1)], dtype=np.int64)


def _shards() -> list[np.ndarray]:
    """One for each view."""
    return [_pairs()[_pairs()[:, 1] == view] for view in range(VIEWS + 1)]


def _cache(
    folder: Path, *, capacity: int = 10**9, precision: str = "float16", key: str = "k", **more: object
) -> ActivationCache:
    net = build("efficientnet_lite0", classes=3, size=(32, 32)).eval()
    return ActivationCache(
        net, _inputs, _shards(), precision=precision, folder=folder, key=key, capacity=capacity, **more
    )  # type: ignore[arg-type]


def _counted(net: nn.Module) -> list[int]:
    counts: list[int] = []
    for block in net.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda *_: counts.append(1))
    return counts


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_cached_and_computed_activations_are_the_same(tmp_path: Path, precision: str, cut: int) -> None:
    rows, views = np.array([3, 0, 11]), np.array([0, 2, 1])
    stored = _cache(tmp_path / "a", precision=precision)
    computed = _cache(tmp_path / "b", precision=precision, capacity=0)
    from_shallower = _cache(tmp_path / "c", precision=precision)
    from_shallower.at(max(cut - 1, 1), rows, views)
    first = stored.at(cut, rows, views)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, computed.at(cut, rows, views))
    assert torch.equal(first, from_shallower.at(cut, rows, views))
    assert stored.decisions[cut].startswith("stored")
    assert computed.decisions[cut].startswith("computed")
    assert not (tmp_path / "b").exists()


def test_a_cached_cut_runs_no_prefix_again(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    first = _cache(tmp_path)
    first.at(5, rows, views)
    counts = _counted(first.net)
    first.at(5, rows, views)
    assert counts == []
    another_process = _cache(tmp_path)
    counts = _counted(another_process.net)
    another_process.at(5, rows[:4], views[:4])
    assert counts == []


def test_a_deeper_cut_starts_from_the_nearest_stored_one(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache.at(6, rows, views)
    counts = _counted(cache.net)
    cache.at(8, rows, views)
    assert len(counts) == 8 + 2  # the shape of one image through all, then blocks 7 and 8 over one chunk of pairs


def test_only_what_is_asked_for_is_stored(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    rows = np.arange(ROWS)
    cache.at(3, rows, np.full(ROWS, 1))
    assert [f.name for f in tmp_path.glob("k/*.npy")] == ["cut3-1.npy"]
    mixed = cache.at(3, rows, rows % (VIEWS + 1))
    assert sorted(f.name for f in tmp_path.glob("k/*.npy")) == ["cut3-0.npy", "cut3-1.npy", "cut3-2.npy"]
    assert torch.equal(mixed, _cache(tmp_path, capacity=0).at(3, rows, rows % (VIEWS + 1)))


def test_pairs_that_lie_in_no_shard_are_computed(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    rows, views = np.array([1, ROWS + 3, 2]), np.array([0, 0, VIEWS + 4])
    cache.at(4, np.arange(ROWS), np.zeros(ROWS, np.int64))
    assert torch.equal(cache.at(4, rows, views), _cache(tmp_path, capacity=0).at(4, rows, views))


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    expected = _cache(tmp_path).at(3, rows, views)
    file = tmp_path / "k" / "cut3-0.npy"
    content, notes = file.read_bytes(), []
    for damaged in (content[:1000], content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]):
        file.write_bytes(damaged)
        assert torch.equal(_cache(tmp_path, on_note=notes.append).at(3, rows, views), expected)
        assert file.read_bytes() == content
    assert notes == [f"{file} is damaged, or an older version wrote it; it is made again."] * 2
    assert not list(tmp_path.glob("k/*.tmp"))


def test_the_cache_stays_below_its_capacity_and_drops_the_least_recently_used(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    _cache(tmp_path).at(7, rows, views)
    size = (tmp_path / "k" / "cut7-0.npy").stat().st_size
    small = _cache(tmp_path, capacity=size * 7 // 2, key="other")  # three of its three shards, and not the older one
    for view in range(VIEWS + 1):
        small.at(7, rows, views + view)
    files = sorted(str(f.relative_to(tmp_path)) for f in tmp_path.glob("*/*.npy"))
    assert files == ["other/cut7-0.npy", "other/cut7-1.npy", "other/cut7-2.npy"]


def test_what_is_used_again_outlives_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_cache, "_MARK_SECONDS", 0.0)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    _cache(tmp_path).at(7, rows, views)
    size = (tmp_path / "k" / "cut7-0.npy").stat().st_size
    room, whole = size * 7 // 2, _cache(tmp_path, capacity=0)
    one, other = _cache(tmp_path, capacity=room), _cache(tmp_path, capacity=room, key="other")
    for cache, view, expected in (
        (one, 0, ["k/cut7-0"]),
        (one, 1, ["k/cut7-0", "k/cut7-1"]),
        (other, 0, ["k/cut7-0", "k/cut7-1", "other/cut7-0"]),
        (one, 0, ["k/cut7-0", "k/cut7-1", "other/cut7-0"]),  # used again, so that it stays and view 1 has to go
        (other, 1, ["k/cut7-0", "other/cut7-0", "other/cut7-1"]),
        (one, 1, ["k/cut7-0", "k/cut7-1", "other/cut7-1"]),  # stored anew, where another process took it away
        (one, 0, ["k/cut7-0", "k/cut7-1", "other/cut7-1"]),
        (other, 2, ["k/cut7-0", "k/cut7-1", "other/cut7-2"]),
    ):
        time.sleep(0.02)  # longer than a tick of the clock of files
        assert torch.equal(cache.at(7, rows, views + view), whole.at(7, rows, views + view))
        found = (file.relative_to(tmp_path).with_suffix("") for file in tmp_path.glob("*/*.npy"))
        assert sorted(map(str, found)) == expected
    assert list(other._open) == [(7, 2)]  # the disk has the blocks of a removed file back when nobody maps it


def test_a_cut_larger_than_the_cache_is_computed_and_said_once(tmp_path: Path) -> None:
    notes: list[str] = []
    cache = _cache(tmp_path, capacity=1000, on_note=notes.append)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache.at(2, rows, views)
    cache.at(2, rows, views + 1)
    assert notes == ["activations at cut 2 are computed in every epoch: 0.00 GB, more than the cache of 0.00 GB"]


def test_a_measured_choice_is_remembered_and_changes_no_value(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache = _cache(tmp_path, measure=True)
    values = cache.at(1, rows, views)
    choice = load_choices(tmp_path / "k")[1]
    assert choice.bytes == ROWS * (VIEWS + 1) * values[0].numel() * 2
    assert choice.compute_ms > 0 and choice.read_ms > 0
    assert choice.stored == (choice.compute_ms > choice.read_ms + choice.write_ms)
    save_choice(tmp_path / "k", dataclasses.replace(choice, stored=not choice.stored))
    for file in tmp_path.glob("k/*.npy"):
        file.unlink()
    again = _cache(tmp_path, measure=True)
    assert torch.equal(again.at(1, rows, views), values)
    assert bool(list(tmp_path.glob("k/*.npy"))) is not choice.stored
    assert again.decisions[1].startswith("computed" if choice.stored else "stored")


@pytest.mark.parametrize(
    ("compute", "size", "stored"),
    [(1e-3, 10**6, True), (1e-3, 10**9, False), (1e-5, 10**6, False)],
    ids=["dear and small", "dear and huge", "cheap and small"],
)
def test_a_cut_is_stored_if_writing_and_reading_cost_less_than_computing(
    compute: float, size: int, stored: bool
) -> None:
    choice = choose_cut(3, 0, size=size, pairs=1000, compute=compute, read=2e-5, available=10**10)
    assert choice.stored is stored


def test_activations_stay_on_the_device_while_they_fit(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    plain = _cache(tmp_path)
    expected = [plain.at(cut, rows[::-1], views) for cut in (5, 6, 7)]
    size = (tmp_path / "k" / "cut7-0.npy").stat().st_size
    cache = _cache(tmp_path, device_bytes=2 * size)
    for cut, values in zip((5, 6, 7), expected, strict=True):
        assert torch.equal(cache.at(cut, rows[::-1], views), values)
    kept = [key for key, tensor in cache._resident.items() if tensor.nbytes <= 2 * size]
    assert kept and sum(t.nbytes for t in cache._resident.values()) <= 2 * size
    assert (7, 0) in cache._resident  # the last one used


@pytest.mark.slow
def test_two_processes_may_fill_one_key(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import hashlib, numpy as np, torch
        torch.set_num_threads(1)
        import test_activation_cache as t
        rows = np.arange(t.ROWS)
        cache = t._cache(__import__("pathlib").Path({str(tmp_path)!r}), measure=True)
        digest = hashlib.sha256()
        for cut in (2, 5, 8, 3):
            for view in range(t.VIEWS + 1):
                digest.update(cache.at(cut, rows, np.full(t.ROWS, view)).numpy().tobytes())
        print(digest.hexdigest())
        """
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=300)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1] != ""
    assert not list(tmp_path.glob("k/*.tmp"))


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import os, signal, numpy as np
        import test_activation_cache as t
        cache = t._cache(__import__("pathlib").Path({str(tmp_path)!r}))
        def kill(*_):
            if os.path.exists({str(tmp_path / "k" / "cut4-0.tmp")!r}):
                os.kill(os.getpid(), signal.SIGKILL)
        os.fsync = kill  # everything is written, nothing renamed
        cache.at(4, np.arange(t.ROWS), np.zeros(t.ROWS, np.int64))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=300)
    assert done.returncode == -9
    assert [f.name for f in tmp_path.glob("k/*.tmp")] == ["cut4-0.tmp"]
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    computed = _cache(tmp_path / "other", capacity=0).at(4, rows, views)
    assert torch.equal(_cache(tmp_path).at(4, rows, views), computed)
    assert [f.name for f in tmp_path.glob("k/cut4-*") if f.suffix != ".lock"] == ["cut4-0.npy"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mounted)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_disk_that_fills_up_costs_time_and_nothing_else(small_disk: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache = _cache(small_disk, on_note=notes.append)
    computed = _cache(tmp_path / "other", capacity=0)
    for cut in (1, 2, 8, 1):
        for view in range(VIEWS + 1):
            assert torch.equal(cache.at(cut, rows, views + view), computed.at(cut, rows, views + view))
    # Cut 1 is 32 x 16 x 16 at two bytes, 197 KB a shard: the second does not fit any more.
    assert notes[0] == (
        "activations at cut 1 are computed in every epoch: could not be stored: No space left on device"
    )
    assert len(notes) == len(set(notes))
    assert not list(small_disk.glob("k/*.tmp"))


def test_a_full_disk_falls_back_to_computing_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    cache = _cache(tmp_path, on_note=notes.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    assert cache.at(4, rows, views).shape[0] == ROWS
    cache.at(4, rows, views)
    assert notes == ["activations at cut 4 are computed in every epoch: could not be stored: No space left on device"]


def test_every_image_shows_each_view_once_in_views_plus_one_passes(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    cache = _cache(tmp_path, capacity=0)
    real = cache.at
    cache.at = lambda cut, rows, views: (
        asked.extend(zip(rows.tolist(), views.tolist(), strict=True)),
        real(cut, rows, views),
    )[1]  # type: ignore[method-assign]
    order = view_order(ROWS, VIEWS, seed=3)
    batches = ActivationBatches(
        cache, 0, np.arange(ROWS), np.zeros(ROWS, np.int64), batch_size=5, view_order=order, seed=3
    )
    sizes = [len(labels) for _ in range(VIEWS + 1) for _, labels, _ in batches]
    assert sorted(asked) == sorted(map(tuple, _pairs().tolist()))
    assert sizes == [4] * 9  # 12 images in 3 nearly equal batches: none is left with one image
