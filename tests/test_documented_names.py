"""Every file and module that the documents name is there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/README.md")])
OURS = ("benchmarks", "examples", "explain", "lightning_modules", "search", "tests")
_FENCED = re.compile(r"^```(?!mermaid).*?^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?<![\w./{-])(?:[\w.-]+/)+[\w.-]+\.py\b")
_OUR_FILE = re.compile(rf"(?<![\w./{{-])(?:{'|'.join((*OURS, 'conf', 'docs'))})/[\w./-]*\w")
_MODULE = re.compile(r"python -m\s+([a-z_]\w*(?:\.\w+)*)|`(benchmarks\.\w+)`")


def _there(module: str) -> bool:
    if module.split(".")[0] not in OURS:
        return find_spec(module) is not None
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = _FENCED.sub("", text)
    files = {*_FILE.findall(prose), *_OUR_FILE.findall(prose)}
    assert sorted(name for name in files if not (ROOT / name).exists() and "NAME" not in name) == []
    modules = {found for pair in _MODULE.findall(text) for found in pair if found}
    assert sorted(name for name in modules if not _there(name)) == []


def test_pages_name_files_and_modules() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {"search/study/driver.py", "search/study/record.py"} <= set(_FILE.findall(text))
    assert {"search.retrain", "explain", "benchmarks.replay"} <= {a or b for a, b in _MODULE.findall(text)}
