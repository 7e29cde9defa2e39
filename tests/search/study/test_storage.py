"""The journal of a study where the disk refuses a record."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from search.command_line.exits import until_interrupted
from search.errors import StoreError
from search.study.storage import open_storage, repair_journal


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """What a quota does: a write beyond `size` bytes stops there, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 20])
def test_after_half_a_record_there_is_no_other(tmp_path: Path, room: int) -> None:
    path = tmp_path / "full.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="full")
    study.set_user_attr("before", 1)
    size = path.stat().st_size
    with no_file_above(size + room), pytest.raises(OSError, match=r"full\.journal") as refused:
        study.set_user_attr("lost", "x" * 100)
    assert refused.value.errno == errno.EFBIG
    with pytest.raises(OSError, match=r"full\.journal"):  # there is room again, but half a record lies there
        study.set_user_attr("after", 2)
    assert repair_journal(path) == room and path.stat().st_size == size
    again = optuna.load_study(study_name="full", storage=open_storage(path))
    assert again.user_attrs == {"before": 1}
    again.set_user_attr("after", 2)
    assert again.user_attrs == {"before": 1, "after": 2}


@pytest.mark.timeout(20)  # Optuna waits half a minute for a lock that lies there, then tries to remove it without end
def test_a_lock_that_cannot_be_removed_is_not_waited_for(tmp_path: Path) -> None:
    """The lock of a name so long can be made; the name it is given to be removed is longer than a name may be."""
    storage = open_storage(tmp_path / f"{'n' * 200}.journal")
    for name in ("first", "second"):
        with pytest.raises(OSError, match=r"nnn\.journal") as refused:
            optuna.create_study(storage=storage, study_name=name)
        assert refused.value.errno == errno.ENAMETOOLONG


FORBIDDEN = "cannot be read or written (no); make it readable and its folder writable, then run the same command again"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "s.journal cannot be written (no); make room on the disk, then run the same command again"),
        (errno.EFBIG, "s.journal cannot be written (no); make room on the disk, then run the same command again"),
        (errno.EDQUOT, "s.journal cannot be written (no); make room on the disk, then run the same command again"),
        (errno.EACCES, f"s.journal {FORBIDDEN}"),
        (errno.EROFS, f"s.journal {FORBIDDEN}"),
        (errno.EIO, "s.journal cannot be read or written (no); see to the disk, then run the same command again"),
    ],
)
def test_what_the_disk_refuses_is_said_in_one_line(number: int, words: str) -> None:
    def work() -> int:
        raise OSError(number, "no", "s.journal")

    with pytest.raises(StoreError) as refused:
        until_interrupted("search", work)
    assert str(refused.value) == words


def test_other_errors_of_the_system_are_not_put_down_to_the_disk() -> None:
    def work() -> int:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        until_interrupted("search", work)
