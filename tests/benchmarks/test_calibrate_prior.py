"""Evidence of the depth tables and what is fitted on it: rows, gains, and that no task is judged by its own data."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibrate_prior, evidence_tables
from benchmarks.calibrate_prior import calibration_without, data_set, depth_gains, evidence_rows, judge
from benchmarks.evidence_tables import read_evidence, with_shuffled_labels
from benchmarks.finished_tables import DepthTable
from search.evidence.calibration import Row

DEPTHS, SPLITS = 5, 3


def table() -> DepthTable:
    """Depth 2 is best in the test images; the first optimizer wins on validation images."""
    rng = np.random.default_rng(0)
    test = np.zeros((SPLITS, DEPTHS, 2, 1, 3)) + 0.9 - 0.01 * (np.arange(DEPTHS)[:, None, None, None] - 2) ** 2
    val = rng.uniform(0.3, 0.5, test.shape)
    val[:, :, 0, 0, 1] = 0.95
    test[:, :, 0, 0, 1] += np.arange(SPLITS)[:, None] / 100
    ones = np.ones(DEPTHS)
    return DepthTable("neu_10", DEPTHS, ("a", "b"), (1.0,), val, test, ones, ones, (0, 2, 5))


def test_gains_are_of_the_configuration_that_validation_chooses_scored_on_other_splits() -> None:
    found = table()
    np.testing.assert_allclose(depth_gains(found, 0), found.test[1:, :, 0, 0, 1].mean(0))
    np.testing.assert_allclose(depth_gains(found, 2), found.test[:2, :, 0, 0, 1].mean(0))


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Evidence of splits 0, 2 and 3, of which 3 has no complete table; the last row is half-written."""
    monkeypatch.setattr(evidence_tables, "TABLES", tmp_path)
    monkeypatch.setattr(calibrate_prior, "read_table", lambda name: table())
    file = tmp_path / "neu_10" / "evidence.jsonl"
    file.parent.mkdir()
    lines = [{"task": "neu_10"}]
    for split, null in ((2, "none"), (0, "none"), (0, "labels"), (3, "none")):
        scores = {"cka": {"depth_scores": [0.0, float(split), 4.0, None, 0.0]}}
        lines.append({"split": split, "null": null, "scorers": scores})
    file.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"split": 5, "nu')
    return file


def test_rows_belong_to_complete_splits(evidence: Path) -> None:
    rows = evidence_rows("neu_10")
    assert list(rows) == [0, 2]
    np.testing.assert_array_equal(rows[2].scores["cka"], [0, 2, 4, np.nan, 0])
    np.testing.assert_allclose(rows[2].gains, depth_gains(table(), 1))
    assert list(evidence_rows("neu_10", "labels")) == [0]
    assert len(read_evidence("neu_10")) == 4
    assert read_evidence("simulated") == []


def test_no_task_is_judged_by_its_own_pictures() -> None:
    hump = 0.9 - 0.01 * (np.arange(DEPTHS) - 1.0) ** 2
    rows = [
        Row(name, {"cka": hump, "static": 0 * hump}, hump)
        for name in ("neu_10", "neu_40", "simulated", "planted_0", "magnetic_tile")
    ]
    assert {data_set(name) for name in ("neu_10", "neu_40", "planted_0", "planted_L")} == {"neu"}
    without = calibration_without("neu", rows)
    assert without is not None and without.fitted_on == ("simulated", "magnetic_tile")
    other = calibration_without("simulated", rows)
    assert other is not None and other.fitted_on == ("neu_10", "neu_40", "magnetic_tile")
    assert calibration_without("neu", rows[:2]) is None
    judged = {name: judge(without, name, rows[:1]) for name in ("uniform", "static", "cka")}
    assert judged["uniform"]["gain"] == pytest.approx(0)
    assert judged["static"]["gain"] > 0 and judged["static"]["regret"] == 0
    assert judged["cka"]["gain"] >= judged["static"]["gain"]


@dataclass(frozen=True)
class Record:
    label: str


@dataclass(frozen=True)
class Index:
    records: tuple[Record, ...]


def test_only_training_labels_are_shuffled() -> None:
    index = Index(tuple(Record("ab"[n % 2]) for n in range(40)))
    rows = np.arange(0, 30)
    shuffled = with_shuffled_labels(index, rows, 0)  # type: ignore[arg-type]
    labels = [record.label for record in shuffled.records]
    assert labels[30:] == [record.label for record in index.records[30:]]
    assert labels[:30] != [record.label for record in index.records[:30]]
    assert sorted(labels) == sorted(record.label for record in index.records)
    assert shuffled == with_shuffled_labels(index, rows, 0)  # type: ignore[arg-type]
    assert replace(index) == index


@pytest.mark.parametrize(("arguments", "message"), [(["writ"], "unknown argument 'writ'"), (["write"], "no complete")])
def test_what_cannot_run_says_so(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibrate_prior, "TABLES", tmp_path)
    assert calibrate_prior.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_one_data_set_calibrates_nothing(
    evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate_prior, "TABLES", tmp_path)
    monkeypatch.setattr(calibrate_prior, "FILE", tmp_path / "calibration.json")
    raw = [json.loads(line) for line in evidence.read_text().split("\n")[1:-1]]
    parts = dict.fromkeys(("cam_stability", "cka"), raw[0]["scorers"]["cka"])
    lines = [{"task": "neu_10"}, *[row | {"scorers": parts} for row in raw]]
    evidence.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert calibrate_prior.main(["write"]) == 2
    assert "needs two data sets, there is neu" in capsys.readouterr().err
    assert not (tmp_path / "calibration.json").exists()
