"""`~` in whatever names a place: settings and the arguments of every command."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from lightning_modules.errors import InputError
from lightning_modules.simulated.__main__ import main as simulated
from search.__main__ import main as search
from search.clean import Arguments as Clean
from search.command_line.arguments import read_arguments
from search.copy_study import Arguments as CopyStudy
from search.explain.arguments import Arguments as Explain
from search.export.arguments import Arguments as Export
from search.look.__main__ import Arguments as Look
from search.notebook import load_study
from search.predict.arguments import Arguments as Predict
from search.report.__main__ import Arguments as Report
from search.retrain.__main__ import Arguments as Retrain
from search.schedule.__main__ import Arguments as Schedule
from search.schedule.__main__ import parse as schedule
from search.settings.compose import compose_settings
from search.settings.plain import flatten, key_paths
from search.ui import Arguments as Ui

COMMANDS = {
    "predict": Predict,
    "clean": Clean,
    "explain": Explain,
    "look": Look,
    "export": Export,
    "report": Report,
    "ui": Ui,
    "copy_study": CopyStudy,
    "retrain": Retrain,
    "schedule": Schedule,
}
REQUIRED = {
    "predict": ["images=i"],
    "export": ["images=i"],
    "explain": ["images=i", "model=m"],
    "report": ["study=s"],
    "copy_study": ["study=s", "to=journal"],
}


def _places(items: Mapping[str, tuple[Field[Any], Any]]) -> set[str]:
    return {key for key, (item, kind) in items.items() if Path in (kind, *get_args(kind)) or item.metadata["path"]}


def _arguments(cls: type) -> dict[str, tuple[Field[Any], Any]]:
    hints = get_type_hints(cls)
    return {item.metadata["name"] or item.name: (item, hints[item.name]) for item in fields(cls)}


def _setting(key: str) -> Callable[[str], str]:
    others = {"data.path": ["data=folder"], "executor.node_cache": ["executor=ray"]}.get(key, [])
    return lambda text: str(flatten(compose_settings([*others, f"{key}={text}"]))[key])


def _argument(command: str, name: str) -> Callable[[str], str]:
    cls = COMMANDS[command]
    others = [word for word in REQUIRED[command] if not word.startswith(f"{name}=")]
    field = _arguments(cls)[name][0].name
    return lambda text: str(getattr(read_arguments(cls, [*others, f"{name}={text}"]), field))


PLACES = {
    **{key: _setting(key)
       for key in ("data.path", "model.weights", "tracking.root", "decision.costs", "executor.node_cache")},
    **{f"predict {name}": _argument("predict", name)
       for name in ("images", "model", "to", "maps_to", "costs", "tracking.root")},
    **{f"export {name}": _argument("export", name) for name in ("images", "model", "to", "ranges", "tracking.root")},
    **{f"explain {name}": _argument("explain", name)
       for name in ("images", "model", "to", "boxes", "masks", "gap_head", "root")},
    **{f"report {name}": _argument("report", name) for name in ("root", "to")},
}  # fmt: skip
PLACES["copy_study tracking.root"] = _argument("copy_study", "tracking.root")
for command, name in (("clean", "root"), ("look", "to"), ("ui", "tracking.root")):
    REQUIRED[command] = []
    PLACES[f"{command} {name}"] = _argument(command, name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder; commands run beside a folder that is really called ~."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work" / "~").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_table_is_complete() -> None:
    found = {f"{command} {name}" for command, cls in COMMANDS.items() for name in _places(_arguments(cls))}
    assert found | _places(key_paths()) == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_every_place(place: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = PLACES[place]
    user = pwd.getpwuid(os.getuid())
    assert read("~") == str(home)
    assert read("~/a b/~") == f"{home}/a b/~"
    assert read(f"~{user.pw_name}/x") == f"{user.pw_dir.rstrip('/')}/x"
    for text in ("./~/x", "x~", "a/~", "'~"):
        assert Path(read(text)) == Path(text)
    (home.parent / "work" / "~lot 3").mkdir()
    assert read("~lot 3/x") == "~lot 3/x"
    for folder in ("", "~", str(home / "gone")):
        monkeypatch.setenv("HOME", folder)
        with pytest.raises(InputError, match=r"=~/x: there is no home folder here; give the whole path, or \./~/x for"):
            read("~/x")
    with pytest.raises(InputError, match="=~nobody at all/x: there is no user nobody at all; give the whole path"):
        read("~nobody at all/x")


def test_commands(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulated(["~/simulated", "images=1", "size=[16,16]"]) == 0
    assert (home / "simulated" / "manifest.csv").is_file()
    capsys.readouterr()
    assert search(["tracking.root=~/runs", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["tracking"]["root"] == str(home / "runs")
    with pytest.raises(InputError, match=f"no study 'x' in {home}/runs"):
        load_study("x", "~/runs")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(
        pwd, "getpwuid", lambda _: pwd.getpwnam("nobody at all")
    )  # a user whom the system does not know
    with pytest.raises(InputError, match="there is no home folder here"):
        schedule(["cron=@monthly", "tracking.root=~/runs"])
    assert search(["tracking.root=~/runs"]) == 2
    assert capsys.readouterr().err.startswith("search: tracking.root=~/runs: there is no home folder here; give the")
    assert not list((home.parent / "work" / "~").iterdir())
