from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import explain

PACKAGE = Path(explain.__file__).parent
COMMAND_LINE = {PACKAGE / "__main__.py"}  # hands over to `search.explain`
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path not in COMMAND_LINE)


def test_importing_the_package_loads_neither_torch_nor_mlflow() -> None:
    code = "import sys, explain; print(sorted({'torch', 'mlflow', 'numpy', 'skimage', 'captum'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_the_package_offers_what_it_says() -> None:
    assert len(explain.__all__) >= 13
    for name in explain.__all__:
        found = getattr(explain, name)
        assert not isinstance(found, type(sys)), f"{name} is a module"
        assert name in dir(explain)
    with pytest.raises(AttributeError, match="No explain attribute nothing"):
        explain.nothing  # noqa: B018


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_every_file_declares_its_names_and_imports_nothing_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assigned = [ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)]
    assert {"__all__", "(__getattr__, __dir__, __all__)"} & set(assigned)
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"search", "lightning_modules"}


@pytest.mark.parametrize(
    "name", ["explain", "explain.attribution", "explain.measures.concentration", "explain.measures.pointing"]
)
def test_the_examples_run(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
