"""What the benchmark of attention branches makes of its rows, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attention_branch


def _rows(splits: int, *, missing: tuple[int, str, str] | None = None) -> list[dict[str, Any]]:
    rows = []
    for split in range(splits):
        for head, maps in attention_branch.MAPS.items():
            for number, kind in enumerate(maps):
                if (split, head, kind) != missing:
                    values = dict.fromkeys(attention_branch.COLUMNS, 0.5 + 0.1 * split + 0.01 * number * (1 + split))
                    rows.append({"split": split, "head": head, "map": kind, "parameters": 7, "chance": 0.3, **values})
    return rows


def test_each_map_is_paired_with_the_plain_heads_grad_cam_of_the_same_split() -> None:
    rows = attention_branch.summary("neu", _rows(3, missing=(2, "fostering", "gradcam")))
    assert [(row["head"], row["map"]) for row in rows] == [
        (head, kind) for head, maps in attention_branch.MAPS.items() for kind in maps
    ]
    assert {row["splits"] for row in rows} == {2}  # the third is not complete
    assert rows[0]["ce"] == pytest.approx(0.55) and "ce_change" not in rows[0]
    mean, low, high = rows[1]["ce_change"]
    assert mean == pytest.approx(0.015) and low == pytest.approx(0.015 - 12.706 * 0.005, abs=1e-3)
    assert high - mean == pytest.approx(mean - low, abs=1e-3)
    assert attention_branch.summary("neu", _rows(1, missing=(0, "plain", "gradcam"))) == []


def test_measures_that_are_not_defined_are_left_out() -> None:
    rows = _rows(2)
    rows[-1]["adcc"] = float("nan")
    last = attention_branch.summary("neu", rows)[-1]
    assert "adcc_change" not in last and last["adcc"] is not None


def test_a_table_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_branch, "TABLES", tmp_path)
    monkeypatch.setattr(attention_branch.fostering, "truths", lambda name: {})
    rows = _rows(1)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "neu.jsonl").write_text(text + '{"split": 1, "he')
    assert attention_branch.read_table("neu") == rows  # a half-written line is left out
    attention_branch.measure("neu", 0)  # nothing is missing, so nothing is trained
    assert attention_branch.read_table("neu") == rows


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert attention_branch.main(["neu_11"]) == 2
    assert "unknown task 'neu_11'; accepted: neu, magnetic_tile" in capsys.readouterr().err
