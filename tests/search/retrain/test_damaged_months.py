"""A month that was stopped in its search, and whose files were damaged before it went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.retrain.month import shorter_search
from tests.search.retrain.conftest import Months, Outcome, Saved


def _month(
    months: Months, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> tuple[Outcome, list[Path], dict[str, Any]]:
    """A month that is stopped in its search and goes on: what it said, its files, what it came to."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shorter_search, "run_study", stop)
        assert months.retrain("retrain.depth=head").code == 130
    folder = months.root / "retraining" / months.model
    files = [next(folder.glob(f"*/{name}")) for name in ("pixels-*.npy", "champion/model.safetensors", "month.npz")]
    for file in files if damaged else ():
        content = file.read_bytes()
        file.write_bytes(content[:128] + bytes(len(content) - 128))
    said = months.retrain("retrain.depth=head")
    row = months.ledger.latest()["2020-03"]
    steps = {name: result for name, (result, _) in months.ledger.steps(row).items() if name != "report"}
    return said, files, {"state": row.state, "outcome": row.outcome, "numbers": row.numbers, "steps": steps}


def _timeless(value: Any) -> Any:
    """The same without what differs between two runs."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("seconds", "run_id", "version")}
    return value


@pytest.mark.slow
def test_damaged_files_of_a_month_change_nothing(months: Months, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    months.arrives("2020-02", labels="black")
    months.arrives("2020-03", drift=True)
    told, _, expected = _month(months, monkeypatch, damaged=False)
    assert told.code == 0 and "again" not in told.out
    saved.put_back()
    told, files, found = _month(months, monkeypatch, damaged=True)
    assert told.code == 0, told.err
    for file in files[:2]:
        assert [line for line in told.out.splitlines() if str(file) in line and line.endswith("; it is made again.")]
    assert _timeless(found) == _timeless(expected)
