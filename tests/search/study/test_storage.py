"""The journal of a study where the disk refuses a record."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from search.command_line.exits import until_interrupted
from search.errors import StoreError
from search.study.storage import open_storage, repair_journal, written_together


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


def _accesses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each write that has reached the disk."""
    seen: list[int] = []
    real = os.fsync

    def fsync(file: int) -> None:
        seen.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_the_records_of_a_block_are_one_write_and_can_be_read_within_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="s")
    before, accesses = path.read_bytes(), _accesses(monkeypatch)
    with written_together(study):
        study.enqueue_trial({"x": 0.5}, user_attrs={"slot": 3})
        trial = study.ask()
        assert trial.suggest_float("x", 0, 1) == 0.5 and trial.number == 0
        trial.set_user_attr("losses", {1: 0.25})
        assert study.trials[0].user_attrs == {"slot": 3, "losses": {"1": 0.25}}
        assert path.read_bytes() == before and not accesses
    assert len(accesses) == 1 and not path.with_name("s.journal.lock").is_symlink()
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    again = optuna.load_study(study_name="s", storage=open_storage(path))
    assert again.trials == study.trials and again.trials[0].intermediate_values == {1: 0.5}


def test_a_block_that_an_error_ends_is_written_and_an_empty_one_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="s")
    with pytest.raises(KeyboardInterrupt), written_together(study):
        study.set_user_attr("known", 1)
        raise KeyboardInterrupt
    size = path.stat().st_size
    with written_together(study):
        assert study.user_attrs == {"known": 1}
    assert path.stat().st_size == size
    assert optuna.load_study(study_name="s", storage=open_storage(path)).user_attrs == {"known": 1}


def test_what_another_process_writes_comes_before_a_block_or_after_it(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    ours = optuna.create_study(storage=open_storage(path), study_name="s")
    theirs = optuna.load_study(study_name="s", storage=open_storage(path))
    for number in range(3):
        theirs.set_user_attr(f"note{number}", number)
        with written_together(ours):
            ours.set_user_attr(f"first{number}", number)
            ours.set_user_attr(f"second{number}", number)
            other = optuna.load_study(study_name="s", storage=open_storage(path))
            assert f"note{number}" in other.user_attrs and f"first{number}" not in other.user_attrs
        theirs.set_user_attr(f"late{number}", number)
    again = optuna.load_study(study_name="s", storage=open_storage(path))
    assert again.user_attrs == ours.user_attrs == theirs.user_attrs and len(again.user_attrs) == 12


@pytest.mark.parametrize("room", [0, 1, 20, 300])
def test_after_a_block_that_was_half_written_there_is_no_other_record(tmp_path: Path, room: int) -> None:
    path = tmp_path / "full.journal"
    study = optuna.create_study(storage=open_storage(path), study_name="full")
    size = path.stat().st_size
    with no_file_above(size + room), pytest.raises(OSError, match=r"full\.journal") as refused, written_together(study):
        for name in ("one", "two", "three"):
            study.set_user_attr(name, "x" * 100)
    assert refused.value.errno == errno.EFBIG
    with pytest.raises(OSError, match=r"full\.journal"), written_together(study):
        study.set_user_attr("after", 2)
    repair_journal(path)
    again = optuna.load_study(study_name="full", storage=open_storage(path))
    assert list(again.user_attrs) == (["one"] if room == 300 else [])  # those that are whole
    again.set_user_attr("after", 2)
    assert again.user_attrs["after"] == 2


def test_a_study_that_is_not_in_a_journal_has_blocks_too() -> None:
    study = optuna.create_study()
    with written_together(study):
        study.set_user_attr("known", 1)
    assert study.user_attrs == {"known": 1}
