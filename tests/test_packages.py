"""The three packages: who imports whom, what loads when, what is declared and what a wheel holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "explain": {"explain"},
    "lightning_modules": {"explain", "lightning_modules"},
    "search": {"explain", "lightning_modules", "search"},
}


def _imported_packages(file: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        packages |= {name.split(".")[0] for name in names} & set(ALLOWED)
    return packages


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = [f for f in (ROOT / package).rglob("*.py") if f != ROOT / "explain" / "__main__.py"]
    assert files
    wrong = {str(f.relative_to(ROOT)): _imported_packages(f) - ALLOWED[package] for f in files}
    assert {name: packages for name, packages in wrong.items() if packages} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import search, explain, lightning_modules",
        "import search.__main__ as m; assert m.main(['--help']) == 0",
        "import search.__main__ as m; assert m.main(['--version']) == 0",
        "import search.__main__ as m; assert m.main(['search.trails=3']) == 2",
        "import search.predict.__main__ as m; assert m.main(['images=a', 'batch_size=0']) == 2",
        "import search.explain.__main__ as m; assert m.main(['images=a', 'model=b', 'methods=[c]']) == 2",
        "import search.export.__main__ as m; assert m.main(['images=a', 'precision=int8']) == 2",
        "import search.report.__main__ as m; assert m.main(['name=a']) == 2",
        "import search.retrain.__main__ as m; assert m.main(['--help']) == 0 and m.main(['reason=a']) == 2",
        "import search.schedule.__main__ as m; assert m.main(['cron=@daily', 'times=0']) == 2",
        "import search.ui as m; assert m.main(['port=0']) == 2",
        "import search.look.__main__ as m; assert m.main(['to=a.jpg']) == 2",
        "import search.clean as m; assert m.main(['root=/nowhere']) == 2",
    ],
)
def test_light_commands_load_neither_torch_nor_mlflow(code: str) -> None:
    check = "import sys; heavy = {'torch', 'mlflow', 'optuna', 'hydra'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines}


def _declared(project: dict[str, Any]) -> set[str]:
    """Names of all dependencies, those of the extras too."""
    return _names([*project["dependencies"], *chain(*project["optional-dependencies"].values())])


def test_every_dependency_has_its_line_and_every_line_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = _declared(project)
    rows = [row for row in (ROOT / "docs" / "dependencies.md").read_text().splitlines() if row.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1])}
    assert declared == explained


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _declared(project) <= pinned
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z0-9])", lock.strip()) if "==" in entry)
    assert "://" not in lock


@pytest.mark.slow
def test_a_wheel_finds_its_configuration_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        if name.startswith(("conf/", "explain/", "lightning_modules/", "search/", "README", "pyproject")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    install = ["uv", "pip", "install", "--no-deps", "--offline", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    for name in listed:
        if name.startswith(("search/", "lightning_modules/", "explain/")):
            assert (site / name).exists(), f"{name} is not in the wheel"
    presets = "experiment=few_images|fostering_resnet50|quick"
    for arguments, expected in ((["--help"], presets), (["--cfg", "job"], "source: simulated")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", _RUN.format(site=str(site)), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


_RUN = """
import runpy, sys
sys.path.insert(0, {site!r})
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__name__", type(f).__name__).lower()]
import search
assert search.__file__.startswith({site!r}), search.__file__
runpy.run_module("search", run_name="__main__", alter_sys=True)
"""
