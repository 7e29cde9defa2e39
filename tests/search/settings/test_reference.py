"""Help and the configuration page are made from the settings, and are what is committed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.settings.compose import group_options
from search.settings.plain import flatten, key_paths
from search.settings.reference import configuration_page, help_text
from search.settings.schema import Settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), (
        "python -m search.settings.reference > docs/configuration.md"
    )


@pytest.mark.parametrize("page", [help_text, configuration_page])
def test_every_setting_and_option_is_shown(page: Any) -> None:
    text = page()
    for key, (item, _) in key_paths().items():
        assert key in text
        assert item.metadata["meaning"].replace("<", "&lt;") in text or item.metadata["meaning"] in text
    for group, options in group_options().items():
        assert group in text
        assert all(option in text for option in options)


def test_tables_of_the_page_have_four_columns() -> None:
    rows = [line for line in configuration_page().splitlines() if line.startswith("| `") and "." in line.split("|")[1]]
    assert len(rows) == len([key for key in key_paths() if "." in key])
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_defaults_are_shown_as_they_are_typed() -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in configuration_page().splitlines()]
    shown = {row[1].strip("` *"): row[2].split("`")[1] for row in rows if len(row) > 4 and row[1].startswith("`")}
    text = help_text()
    for key, value in flatten(Settings()).items():
        assert shown[key] == json.dumps(value, separators=(",", ":")).replace('"', ""), key
        assert f"  {key} ({shown[key]}" in text
    assert (shown["seed"], shown["data.folds"], shown["search.refit"]) == ("0", "1", "true")


def test_help_and_version(run_search: Any) -> None:
    shown = run_search("--help")
    assert (shown.code, shown.out, shown.err) == (0, help_text() + "\n", "")
    assert run_search("search.trails=3", "-h").out == shown.out
    version = run_search("--version")
    assert version.code == 0 and version.out.strip().count(".") == 2


def test_cfg_job_prints_and_writes_nothing(run_search: Any, tmp_path: Path) -> None:
    outcomes: list[SimpleNamespace] = [
        run_search("--cfg", "job", "experiment=quick", cwd=tmp_path),
        run_search("experiment=quick", "--cfg", "job", cwd=tmp_path),
    ]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].code == 0 and "trials: 6" in outcomes[0].out
    assert list(tmp_path.iterdir()) == []
