"""What the benchmarks of fostering make of their rows, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fostering, fostering_figure, fostering_step


def _rows(splits: int, *, missing: tuple[int, float] | None = None) -> list[dict[str, Any]]:
    rows = []
    for split in range(splits):
        for beta in fostering.BETAS:
            if (split, beta) != missing:
                values = dict.fromkeys(fostering.COLUMNS, 0.5 + 0.1 * split - 0.001 * beta * (1 + split))
                rows.append({"split": split, "beta": beta, "chance": 0.3, **values})
    return rows


def test_the_summary_pairs_each_beta_with_beta_zero_of_the_same_split() -> None:
    rows = fostering.summary("neu", _rows(3, missing=(2, 1.0)))
    assert [row["beta"] for row in rows] == list(fostering.BETAS)
    assert {row["splits"] for row in rows} == {2}  # the third is not complete
    plain, strongest = rows[0], rows[-1]
    assert plain["accuracy"] == pytest.approx(0.55) and "accuracy_change" not in plain
    mean, low, high = strongest["accuracy_change"]
    assert mean == pytest.approx(-0.15) and low == pytest.approx(-0.15 - 12.706 * 0.05, abs=1e-3)
    assert high - mean == pytest.approx(mean - low, abs=1e-3)
    assert fostering.summary("neu", _rows(1, missing=(0, 0.0))) == []


def test_measures_that_are_not_defined_are_left_out() -> None:
    rows = _rows(2)
    rows[-1]["energy_pointing"] = float("nan")
    strongest = fostering.summary("neu", rows)[-1]
    assert "energy_pointing_change" not in strongest and strongest["energy_pointing"] is not None


def test_the_figure_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fostering_figure, "FIGURE", tmp_path / "images" / "fostering.png")
    both = [*fostering.summary("neu", _rows(3)), *fostering.summary("magnetic_tile", _rows(2))]
    assert fostering_figure.draw(both).stat().st_size > 10_000


def test_a_half_written_line_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fostering, "TABLES", tmp_path)
    monkeypatch.setattr(fostering, "truths", lambda name: {})
    rows = _rows(1)
    file = tmp_path / "neu.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"split": 1, "be')
    assert fostering.measure("neu", 1) == rows
    assert file.read_text().endswith("}\n")


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert fostering.main(["neu_11"]) == 2
    assert "unknown task 'neu_11'; accepted: neu, magnetic_tile" in capsys.readouterr().err
    assert fostering_step.main(["alexnet"]) == 2
    assert "unknown network 'alexnet'; accepted: resnet50" in capsys.readouterr().err
