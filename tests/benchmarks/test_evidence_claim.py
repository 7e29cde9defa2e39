"""Profiles and claims on made-up evidence: what is there is found, what is not is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence_claim, evidence_profiles, evidence_tables
from benchmarks.evidence_claim import reduction
from benchmarks.evidence_profiles import correlation, profiles, residuals


def test_a_reduction_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    before = {task: rng.normal(3, 0.5, (5, 10)) for task in ("a", "b")}
    better = {task: regret - 1 for task, regret in before.items()}
    assert reduction(before, better, draws=100) == pytest.approx((1.0, 1.0, 1.0))
    noise = {task: regret + rng.normal(0, 1, regret.shape) for task, regret in before.items()}
    mean, low, high = reduction(before, noise, draws=300)
    assert low < 0 < high and low < mean < high


def test_correlation_is_over_the_depths_known_to_both() -> None:
    one = np.array([0.0, 1.0, 2.0, np.nan])
    assert correlation(one, np.array([0.0, 2.0, 4.0, -9.0])) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)
    assert np.isnan(correlation(one, np.ones(4)))


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that says the same of every task, and one that knows the planted depth."""
    monkeypatch.setattr(evidence_tables, "TABLES", tmp_path)
    monkeypatch.setattr(evidence_profiles, "DRAWS", 50)
    depths = {"neu_10": 4, "simulated": 2, "planted_0": 0, "planted_middle": 4, "planted_L": 8}
    rng = np.random.default_rng(0)
    for task, best in depths.items():
        rows = [{"task": task}]
        for split in range(3):
            fixed, knows = np.sin(np.arange(9)), -np.abs(np.arange(9.0) - best)
            scorers = {
                name: {
                    "values": list(s + rng.normal(0, 0.01, 9)),
                    "null_mean": [0.0] * 9,
                    "depth_scores": list(s + rng.normal(0, 0.01, 9)),
                }
                for name, s in (("linear_probe", fixed), ("logme", knows))
            }
            rows.append({"split": split, "null": "none", "scorers": scorers})
        (tmp_path / task).mkdir()
        (tmp_path / task / "evidence.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.usefixtures("made_up")
def test_profiles_tell_a_fingerprint_from_evidence() -> None:
    fingerprint = evidence_profiles._measure("linear_probe", "z")
    knows = evidence_profiles._measure("logme", "z")
    assert fingerprint["same_task"][0] > 0.99 and fingerprint["other_data_set"][0] > 0.99
    assert fingerprint["residual_same_task"][0] < 0.5
    assert knows["same_task"][0] > 0.99 and knows["other_data_set"][0] < 0.95
    assert [knows[task] for task in ("planted_0", "planted_middle", "planted_L")] == [[0] * 3, [4] * 3, [8] * 3]
    assert set(residuals(profiles("logme"))) == {"neu_10", "simulated", "planted_0", "planted_middle", "planted_L"}


def test_no_replay_no_claim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(evidence_claim, "read_rows", lambda name: [])
    assert evidence_claim.main() == 2
    assert "run python -m benchmarks.replay" in capsys.readouterr().err
