"""`python -m search.schedule`: when it runs, that runs never overlap, and how it ends."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from search.schedule.__main__ import main, run_schedule
from search.schedule.cron_trigger import cron_trigger, fire_times

BERLIN = ZoneInfo("Europe/Berlin")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def next_times(line: str, after: datetime, count: int = 3, zone: ZoneInfo = BERLIN) -> list[str]:
    times = islice(fire_times(cron_trigger(line, zone), zone, after), count)
    return [f"{at:%Y-%m-%d %H:%M %z}" for at in times]


class TestCron:
    @pytest.mark.parametrize(
        ("line", "days"),
        [
            ("0 3 2 * *", ["11-02", "12-02", "01-02"]),
            ("0 3 * * 1", ["11-02", "11-09", "11-16"]),  # a Monday, where APScheduler has Tuesday
            ("0 3 * * 0", ["11-01", "11-08", "11-15"]),
            ("0 3 * * 7", ["11-01", "11-08", "11-15"]),
            ("0 3 * * sun", ["11-01", "11-08", "11-15"]),
            ("0 3 * * fri-sun", ["11-01", "11-06", "11-07"]),
            ("0 3 13 * 5", ["11-06", "11-13", "11-20"]),  # either is enough, as for cron
            ("0 3 */10 * mon", ["12-21", "01-11", "02-01"]),  # unless one begins with *: then both
            ("0 3 1 feb-mar,dec *", ["12-01", "02-01", "03-01"]),
            ("0 3 31 * *", ["12-31", "01-31", "03-31"]),
            ("@monthly", ["11-01", "12-01", "01-01"]),
        ],
    )
    def test_days(self, line: str, days: list[str]) -> None:
        found = next_times(line, datetime(2026, 10, 31, 12, tzinfo=BERLIN))
        assert [at[5:10] for at in found] == days

    def test_times_that_a_change_of_the_clock_leaves_out_or_repeats(self) -> None:
        spring = next_times("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=BERLIN), 2)
        assert spring == ["2026-03-29 03:30 +0200", "2026-03-30 02:30 +0200"]
        autumn = next_times("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=BERLIN))
        assert autumn == ["2026-10-25 02:30 +0200", "2026-10-25 02:30 +0100", "2026-10-26 02:30 +0100"]

    @settings(max_examples=40)
    @given(
        st.sets(st.integers(0, 59), min_size=1, max_size=3), st.sets(st.integers(0, 23), min_size=1, max_size=3),
        st.sets(st.integers(1, 31), max_size=3), st.sets(st.integers(0, 6), max_size=3), st.integers(0, 400 * 24),
    )  # fmt: skip
    def test_against_trying_every_minute(
        self, minutes: set[int], hours: set[int], days: set[int], weekdays: set[int], offset: int
    ) -> None:
        fields = [",".join(map(str, sorted(part))) or "*" for part in (minutes, hours, days, weekdays)]
        line = f"{fields[0]} {fields[1]} {fields[2]} * {fields[3]}"
        start = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(hours=offset)

        def fires(at: datetime) -> bool:
            by_day, by_weekday = at.day in days, at.isoweekday() % 7 in weekdays
            chosen = [by for by, given in ((by_day, days), (by_weekday, weekdays)) if given]
            return at.minute in minutes and at.hour in hours and (any(chosen) or not chosen)

        every = (start + timedelta(minutes=k) for k in range(60 * 24 * 70))
        expected = [f"{at:%Y-%m-%d %H:%M} +0000" for at in islice((at for at in every if fires(at)), 4)]
        assert next_times(line, start, len(expected), ZoneInfo("UTC")) == expected

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("0 3 2 *", "must be five fields"),
            ("@often", "must be five fields, .*@monthly"),
            ("60 3 2 * *", "'60' must be .*values are 0..59"),
            ("0 3 0 * *", "'0' must be .*values are 1..31"),
            ("0 3 2 * 8", "'8' must be .*values are 0..7 or sun, mon"),
            ("0 3 2 janu *", "'janu' must be .*or jan, feb"),
            ("0 3 2 * mon/x", "'mon/x' must be"),
            ("0 5-3 2 * *", "'5-3' must be"),
            ("*/0 3 2 * *", r"'\*/0' must be"),
            ("0 3 30 feb *", "never fires"),
        ],
    )  # fmt: skip
    def test_bad_lines(self, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([f"cron={line}", "times=1"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and re.search(f"^schedule: cron.*{message}", err), err


class TestTimeZone:
    @pytest.mark.parametrize(
        ("zone", "shown", "winter", "summer"),
        [
            ("Europe/Berlin", "Europe/Berlin", "+0100", "+0200"),
            (":Europe/Berlin", "Europe/Berlin", "+0100", "+0200"),
            ("", "UTC", "+0000", "+0000"),
        ],
    )
    def test_is_what_the_variable_says(
        self, zone: str, shown: str, winter: str, summer: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        self.set_zone(zone, monkeypatch)
        assert main(["cron=30 2 1 1,7 *", "times=2"]) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == f"Next times ({shown}):"
        found = dict(re.findall(r"-(0[17])-01 (02:30 .*)", "\n".join(lines)))
        assert found == {"01": f"02:30 {winter}", "07": f"02:30 {summer}"}

    @pytest.mark.parametrize(
        "zone", ["nonsense", "CET-1CEST,M3.5.0,M10.5.0/3", "UTC0", "/etc/passwd", "/gone", "../UTC", "a\nb", "é"]
    )
    def test_that_is_none_is_said_in_one_line_with_the_way_out(
        self, zone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.set_zone(zone, monkeypatch)
        assert main(["cron=@daily", "times=1"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("schedule: TZ=") and "timezone=" in err
        assert main(["cron=@daily", "times=1", "timezone=Europe/Berlin"]) == 0

    def test_that_the_machine_names_twice_is_said_too(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("TZ", raising=False)
        monkeypatch.setattr("tzlocal.get_localzone", lambda: ZoneInfo("Multiple conflicting\nconfigurations"))
        assert main(["cron=@daily", "times=1"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "this machine's time zone cannot be told (" in err and "timezone=" in err

    def set_zone(self, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setattr("tzlocal.unix._cache_tz", None)


class TestArguments:
    def test_times_are_shown_and_nothing_is_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["cron=30 2 1 1 *", "timezone=Europe/Berlin", "times=2", "retrain.depth=head"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Next times (Europe/Berlin):" and len(lines) == 3
        assert all(re.fullmatch(r"  \w{3} \d{4}-01-01 02:30 \+0100", line) for line in lines[1:])
        assert max(map(len, lines)) < 40

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "cron= is missing: when to run"),
            (["cron=@daily", "timezone=Mars"], "timezone must be a name such as Europe/Berlin or UTC, got 'Mars'"),
            (["cron=@daily", "catch_up=no"], "catch_up must be one of true, false, got 'no'"),
            (["cron=@daily", "times=0"], "times must be a whole number of at least 1"),
            (["cron=@daily", "retrain.dept=head"], "unknown setting 'retrain.dept'; did you mean retrain.depth"),
            (["cron=@daily", "retrain.margin=wide"], "retrain.margin"),
            (["cron=@daily", "month=2020-02"], "month=2020-02 is for python -m search.retrain"),
            (["cron=@daily", "rollback"], "arguments must be key=value, got 'rollback'"),
        ],
    )
    def test_bad_input_is_one_line(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("schedule: ") and message in err, err

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--help"]) == 0
        assert "catch_up" in capsys.readouterr().out


class Schedule:
    """`run_schedule` in this thread, with a command of our own and signals sent when something was said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.folder = folder
        self.signals: list[tuple[str, int]] = []

    def say(self, line: str) -> None:
        self.said.append(line)
        for pattern, number in list(self.signals):
            if re.search(pattern, line):
                self.signals.remove((pattern, number))
                # From another thread, and late enough that the process has set its own handlers.
                threading.Timer(0.5, os.kill, (os.getpid(), number)).start()

    def run(self, trigger: BaseTrigger, program: str, *, catch_up: bool = True) -> int:
        command = [sys.executable, "-S", "-c", program, str(self.folder)]
        return run_schedule(
            trigger, BERLIN, command, catch_up=catch_up, say=self.say, say_next=lambda: self.say("next: later")
        )


@pytest.fixture
def schedule(tmp_path: Path) -> Schedule:
    return Schedule(tmp_path)


NEVER = DateTrigger(datetime(2200, 1, 1, tzinfo=UTC))

PATIENT = """
import signal, sys, time
told = []
def on_signal(number, frame):
    told.append(str(number))
    if len(told) == SIGNALS:
        time.sleep(0.3)
        open(sys.argv[1] + "/told", "w").write(" ".join(told))
        sys.exit(7)
signal.signal(signal.SIGINT, on_signal)
signal.signal(signal.SIGTERM, on_signal)
while True:
    time.sleep(0.05)
"""

ONCE = """
import os, sys
if os.path.exists(sys.argv[1] + "/run"):
    os.kill(os.getpid(), 9)
open(sys.argv[1] + "/run", "w")
sys.exit(3)
"""


class TestRunning:
    def test_the_first_run_is_at_once_and_a_failed_one_ends_nothing(self, schedule: Schedule) -> None:
        schedule.signals = [("^Run 2 ended", signal.SIGTERM)]
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        assert schedule.run(IntervalTrigger(seconds=1), ONCE) == 143
        assert schedule.said[0].startswith("Run 1 starts: ")
        assert re.fullmatch(r"Run 1 ended after \d s with exit code 3; the schedule goes on\.", schedule.said[1])
        assert schedule.said[2] == "next: later"
        assert re.fullmatch(r"Run 2 .* with signal 9 \(SIGKILL\); the schedule goes on\.", schedule.said[4])
        assert schedule.said[-1] == "SIGTERM: the schedule has ended."
        assert {number: signal.getsignal(number) for number in before} == before

    def test_without_catching_up(self, schedule: Schedule) -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert schedule.run(NEVER, "", catch_up=False) == 130
        assert schedule.said == ["SIGINT: the schedule has ended."]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_a_signal_is_passed_on_and_the_run_waited_for(self, schedule: Schedule, number: int, code: int) -> None:
        schedule.signals = [("^Run 1 starts", number)]
        assert schedule.run(NEVER, PATIENT.replace("SIGNALS", "1")) == code
        assert (schedule.folder / "told").read_text() == str(int(number))
        assert "passed on to the run; waiting for it to end." in schedule.said[1]
        assert schedule.said[2].endswith("with exit code 7.") and schedule.said[3].endswith("the schedule has ended.")

    def test_a_second_signal_is_passed_on_as_well(self, schedule: Schedule) -> None:
        schedule.signals = [("^Run 1 starts", signal.SIGINT), ("passed on", signal.SIGINT)]
        assert schedule.run(NEVER, PATIENT.replace("SIGNALS", "2")) == 130
        assert (schedule.folder / "told").read_text() == "2 2"

    def test_a_time_during_a_run_makes_it_run_once_more(self, schedule: Schedule) -> None:
        schedule.signals = [("^Run 2 starts", signal.SIGTERM)]
        program = "import time; time.sleep(1.5)"
        start = datetime.now(UTC) + timedelta(seconds=0.4)
        assert (
            schedule.run(
                IntervalTrigger(seconds=0.3, start_date=start, end_date=start + timedelta(seconds=0.9)), program
            )
            == 143
        )
        starts = [line for line in schedule.said if "starts" in line]
        assert len(starts) == 2
        assert "A time came while this run was going on: running once more." in schedule.said

    def test_a_command_that_cannot_be_started(self, tmp_path: Path) -> None:
        said: list[str] = []
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        run: Callable[..., int] = run_schedule
        code = run(NEVER, BERLIN, [str(tmp_path / "gone")], catch_up=True, say=said.append, say_next=lambda: None)
        assert code == 143
        assert said[1] == "Run 1 could not be started (No such file or directory); the schedule goes on."


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[3] / "docs" / "scheduling.md").read_text(encoding="utf-8")


class TestPage:
    """What docs/scheduling.md tells to copy."""

    def test_units(self, page: str, tmp_path: Path) -> None:
        if shutil.which("systemd-analyze") is None:
            pytest.skip("no systemd-analyze here")
        interpreter = tmp_path / ".venv" / "bin" / "python"
        interpreter.parent.mkdir(parents=True)
        interpreter.symlink_to(sys.executable)
        units = re.findall(r"```ini\n# (\S+)\n(.*?)```", page, re.DOTALL)
        assert len(units) == 3
        for name, text in units:
            (tmp_path / name).write_text(text.replace("PROJECT", str(tmp_path)))
        done = subprocess.run(
            ["systemd-analyze", "verify", *(str(tmp_path / name) for name, _ in units)], capture_output=True, text=True
        )
        assert done.returncode == 0 and str(tmp_path) not in done.stderr, done.stderr
        (calendar,) = re.findall(r"OnCalendar=(.*)", page)
        done = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True)
        assert "Normalized form: *-*-02 03:00:00" in done.stdout, done.stderr

    def test_crontab_lines(self, page: str) -> None:
        (block,) = re.findall(r"```crontab\n(.*?)```", page, re.DOTALL)
        lines = block.splitlines()
        fields, _, command = lines[0].partition("  ")
        assert lines[1] == f"@reboot    {command}" and "%" not in command
        assert next_times(fields, datetime(2026, 10, 31, tzinfo=BERLIN), 1) == ["2026-11-02 03:00 +0100"]

    def test_manifest(self, page: str) -> None:
        (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        manifest = yaml.safe_load(block)
        spec, pod = manifest["spec"], manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "CronJob")
        assert next_times(spec["schedule"], datetime(2026, 10, 31, tzinfo=BERLIN), 1) == ["2026-11-02 03:00 +0100"]
        assert spec["concurrencyPolicy"] == "Forbid" and pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        assert container["command"][:3] == ["python", "-m", "search.retrain"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}

    def test_commands_are_understood(self, page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        commands = re.findall(r"search\.schedule (\"?cron=.*?)(?:\s+#.*)?$", page, re.MULTILINE)
        assert len(commands) == 3
        for command in commands:
            words = [word for word in shlex.split(command) if not word.startswith("times=")]
            assert main([*words, "times=1"]) == 0
            assert "-02 03:00" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_process_runs_retraining_at_once_and_ends_with_the_signal(tmp_path: Path) -> None:
    words = ["cron=0 3 2 * *", "data=folder", "data.path=gone", "timezone=UTC"]
    process = subprocess.Popen(
        [sys.executable, "-m", "search.schedule", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    seen = ""
    deadline = time.monotonic() + 200
    while "Next time" not in seen.partition("ended")[2] and time.monotonic() < deadline:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=300)[0]
    assert process.returncode == 143, seen + rest
    assert seen.startswith("Next times (UTC):\n")
    assert " Run 1 starts: " in seen and "search.retrain data=folder data.path=gone" in seen
    assert re.search(r"gone.*\n", seen.partition("starts")[2].partition("\n")[2])  # its own line
    assert "exit code 2; the schedule goes on." in seen
    assert "SIGTERM: the schedule has ended." in rest and "Traceback" not in seen + rest
    assert list(tmp_path.iterdir()) == []
