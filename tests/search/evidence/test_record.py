"""The evidence of a task: what is written with a study is what is read again."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from explain.evidence import Cost
from search.evidence.record import Evidence, ScorerEvidence, TypicalMaps, prior_mode


def evidence() -> Evidence:
    """Two blocks, one scorer without a null in its second block."""
    scorer = ScorerEvidence(
        name="cam_stability",
        kind="block",
        values=np.array([0.25, 0.5]),
        null_mean=np.array([0.125, np.nan]),
        null_spread=np.array([0.0625, np.nan]),
        z=np.array([2.0, np.nan]),
        depth_scores=np.array([0.0, 2.0, np.nan]),
        probabilities=np.array([0.25, 0.5, 0.25]),
        preferred=1,
        cost=Cost(1.5, 10, 20),
        notes=("block b: 1 of 2 maps are dead",),
    )
    maps = TypicalMaps(
        label=1,
        row=7,
        mean=(np.array([[0, 255], [3, 4]], np.uint8), np.array([[255]], np.uint8)),
        example=(np.array([[1, 255], [0, 4]], np.uint8), np.array([[255]], np.uint8)),
    )
    return Evidence(
        blocks=("a", "b"),
        scorers={scorer.name: scorer},
        depths=(0, 2),
        prior="cam_stability",
        probabilities=scorer.probabilities,
        preferred=1,
        cost=Cost(2.5, 12, 24),
        training_rows=np.array([3, 5]),
        validation_rows=np.array([7]),
        maps=maps,
        notes=("one",),
    )


def test_json_gives_the_same_evidence_again() -> None:
    first = evidence()
    text = json.dumps(first.to_json(), allow_nan=False)
    again = Evidence.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    for name in ("values", "null_mean", "null_spread", "z", "depth_scores", "probabilities"):
        np.testing.assert_array_equal(
            getattr(again.scorers["cam_stability"], name), getattr(first.scorers["cam_stability"], name)
        )
    assert again.scorers["cam_stability"].cost == Cost(1.5, 10, 20)
    assert again.maps is not None and again.maps.mean[0].dtype == np.uint8 and again.maps.mean[0].shape == (2, 2)
    np.testing.assert_array_equal(again.training_rows, [3, 5])


@pytest.mark.parametrize(
    ("prior", "low", "high", "expected"),
    [
        ([0.2, 0.5, 0.3], 0, 2, 1),
        ([0.2, 0.5, 0.3], 2, 2, 2),
        ([0.5, 0.2, 0.3], 1, 2, 2),
        ([1 / 3, 1 / 3, 1 / 3], 0, 2, 2),
        ([1 / 3, 1 / 3, 1 / 3], 0, 1, 1),
        ([0.35, 0.3, 0.345], 0, 2, 2),
    ],
)
def test_the_mode_stays_in_range_and_of_equals_takes_the_deeper(
    prior: list[float], low: int, high: int, expected: int
) -> None:
    assert prior_mode(np.array(prior), low, high) == expected


def test_reading_evidence_loads_no_torch() -> None:
    code = "import sys, search.evidence; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
