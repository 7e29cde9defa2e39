"""The console script, and that every command that is printed works in the way the user started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from search.invocation import COMMANDS, STARTED_BY, typed

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the console script as pip writes it."""
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["thawline"].split(":")
    script = tmp_path_factory.mktemp("bin of a user") / "thawline"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
    return script


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A line in a shell, in an empty folder: `run(line, path=None)`; `path` is put in front of PATH."""

    def run(line: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != STARTED_BY}
        found = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
        found["PATH"] = os.pathsep.join([*([str(path)] if path else []), os.environ["PATH"]])
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=found, capture_output=True, text=True)

    return run


def test_help_names_every_command_at_once(installed: Path, run: Run) -> None:
    started = time.monotonic()
    done = run("thawline --help", installed.parent)
    assert done.returncode == 0 and time.monotonic() - started < 5  # a sixth of a second on an idle machine
    assert all(f"\n  {name}" in done.stdout for name in COMMANDS)


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['thawline', '--help']; import search.thawline as m; assert m.main() == 0; "
        "heavy = {'torch', 'mlflow', 'optuna', 'hydra', 'numpy', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_and_says_how_it_was_started(command: str, installed: Path, run: Run) -> None:
    done = run(f"thawline {command} --help", installed.parent)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.lower().startswith(f"usage: thawline {command}"), first


def test_an_unknown_command_is_one_line(installed: Path, run: Run) -> None:
    done = run("thawline serch data=folder", installed.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "thawline: unknown command 'serch'; did you mean search?\n"


def test_a_next_step_works_where_the_script_is_not_on_the_path(installed: Path, run: Run) -> None:
    done = run(f"'{installed}' ui root=none")
    assert f"run '{installed}' search root=none first" in done.stderr


def test_python_is_named_by_what_the_shell_finds(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    found = run("python -m search.ui root=none", folder)
    assert "run python -m search root=none first" in found.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(STARTED_BY, raising=False)
    monkeypatch.chdir(tmp_path)
    assert typed("ui", "a b") == f"{sys.executable} -m search.ui 'a b'"
    monkeypatch.chdir(folder.parent)
    assert typed("ui") == f"{folder.name}/{Path(sys.executable).name} -m search.ui"


def test_recipes_are_named_where_just_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STARTED_BY, "just")
    assert typed("predict", "images=my images", root=Path("runs")) == "just predict 'images=my images' root=runs"
    assert typed("clean") == "just clean-cache"  # `just clean` removes the environment


def test_recipes_exist_and_pass_blanks_on(tmp_path: Path) -> None:
    text = (ROOT / "justfile").read_text(encoding="utf-8")
    recipe = {name: name for name in COMMANDS} | {"clean": "clean-cache"}
    assert "\nset positional-arguments\n" in text
    for command, (module, _) in COMMANDS.items():
        body = text.split(f"\n{recipe[command]} *")[1].split("\n\n")[0]
        assert body.endswith(f': setup\n    @{{{{ run }}}} {module} "$@"'), body


@pytest.mark.skipif(subprocess.run(["which", "just"], capture_output=True).returncode != 0, reason="needs just")
def test_just_passes_blanks_on(tmp_path: Path) -> None:
    (tmp_path / "justfile").write_text(
        (ROOT / "justfile").read_text().replace('bin := ".venv/bin"', f'bin := "{Path(sys.executable).parent}"')
    )
    (tmp_path / ".venv").mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    key = "cat requirements.lock pyproject.toml <(echo locked) | sha256sum > .venv/installed"
    subprocess.run(["bash", "-c", key], cwd=tmp_path, check=True)
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = ["just", "predict", "images=my images/of steel", "root=no where"]
    done = subprocess.run(line, cwd=tmp_path, env=found, capture_output=True, text=True)
    assert "predict: images must name at least one image file, got my images/of steel: no such file" in done.stderr
    done = subprocess.run(["just", "ui", "root=no where"], cwd=tmp_path, env=found, capture_output=True, text=True)
    assert "run just search 'root=no where' first" in done.stderr


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from search.command_line.exits import run_command

    def work() -> int:
        raise ModuleNotFoundError("No module named 'hydra'", name="hydra.core")

    with pytest.raises(SystemExit) as left:
        run_command("search", [], str, work)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1
    assert "search: the package 'hydra' is not installed for" in said and "just setup" in said

    def ours() -> int:
        raise ModuleNotFoundError("No module named 'search.nothing'", name="search.nothing")

    with pytest.raises(ModuleNotFoundError, match=r"search\.nothing"):
        run_command("search", [], str, ours)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images=nowhere"], "images must be a folder, IMAGES/<class>/*, or a table with the columns path and label"),
        (["images=.", "data.path=x"], "images= stands for data and data.path=: give one"),
        (["images=.", "data=simulated"], "images= stands for data and data.path=: give one"),
        (["root=a", "tracking.root=b"], "root= stands for tracking.root=: give one"),
    ],
)
def test_short_names_that_contradict_are_refused(words: list[str], said: str, run: Run) -> None:
    done = run(" ".join([sys.executable, "-m", "search", *words]))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_short_names_are_the_settings_that_they_stand_for(tmp_path: Path) -> None:
    from search.settings.compose import compose_settings

    (tmp_path / "my images").mkdir()
    (tmp_path / "list.csv").write_text("path,label\n")
    folder = compose_settings([f"images={tmp_path / 'my images'}", f"root={tmp_path}"])
    assert (folder.data.source, folder.data.path) == ("folder", tmp_path / "my images")
    assert folder.tracking.root == tmp_path
    table = compose_settings([f"images={tmp_path / 'list.csv'}"])
    assert (table.data.source, table.data.path) == ("manifest", tmp_path / "list.csv")


def test_clean_frees_the_caches_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    from search.clean import main

    for name in ("cache/images/a/pixels.npy", "cache/activations/b/0.npy", "studies/one.journal", "studies/one.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(2_000))
    assert main([f"root={tmp_path}", "dry=true"]) == 0
    assert "4 kB would be freed" in capsys.readouterr().out and (tmp_path / "cache/images/a/pixels.npy").exists()
    with FileLock(tmp_path / "studies" / "one.lock"):
        assert main([f"root={tmp_path}"]) == 2
        assert "clean: 'one' is running and uses the caches" in capsys.readouterr().err
    assert main([f"root={tmp_path}"]) == 0
    assert "4 kB freed." in capsys.readouterr().out
    assert not any((tmp_path / "cache").iterdir()) and (tmp_path / "studies/one.journal").exists()
    assert main([f"root={tmp_path}"]) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    assert main(["root=nowhere"]) == 2
