"""Files with a digest: whatever byte changes, wherever the file is cut, it is noticed; modes of files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.array_file import copied_rows, map_array, write_array
from lightning_modules.whole_file import DamagedFileError, from_cache, read_checked, whole_file

CONTENT = b"some content\n"


def written(path: Path) -> bytes:
    with whole_file(path, digest=True) as temporary:
        temporary.write_bytes(CONTENT)
    assert read_checked(path) == CONTENT
    return path.read_bytes()


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    whole = written(path)
    damaged = [whole[:length] for length in range(len(whole))] + [whole + b"\n", bytes(len(whole)), CONTENT]
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        damaged.append(bytes(changed))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"file\.bin is damaged, or an older version wrote it"):
            read_checked(path)


def test_a_damaged_cache_file_is_removed_and_said_once(tmp_path: Path) -> None:
    path, notes = tmp_path / "file.bin", list[str]()
    assert from_cache(path, read_checked, notes.append) is None and notes == []
    path.write_bytes(written(path)[1:])
    for _ in range(2):
        assert from_cache(path, read_checked, notes.append) is None
    assert notes == [f"{path} is damaged, or an older version wrote it; it is made again."]


def test_an_array_that_is_none(tmp_path: Path) -> None:
    written(tmp_path / "file.npy")
    with pytest.raises(DamagedFileError, match=r"file\.npy is no array"):
        map_array(tmp_path / "file.npy")


@pytest.mark.parametrize("rows", [0, 1, 700])
def test_rows_are_copied_once(tmp_path: Path, rows: int) -> None:
    source = np.random.default_rng(0).integers(0, 255, (1000, 3, 2, 1), np.uint8)
    chosen = np.sort(np.random.default_rng(1).permutation(1000)[:rows])
    for _ in range(2):
        found = copied_rows(tmp_path / "below" / "rows.npy", source, chosen, print)
        np.testing.assert_array_equal(found, source[chosen])
        assert isinstance(found, np.memmap) and not found.flags.writeable
    written_at = (tmp_path / "below" / "rows.npy").stat().st_mtime_ns
    copied_rows(tmp_path / "below" / "rows.npy", source, chosen, print)
    assert (tmp_path / "below" / "rows.npy").stat().st_mtime_ns == written_at


def test_a_written_array_is_read_by_plain_numpy(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int16).reshape(4, 3)
    write_array(tmp_path / "a.npy", (array[:1], array[1:]), 4)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("alone", [True, False])
def test_a_new_file_follows_the_umask_and_a_replaced_one_keeps_its_mode(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "file.bin"
    before = os.umask(0o027)
    try:
        for mode in (0o640, 0o604, 0o400):
            with whole_file(path, alone=alone) as temporary:
                temporary.unlink()
                temporary.touch(0o600)  # as safetensors does
            assert stat.S_IMODE(path.stat().st_mode) == mode
            path.chmod({0o640: 0o604}.get(mode, 0o400))
    finally:
        os.umask(before)
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]


def test_nobody_reads_a_private_file_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.touch(0o600)
    with whole_file(path) as file:
        file.write_text("secret")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    whole = written(path)
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == whole and len(list(tmp_path.iterdir())) == 1
