"""Signals: when they are obeyed, and where they are raised."""

from __future__ import annotations

import signal

import pytest

from search.command_line.interrupts import InterruptFlag, graceful_interrupts


def test_the_first_ctrl_c_asks_and_the_second_stops() -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), graceful_interrupts(said.append) as flag:
        assert not flag()
        signal.raise_signal(signal.SIGINT)
        assert flag()
        assert said == ["Stopping after the running trial; press Ctrl-C again to stop now."]
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was ignored")
    assert len(said) == 1


def test_sigterm_leaves_with_143() -> None:
    with pytest.raises(SystemExit) as left, graceful_interrupts(print):
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143


@pytest.mark.parametrize(
    ("signals", "stop"),
    [([signal.SIGTERM], SystemExit), ([signal.SIGINT, signal.SIGINT], KeyboardInterrupt)],
    ids=["SIGTERM", "Ctrl-C twice"],
)
def test_a_held_stop_waits_for_the_flag_to_be_asked(signals: list[signal.Signals], stop: type[BaseException]) -> None:
    written = []
    with graceful_interrupts(lambda line: None) as flag:
        with pytest.raises(stop), flag.held():
            for number in signals:
                signal.raise_signal(number)
            written.append("a whole record")
            flag()
            written.append("another")
        with pytest.raises(stop):
            flag()
    assert written == ["a whole record"]


def test_a_held_stop_is_raised_at_the_end_of_the_block() -> None:
    written = []
    with graceful_interrupts(print) as flag, pytest.raises(SystemExit), flag.held():
        signal.raise_signal(signal.SIGTERM)
        written.append("everything")
    assert written == ["everything"]


def test_once_closed_nothing_is_raised() -> None:
    written = []
    with graceful_interrupts(print) as flag:
        flag.close()
        signal.raise_signal(signal.SIGTERM)
        written.append("everything")
    assert written == ["everything"]


def test_an_error_in_a_held_block_is_not_replaced() -> None:
    with graceful_interrupts(print) as flag, pytest.raises(OSError, match="disk full"), flag.held():
        signal.raise_signal(signal.SIGTERM)
        raise OSError("disk full")


def test_earlier_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with graceful_interrupts(print):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert InterruptFlag()() is False
