"""The Dockerfile, read line by line: what it copies is there and enough, and its user has no rights."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def test_it_copies_what_there_is_and_all_that_the_package_needs() -> None:
    sources = {part for name, rest in _instructions() if name == "COPY" for part in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    needed = packages | set(project["tool"]["setuptools"]["package-dir"].values())
    assert needed | {"pyproject.toml", "requirements.lock", project["project"]["readme"]} <= sources
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources <= let_in


def test_packages_are_pinned_and_the_user_has_no_rights() -> None:
    steps = _instructions()
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert all("--no-deps" in rest for rest in installs) and "--require-hashes" in installs[0]
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["thawline"]
    last = max(number for number, (name, _) in enumerate(steps) if name == "RUN")
    assert steps.index(("USER", "thawline")) > last  # whatever is installed is not the user's
    assert not any(name == "ADD" for name, _ in steps)


def test_its_environment_keeps_telemetry_off_and_ray_guarded() -> None:
    environment = dict(pair.split("=", 1) for name, rest in _instructions() if name == "ENV" for pair in rest.split())
    assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_commands_of_the_documentation_start_modules_that_exist() -> None:
    steps = dict(_instructions())
    assert json.loads(steps["ENTRYPOINT"]) == ["python", "-m"] and json.loads(steps["CMD"]) == ["search", "--help"]
    text = (ROOT / "docs" / "scaling.md").read_text()
    modules = re.findall(r"docker run .*? thawline ([a-z._]+)", text)
    assert {"search", "search.ui", "mlflow"} <= set(modules)
    assert all(find_spec(module) for module in modules)
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"python:3\.(\d+)", (ROOT / "Dockerfile").read_text())
    assert version and requires == ">=3.11,<3.14" and 11 <= int(version[1]) <= 13
