"""kill -9 at random times in every step of a month, then the same command: one promotion, as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
from filelock import FileLock

from search.retrain.ledger import MonthRow, ledger_path
from tests.search.retrain.conftest import Months, Outcome, Saved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # on a machine that others use as well

STEPS = ("check", "look", "depth", "search", "compare", "report")
LEARNS = ("retrain.epochs=20",)  # the images are separable by construction: see LEARNS of the conftest
PATIENCE = 180
SERVER = Path(__file__).parents[1] / "command_server.py"


class Server:
    """Starts commands as processes of their own; see `../command_server.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._streams = {"out": folder / "out", "err": folder / "err"}
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), "search.retrain.__main__", "search.retrain.driver"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def start(self, months: Months, *arguments: str) -> int:
        """Begin a command; its process id."""
        streams = {name: str(path) for name, path in self._streams.items()}
        given = {one.split("=")[0] for one in arguments}
        rest = [one for one in months.arguments if one.split("=")[0] not in given]  # the last of two would count
        request = {"arguments": [*arguments, *rest], "cwd": str(self._folder), **streams}
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> Outcome:
        """Wait for it."""
        code = self._answer()
        return Outcome(
            code, *(path.read_bytes().decode("utf-8", "backslashreplace") for path in self._streams.values())
        )

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=300)
        self._process.stdout.close()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server died"
        return int(line)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.close()


@dataclass(frozen=True)
class Undisturbed:
    """What a month that nobody killed took and gave."""

    months: Months
    row: MonthRow
    seconds: dict[str, float]
    command: float


@pytest.fixture(scope="module")
def undisturbed(first: tuple[Months, Outcome], saved: Saved, server: Server, tmp_path_factory: pytest.TempPathFactory
                ) -> Undisturbed:  # fmt: skip
    made = first[0]
    saved.put_back()
    months = Months(Path(copytree(made.images, tmp_path_factory.mktemp("killed") / "months")), made.model, made.root)
    months.arrives("2020-02", drift=True)
    began = time.monotonic()
    server.start(months, *LEARNS)
    result = server.end()
    took = time.monotonic() - began
    assert result.code == 0, result.err
    row = months.ledger.months()[-1]
    seconds = {step: seconds for step, (_, seconds) in months.ledger.steps(row).items()}
    saved.put_back()
    return Undisturbed(months, row, seconds, took)


@pytest.fixture
def asked(undisturbed: Undisturbed, saved: Saved) -> Iterator[Months]:
    """2020-02 has arrived, and nothing has been done about it."""
    saved.put_back()
    yield undisturbed.months
    saved.put_back()


class Steps:
    """Which step of the newest month is being done, as the ledger has it."""

    def __init__(self, months: Months) -> None:
        self._model = months.model
        self._ledger = sqlite3.connect(f"file:{ledger_path(months.root)}?mode=ro", uri=True)

    @property
    def now(self) -> str:
        """The step begun and not finished; empty where there is none."""
        rows = self._ledger.execute(
            "SELECT step FROM steps JOIN months ON months.id = month_id WHERE model = ? AND month > '2020-01' "
            "AND state = 'running' AND steps.finished IS NULL",
            (self._model,),
        )
        return "".join(step for (step,) in rows)

    def wait_for(self, step: str, pid: int) -> None:
        """Until it has begun, or the process has ended."""
        end = time.monotonic() + PATIENCE
        while self.now != step and alive(pid) and time.monotonic() < end:
            time.sleep(0.002)

    def close(self) -> None:
        self._ledger.close()


@pytest.fixture
def steps(asked: Months) -> Iterator[Steps]:
    opened = Steps(asked)
    yield opened
    opened.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def kill(server: Server, pid: int) -> Outcome:
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    return server.end()


def finished(server: Server, undisturbed: Undisturbed) -> None:
    """The same command again does what is left, and leaves what an undisturbed one leaves."""
    months, wanted = undisturbed.months, undisturbed.row
    server.start(months, *LEARNS)
    result = server.end()
    assert result.code == 0, result.err
    rows = [row for row in months.ledger.months() if row.month == "2020-02"]
    assert [row.state for row in rows] == ["done"]
    (row,) = rows
    assert (row.outcome, row.reason, row.champion_before, row.champion_after) == (
        "promoted", wanted.reason, "1", row.challenger,
    )  # fmt: skip
    clocks = {"seconds"}
    assert {k: v for k, v in row.numbers.items() if k not in clocks} == {
        k: v for k, v in wanted.numbers.items() if k not in clocks
    }
    assert tuple(months.ledger.steps(row)) == STEPS
    promotions = [(one.kind, one.to_version, one.state) for one in months.ledger.promotions()]
    assert promotions == [("bootstrap", "1", "done"), ("promotion", row.challenger, "done")]
    assert months.aliases == {"champion": row.challenger, "previous": "1"}
    assert months.client.get_model_version(months.model, str(row.challenger)).run_id == row.run_id
    assert months.runs("attributes.status = 'RUNNING'") == []
    of_month = months.runs("tags.kind = 'retraining'")
    assert [run.info.run_id for run in of_month if run.info.status == "FINISHED"] == [row.run_id]
    folder = months.root / "retraining"
    assert not (folder / f"{months.model}.owner.json").exists()
    FileLock(folder / f"{months.model}.lock").acquire(timeout=0).lock.release()
    assert not any((folder / months.model).glob("*"))


@pytest.mark.parametrize(
    ("step", "times"),
    [
        ("look", 1),
        ("search", 2),
        ("compare", 1),
        *(pytest.param(step, 1, marks=pytest.mark.long) for step in ("check", "depth", "report")),
    ],
)
def test_killed_in(
    step: str, times: int, asked: Months, server: Server, undisturbed: Undisturbed, saved: Saved, steps: Steps
) -> None:
    chance, hits = random.Random(step), 0
    for missed in range(8):
        saved.put_back()
        pid = server.start(asked, *LEARNS)
        steps.wait_for(step, pid)
        time.sleep(chance.uniform(0, 0.9) * undisturbed.seconds[step] / (1 + missed - hits))
        assert kill(server, pid).code in (0, -signal.SIGKILL)
        if steps.now == step:
            assert asked.aliases == {"champion": "1"} and len(asked.ledger.promotions()) == 1
            hits += 1
        finished(server, undisturbed)
        if hits == times:
            return
    pytest.fail(f"killed {hits} times in {step}")


@pytest.mark.parametrize(
    "step", ["search", *(pytest.param(step, marks=pytest.mark.long) for step in ("look", "report"))]
)
def test_terminated_in(step: str, asked: Months, server: Server, undisturbed: Undisturbed, steps: Steps) -> None:
    """What a timer or a cluster does first: the month's run is closed at once, and the same command goes on."""
    pid = server.start(asked, *LEARNS)
    steps.wait_for(step, pid)
    time.sleep(0.3 * undisturbed.seconds[step])
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
    result = server.end()
    assert result.code in (0, 143)
    # Python tells of a signal that came in the middle of somebody's __del__, and then it is lost.
    assert not result.err or result.err.startswith("Exception ignored in: ")
    if result.code:
        assert asked.runs("attributes.status = 'RUNNING'") == []
    finished(server, undisturbed)


def test_killed_anywhere_and_again(asked: Months, server: Server, undisturbed: Undisturbed, saved: Saved) -> None:
    """At any time of the whole command, loading and promoting too, several times in a row."""
    chance = random.Random(7)
    for _ in range(3):
        pid = server.start(asked, *LEARNS)
        time.sleep(chance.uniform(0, 0.6) * undisturbed.command)
        kill(server, pid)
        assert asked.aliases["champion"] in ("1", *(one.to_version for one in asked.ledger.promotions()))
    finished(server, undisturbed)
    server.start(asked, *LEARNS)
    assert server.end().out.startswith("Nothing to do: ")


@pytest.mark.long  # other moments than those of test_killed_in
def test_killed_and_the_month_changes_before_it_is_continued(
    asked: Months, server: Server, undisturbed: Undisturbed, steps: Steps, tmp_path: Path
) -> None:
    months = Months(Path(copytree(asked.images, tmp_path / "months")), asked.model, asked.root)
    pid = server.start(months, *LEARNS)
    steps.wait_for("search", pid)
    time.sleep(0.5 * undisturbed.seconds["search"])
    assert kill(server, pid).code == -signal.SIGKILL
    months.arrives("2020-02", drift=True, images=1, seed=1)
    server.start(months, *LEARNS)
    result = server.end()
    assert result.code == 0, result.err
    abandoned, done = months.ledger.months()[1:]
    assert (abandoned.state, done.state, done.outcome) == ("abandoned", "done", "promoted")
    assert "its data changed meanwhile" in done.why and "33 images" in result.out
    assert months.runs("attributes.status = 'RUNNING'") == []
    assert months.client.get_run(str(abandoned.run_id)).info.status == "KILLED"
    assert [one.kind for one in months.ledger.promotions()] == ["bootstrap", "promotion"]


@pytest.mark.long  # other moments than those of test_killed_in
def test_killed_while_the_first_champion_is_made(asked: Months, server: Server, undisturbed: Undisturbed) -> None:
    months = Months(asked.images, "plates", asked.root)
    chance = random.Random(3)
    for share in (0.4, 0.8):
        pid = server.start(months, "retrain.start_months=1", "retrain.depth=none")
        time.sleep((share + chance.uniform(-0.2, 0.2)) * undisturbed.command)
        kill(server, pid)
    server.start(months, "retrain.start_months=1", "retrain.depth=none")
    result = server.end()
    assert result.code == 0, result.err
    rows, (promotion,) = months.ledger.months(), months.ledger.promotions()
    assert [(row.month, row.outcome) for row in rows if row.state == "done"] == [
        ("2020-01", "bootstrap"), ("2020-02", "not needed"),
    ]  # fmt: skip
    assert (promotion.kind, promotion.state, months.aliases) == (
        "bootstrap",
        "done",
        {"champion": promotion.to_version},
    )
    assert months.runs("attributes.status = 'RUNNING'") == []


def test_two_processes_at_once(asked: Months, server: Server, steps: Steps) -> None:
    pid = server.start(asked, *LEARNS)
    steps.wait_for("look", pid)
    refused = asked.retrain(*LEARNS)
    assert refused.code == 2
    assert refused.err.startswith(f"retrain: retraining of model 'sheets' is being run by process {pid}, started ")
    assert refused.err.count("\n") == 1
    assert server.end().code == 0
    assert [row.outcome for row in asked.ledger.months()] == ["bootstrap", "promoted"]
