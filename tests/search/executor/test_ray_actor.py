"""The worker's end of an actor without Ray: order of messages, what a node is asked for, folders of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.executor import ray_actor
from search.executor.ray_actor import TrialActor, versions
from search.executor.worker import Channel, ChannelClosedError, WorkerPlan

PIXELS = np.zeros((1, 2, 2, 3), np.uint8)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What an actor's thread receives; it says each word back."""
    words: list[object] = []

    def serve_plan(channel: Channel, plan: WorkerPlan) -> None:
        with suppress(ChannelClosedError):
            while (word := channel.receive()) != "last":
                words.append(word)
                channel.send(f"{word}!")

    monkeypatch.setattr(ray_actor, "serve_plan", serve_plan)
    return words


@pytest.fixture
def make(heard: list[object], tmp_path: Path) -> Iterator[Callable[..., TrialActor]]:
    before = Path.cwd()

    def actor(cache: Path | None = None, folder: Path = before) -> TrialActor:
        plan = WorkerPlan(None, None, PIXELS, None, cache or tmp_path / "cache", 1, None)  # type: ignore[arg-type]
        return TrialActor(plan, PIXELS, folder)

    yield actor
    os.chdir(before)


def _greet(actor: TrialActor, folder: Path, *files: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return actor.greet(folder, files)


def test_messages_are_taken_in_the_order_in_which_they_were_sent(
    make: Callable[..., TrialActor], heard: list[object], tmp_path: Path
) -> None:
    actor = make()
    _greet(actor, tmp_path / "studies")
    for number in (2, 0, 3, 1):
        actor.send(number, "abcd"[number])
    said: list[object] = []
    while len(said) < 4:
        said += actor.receive()
    assert heard == ["a", "b", "c", "d"] and said == ["a!", "b!", "c!", "d!"]
    actor.send(4, "last")
    actor.end(10)
    assert not actor._thread.is_alive()


def test_a_node_that_shares_the_folder_leaves_its_mark_there(
    make: Callable[..., TrialActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    greeting = _greet(make(), tmp_path / "studies", tmp_path)
    assert greeting.missing == () and greeting.guarded and greeting.versions == versions()
    assert [path.name for path in (tmp_path / "studies").iterdir()] == [greeting.mark]


def test_a_node_without_the_folder_says_so(
    make: Callable[..., TrialActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    greeting = make().greet(tmp_path / "studies", ())
    assert greeting.missing == (str(tmp_path / "studies"),) and not greeting.guarded


def test_files_are_looked_for_from_the_working_folder_of_the_driver(
    make: Callable[..., TrialActor], tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").touch()
    greeting = _greet(make(folder=tmp_path), tmp_path / "studies", Path("weights.pt"), Path("other.pt"))
    assert greeting.missing == ("other.pt",)
    make(folder=tmp_path / "not on this node")


def test_a_node_keeps_activations_where_it_is_told_or_among_its_temporary_files(
    make: Callable[..., TrialActor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert make(cache=tmp_path / "own")._plan.cache == tmp_path / "own"
    own = tmp_path / f"thawline-{os.getuid()}"
    assert make(cache=Path())._plan.cache == own and own.stat().st_mode & 0o777 == 0o700
    own.rmdir()
    own.symlink_to(tmp_path / "trap")
    (tmp_path / "trap").mkdir()
    other = make(cache=Path())._plan.cache
    assert other != own and other.parent == tmp_path and not other.is_symlink()


def test_receive_waits_for_something_to_say(make: Callable[..., TrialActor], tmp_path: Path) -> None:
    actor = make()
    _greet(actor, tmp_path / "studies")
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.extend(actor.receive()), daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    actor.send(0, "word")
    waiting.join(10)
    assert found == ["word!"]
    actor.end(0)
