"""Scores of unknown images against scikit-learn's, and the mean over tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from benchmarks.results_file import read_rows
from benchmarks.unknown_defects import Gaussian, auroc, gains, page_rows


def test_the_distance_is_mahalanobis_with_a_shrunk_covariance() -> None:
    """Of fewer images than features, as there are."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(60, 100)) * np.linspace(0.1, 2, 100)).astype(np.float32)
    shown, labels = rng.normal(size=(9, 100)).astype(np.float32), np.arange(60) % 4
    means = np.stack([features[labels == one].astype(np.float64).mean(0) for one in range(4)])
    whole = LedoitWolf(assume_centered=True).fit(features - means[labels])
    expected = np.sqrt(np.min([whole.mahalanobis(shown - mean) for mean in means], axis=0))
    assert Gaussian.of(features, labels).distances(shown) == pytest.approx(expected)


def test_auroc_counts_ties_half() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=30).round(1), rng.normal(1, 1, 40).round(1)
    truth = np.repeat([0, 1], [30, 40])
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(truth, np.concatenate([known, unknown])))


def test_a_task_of_many_classes_counts_as_one_of_few() -> None:
    rows = [{"task": "few", "v": 1.0}] * 2 + [{"task": "many", "v": 0.0}] * 11
    means, (mean, low, high) = gains(rows, lambda row: row["v"])
    assert means == {"few": 1.0, "many": 0.0} and (mean, low, high) == (0.5, 0.5, 0.5)
    wide = [{"task": "one", "v": value} for value in (0.0, 1.0, 0.0, 1.0)]
    _, (mean, low, high) = gains(wide, lambda row: row["v"])
    assert low < mean == 0.5 < high


def test_the_page_says_what_was_measured() -> None:
    page = (Path(__file__).parents[2] / "docs" / "unknown_defects.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in page_rows(read_rows("unknown_defects")) if row not in page] == []
