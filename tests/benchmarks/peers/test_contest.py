"""The command, its refusals and what it keeps; no peer is run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results_file
from benchmarks.peers import __main__ as command
from benchmarks.peers.contest import PEERS, last_words
from benchmarks.peers.contract import Job, answer
from benchmarks.peers.figure import draw
from benchmarks.peers.lists import TASKS

RIVALS = Path(command.__file__).parent / "rivals"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kaggle"], "unknown peer or task 'kaggle'; accepted: neighbours, logistic, timm, "),
        (["seeds=a"], "seeds must be whole numbers, as in seeds=0,1,2"),
        (["environment", "keras"], "unknown environment 'keras'; accepted: fastai, autogluon"),
    ],
)
def test_refusals(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def compete(peer: str, task: str, seed: int, *, short: bool) -> dict[str, Any]:
        ran.append((peer, task, seed))
        return {"peer": peer, "task": task, "seed": seed, "accuracy": 0.9, "macro_f1": 0.9, "seconds": 1.0}

    monkeypatch.setattr(results_file, "_FOLDER", tmp_path)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "compete", compete)
    monkeypatch.setattr(command, "refusal", lambda *_: None)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    assert command.main(["timm", "logistic", "neu_10", "seeds=0,1"]) == 0
    assert ran == [("timm", "neu_10", 0), ("logistic", "neu_10", 0), ("timm", "neu_10", 1), ("logistic", "neu_10", 1)]
    ran.clear()
    assert command.main(["timm", "logistic", "neu_10", "seeds=1,2"]) == 0
    assert ran == [("timm", "neu_10", 2), ("logistic", "neu_10", 2)]
    assert command.main(["timm", "neu_10", "seeds=0", "short"]) == 0
    assert ran[-1] == ("timm", "neu_10", 0) and len(results_file.read_rows("peers")) == 6


def test_last_words_name_no_folder() -> None:
    assert last_words("started\nOSError: '/some/where/x.bin' is not b/c.txt\n \n") == "OSError: 'x.bin' is not b/c.txt"
    assert last_words("\n") == "no word"


def test_every_peer_has_its_module() -> None:
    assert all((RIVALS / f"{peer.rival}.py").is_file() for peer in PEERS.values() if peer.rival)


def test_a_job_and_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("lists.json", "weights.safetensors", str(tmp_path), 3, 2, {"epochs": 1})
    job.write(tmp_path / "job.json")
    monkeypatch.setattr(sys, "argv", ["rival", str(tmp_path / "job.json")])
    assert Job.of_command_line() == job
    answer(job, trained_at=1.0, predicted=[0, 1], settings={}, packages=("numpy",))
    assert '"predicted": [0, 1]' in (tmp_path / "answer.json").read_text()


def test_the_figure_needs_rows_and_draws_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no rows yet"):
        draw([], tmp_path / "peers.png")
    rows = [
        {"peer": peer, "task": task, "seed": seed, "accuracy": 0.9, "macro_f1": 0.5, "seconds": 3.0 * 2**place}
        for place, peer in enumerate(PEERS)
        for task in TASKS
        for seed in (0, 1)
    ]
    assert draw(rows, tmp_path / "peers.png").stat().st_size > 10_000
