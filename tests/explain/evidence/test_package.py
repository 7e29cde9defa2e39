from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from explain import evidence
from explain.evidence import SCORERS

PAGE = Path(__file__).parents[3] / "docs" / "evidence.md"


def test_the_prior_loads_without_torch() -> None:
    code = "import sys, explain.evidence.prior; print(sorted({'torch', 'mlflow', 'scipy'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_the_package_offers_what_it_says() -> None:
    assert len(evidence.__all__) >= 13
    for name in evidence.__all__:
        assert not isinstance(getattr(evidence, name), type(sys)), f"{name} is a module"
        assert name in dir(evidence)
    with pytest.raises(AttributeError, match=r"No explain\.evidence attribute nothing"):
        evidence.nothing  # noqa: B018


@pytest.mark.parametrize("name", SCORERS)
def test_the_page_has_a_row_and_a_paragraph_for_every_scorer(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"| `{name}` |" in text
    assert f"\n**`{name}`" in text or f"and **`{name}`" in text


def test_the_example_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(example.group(1), {})  # noqa: S102 - our own page
    assert "forward_passes=192" in capsys.readouterr().out
