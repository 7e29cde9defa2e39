"""The recipes of CONTRIBUTING.md, applied to a copy of the packages; what they add is then used."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("conf", "docs", "explain", "lightning_modules", "search")
RECIPES = tuple(re.findall(r"^## (Add an? (?:backbone|measure|scorer|optimizer|executor).*)$", PAGE, re.MULTILINE))
BACKBONE, MEASURE, SCORER, OPTIMIZER, EXECUTOR = RECIPES

_BLOCK = re.compile(
    r"^```\w+\n(?:#|<!--) (?P<file>\S+?)(?:, behind: (?P<line>.+?))?(?: -->)?\n(?P<text>.*?)^```$", re.M | re.S
)
_TINY = (
    "experiment=quick", "data.size=[32,32]", "search.trials=1", "trainer.epochs=1", "executor.threads=1",
    "tracking.report=false", "search.refit=false",
)  # fmt: skip

# Everything that a recipe adds, seen from where it is used.
_USES = """
import json, torch
from importlib.util import find_spec
from explain import MEASURES
from explain.evidence.registry import SCORERS
from explain.subject import measure
from lightning_modules.networks.backbones import BACKBONES
from lightning_modules.training.optimizers import build_optimizer
from search.__main__ import main

maps = torch.stack([torch.ones(4, 4), torch.eye(16)[3].reshape(4, 4), torch.zeros(4, 4)])
weight = torch.nn.Parameter(torch.ones(1))
code = main(["model=resnet18", "executor=polite", "space=all_optimizers", "search.prior=activation_stability",
             "space.default_optimizer=radam", "--cfg", "job"])
print(json.dumps({
    "blocks": BACKBONES["resnet18"].blocks, "executor": find_spec("search.executor.polite") is not None, "code": code,
    "gini": MEASURES["gini"](maps).nan_to_num(-1).tolist(), "column": measure(maps)["gini"][:2],
    "scorer": SCORERS["activation_stability"].name,
    "optimizer": type(build_optimizer("radam", [weight], lr_factor=2.0)).__name__,
}))
"""


def _blocks(recipe: str) -> list[re.Match[str]]:
    section = PAGE.split(f"## {recipe}\n")[1].split("\n## ")[0]
    found = list(_BLOCK.finditer(section))
    assert len(found) == section.count("```") // 2 > 0, "every block of a recipe begins with a comment"
    return found


def _apply(folder: Path, recipe: str) -> set[str]:
    """Apply a recipe to the copy in `folder`; the files it touched."""
    for block in _blocks(recipe):
        file, text = folder / block["file"], block["text"]
        if block["line"] is None:
            assert not file.exists(), file
            file.write_text(text, encoding="utf-8")
            continue
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        places = [place for place, line in enumerate(lines, 1) if line.strip().startswith(block["line"])]
        assert len(places) == 1, f"{block['file']} has {len(places)} lines that begin with {block['line']}"
        lines.insert(places[0], text)
        file.write_text("".join(lines), encoding="utf-8")
    return {block["file"] for block in _blocks(recipe)}


def _copy(folder: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _python(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def all_applied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy with every recipe, and the files they touched."""
    folder = _copy(tmp_path_factory.mktemp("all"))
    return folder, set().union(*(_apply(folder, recipe) for recipe in RECIPES))


@pytest.mark.slow
def test_what_the_recipes_add_is_there(all_applied: tuple[Path, set[str]]) -> None:
    folder, _ = all_applied
    *settings, line = _python(folder, "-c", _USES).splitlines()
    found = json.loads(line)
    assert found["blocks"] == ["layer1", "layer2", "layer3", "layer4"]
    assert found["gini"] == pytest.approx([0, 1 - 1 / 16, -1], abs=1e-12)
    assert found["column"] == pytest.approx([0, 1 - 1 / 16], abs=1e-12)
    assert (found["scorer"], found["optimizer"]) == ("activation_stability", "RAdam")
    assert found["executor"]
    assert found["code"] == 0
    text = "\n".join(settings)
    for chosen in ("name: resnet18", "name: polite", "prior: activation_stability", "default_optimizer: radam"):
        assert chosen in text


def test_what_the_recipes_write_passes_the_linter(all_applied: tuple[Path, set[str]]) -> None:
    folder, touched = all_applied
    python = sorted(name for name in touched if name.endswith(".py"))
    for command in (["check"], ["format", "--check"]):
        _python(folder, "-m", "ruff", *command, "--no-cache", *python)


def test_the_committed_pages_follow_from_the_recipes(all_applied: tuple[Path, set[str]]) -> None:
    folder, _ = all_applied
    page = _python(folder, "-m", "search.settings.reference")
    for added in ("`resnet18`", "`polite`", "radam", "activation_stability", "gives way to all other processes"):
        assert added in page
    assert "| `activation_stability` |" in (folder / "docs" / "evidence.md").read_text(encoding="utf-8")


@pytest.fixture
def applied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy with one recipe."""
    _apply(_copy(tmp_path), request.param)
    return tmp_path


@pytest.mark.slow
def test_a_search_and_explanations_with_all_recipes(all_applied: tuple[Path, set[str]]) -> None:
    folder, _ = all_applied
    _python(folder, "-m", "lightning_modules.simulated", "images", "images=20", "size=[32,32]")
    out = _python(
        folder, "-m", "search", *_TINY, "model=resnet18", "model.weights=none", "executor=inline",
        "space.optimizers=[radam]", "space.default_optimizer=radam",
    )  # fmt: skip
    for words in ("Network: resnet18, random weights", "radam", "Winner: trial 0"):
        assert words in out
    _explained(folder)


def _explained(folder: Path) -> None:
    images = next((folder / "images").glob("20*/*"))
    _python(folder, "-m", "explain", f"images={images}", "model=challenger", "figures=1")
    with (folder / "explanations" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    values = [float(value) for column, value in row.items() if column.endswith(".gini") and value]
    assert values and all(0 <= value < 1 for value in values)


@pytest.mark.slow
@pytest.mark.long  # all of them at once stand for each alone
@pytest.mark.parametrize(
    ("applied", "arguments", "words"),
    [
        (BACKBONE, ["model=resnet18", "model.weights=none", "executor=inline"], "Network: resnet18, random weights"),
        (OPTIMIZER, ["space.optimizers=[radam]", "space.default_optimizer=radam", "executor=inline"], "radam"),
        (SCORER, ["search.prior=activation_stability", "executor=inline"], "activation_stability"),
        (EXECUTOR, ["executor=polite"], "Trials run at niceness"),
    ],
    indirect=["applied"],
)
def test_a_search_with_what_the_recipe_adds(applied: Path, arguments: list[str], words: str) -> None:
    out = _python(applied, "-m", "search", *_TINY, *arguments)
    assert words in out
    assert "Winner: trial 0" in out
    if "search.prior=activation_stability" in arguments:
        (evidence,) = (applied / "mlruns").rglob("evidence.json")
        scorers = json.loads(evidence.read_text(encoding="utf-8"))["scorers"]
        assert "activation_stability" in [scorer["name"] for scorer in scorers]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("applied", [MEASURE], indirect=True)
def test_explain_with_a_measure_that_the_recipe_adds(applied: Path) -> None:
    _python(applied, "-m", "lightning_modules.simulated", "images", "images=20", "size=[32,32]")
    _python(applied, "-m", "search", *_TINY, "model=lenet5", "executor=inline")
    _explained(applied)
