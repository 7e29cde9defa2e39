"""A whole search of a stranger's images: nothing leaves the machine, no secret is kept, no name is code."""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.security.malicious_files import SCRIPT
from tests.security.network import asked_for


def test_nothing_asks_the_network(searched: Any, command: Any) -> None:
    assert searched.asked_for == ()
    with pytest.raises(OSError, match="the network is cut"):  # what would have been noticed
        urllib.request.urlopen("http://localhost:1")
    assert len(asked_for) == 1
    asked_for.clear()


def test_no_secret_of_the_environment_is_kept(searched: Any) -> None:
    kept = [path for path in searched.root.rglob("*") if path.is_file()]
    assert len(kept) > 20
    assert [path for path in kept if searched.secret.encode() in path.read_bytes()] == []
    # MLflow would list the names of variables that hold keys beside the model.
    assert [path for path in kept if b"AWS_SECRET" in path.read_bytes()] == []


def test_names_do_not_reach_the_terminal_as_codes(searched: Any) -> None:
    assert "\x1b" not in searched.out
    assert "trial" in searched.out


def test_labels_are_kept_as_they_are(searched: Any) -> None:
    """MLflow's UI shows text as text; its tables hold the label itself."""
    (table,) = searched.root.rglob("confusion.json")
    assert sorted(json.loads(table.read_text())["columns"]) == sorted(["true class", "a", SCRIPT])
    with sqlite3.connect(searched.root / "mlflow.db") as database:
        statuses = [row[0] for row in database.execute("SELECT status FROM runs")]
    assert statuses == ["FINISHED"] * 3


class _Page(HTMLParser):
    """Elements and attributes of a page, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def inert(text: str) -> set[str]:
    """Assert that a page holds the label as text and nothing that acts or fetches; returns its kinds of elements."""
    assert html.escape(SCRIPT, quote=False) in text or html.escape(SCRIPT) in text
    assert "\x1b" not in text
    page = _Page()
    page.feed(text)
    kinds = {tag for tag, _ in page.elements}
    assert not {"iframe", "object", "embed", "form", "base"} & kinds
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href"):
            assert re.match(r"data:|#", attributes.get(name) or "#"), (tag, attributes)
    return kinds


def test_the_report_of_the_study_holds_no_code_of_others(searched: Any) -> None:
    (report,) = searched.root.rglob("report.html")
    inert(report.read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
def test_the_page_of_explain_holds_no_code(searched: Any, command: Any, tmp_path: Path) -> None:
    outcome = command(
        "explain",
        [f"images={searched.images}", "model=challenger", f"root={searched.root}", f"out={tmp_path / 'out'}",
         "methods=[layercam]"],
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert "\x1b" not in outcome.out + outcome.err
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert r"\x1b[31m" in text
    assert "script" not in inert(text)
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert not [name for name in names if not name.isprintable() or "<" in name], names


def test_telemetry_is_off(searched: Any) -> None:
    import mlflow.telemetry.utils
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION

    assert mlflow.telemetry.utils.is_telemetry_disabled()
    assert MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_the_user_interface_listens_on_this_machine_only(searched: Any) -> None:
    from search.ui import command as ui_command

    line = ui_command([f"tracking.root={searched.root}"])
    assert line[line.index("--host") + 1] == "127.0.0.1"
