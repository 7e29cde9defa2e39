from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from explain.evidence import SCORERS, Material, depth_prior, depth_scores
from explain.evidence.linear_probe import probe_accuracy, stratified_folds

PROBE = SCORERS["linear_probe"]


def features(count: int, labels: Tensor, signal: float, *, seed: int, size: int = 6) -> Tensor:
    noise = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    noise[:, 0] += signal * (2 * labels - 1)
    return noise


@pytest.fixture
def stepped(make_material: Callable[..., Any], make_pass: Callable[..., Any], make_maps: Any) -> Material:
    """Classes that separate from block 2 on only."""
    labels = torch.arange(60) % 2
    signals = (0.0, 4.0, 4.0)
    by_block = [features(60, labels, signal, seed=place) for place, signal in enumerate(signals)]
    inputs = features(60, labels, 0.0, seed=9, size=3)
    found: Material = make_material(make_pass(make_maps(60, seed=0), by_block), labels=labels, inputs=inputs)
    return found


@pytest.mark.parametrize("name", ["linear_probe", "logme"])
def test_the_curve_rises_where_the_classes_separate(name: str, stepped: Material) -> None:
    scores = SCORERS[name](stepped)
    assert scores.values[2:].min() > scores.values[:2].max() + 0.2
    assert (scores.z[2:] > 5).all()
    assert (np.abs(scores.z[:2]) < 3).all()
    depths = depth_scores(scores)
    np.testing.assert_array_equal(depths.values, scores.values)
    assert depth_prior(depths.values, tau=5).mode >= 2


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_it_is_sklearns_ridge_classifier(ridge: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(45) % 3
    rows = rng.normal(size=(45, 8)) + 0.4 * np.eye(8)[labels]
    fold = stratified_folds(labels, 5, rng)
    right = 0
    for number in range(5):
        train, test = rows[fold != number], rows[fold == number]
        scale = np.sqrt(np.mean(np.sum((train - train.mean(0)) ** 2, axis=1)))
        model = RidgeClassifier(alpha=ridge * len(train)).fit(train / scale, labels[fold != number])
        right += int((model.predict(test / scale) == labels[fold == number]).sum())
    assert probe_accuracy(rows, labels[None], fold, ridge)[0] == pytest.approx(right / 45)


def test_units_shift_and_rotation_of_the_features_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 4
    rows = rng.normal(size=(40, 6)) + 0.7 * np.eye(6)[labels]
    fold = stratified_folds(labels, 5, rng)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    wanted = probe_accuracy(rows, labels[None], fold, 1e-2)
    for other in (rows * 1e-6, rows * 1e6, rows + 5, rows @ turn):
        np.testing.assert_allclose(probe_accuracy(other, labels[None], fold, 1e-2), wanted)
    order = rng.permutation(40)
    np.testing.assert_allclose(probe_accuracy(rows[order], labels[None, order], fold[order], 1e-2), wanted)


def test_the_null_is_at_chance(stepped: Material) -> None:
    scores = PROBE(stepped, draws=200)
    np.testing.assert_allclose(scores.null_mean, 0.5, atol=0.03)
    assert (scores.null_spread > 0.02).all()


def test_the_null_of_few_images_is_at_chance_too(make_material: Any, make_pass: Any, make_maps: Any) -> None:
    """Folds keep their classes under the null; otherwise what is rare in training is common in the test fold."""
    labels = torch.arange(10) % 2
    noise = [torch.randn(10, 8, generator=torch.Generator().manual_seed(place)) for place in range(3)]
    found = make_material(make_pass(make_maps(10, seed=0), noise), labels=labels, inputs=noise[0])
    assert PROBE(found, draws=2000).null_mean == pytest.approx(0.5, abs=0.02)


def test_features_without_any_information_answer_alike() -> None:
    labels = np.arange(20) % 2
    accuracy = probe_accuracy(np.ones((20, 3)), labels[None], labels * 0 + np.arange(20) % 5, 1e-3)
    assert 0 <= accuracy[0] <= 1


def test_folds_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [10, 11, 2])
    fold = stratified_folds(labels, 5, np.random.default_rng(0))
    counts = np.array([np.bincount(fold[labels == label], minlength=5) for label in range(3)])
    assert (np.ptp(counts, axis=1) <= 1).all()
    assert np.ptp(counts.sum(axis=0)) <= 1


def test_broken_features_have_no_score(stepped: Material) -> None:
    stepped.before.records[1].features[0, 0] = torch.nan
    stepped.before.records[0].features.zero_()
    for name in ("linear_probe", "logme"):
        scores = SCORERS[name](stepped)
        assert np.isnan(scores.values).tolist() == [False, name == "logme", True, False]
        assert any("freeze depth 2: features are not finite" in note for note in scores.notes)
        assert "it keeps its share" in depth_prior(depth_scores(scores).values).notes[0]


def test_label_numbers_may_have_gaps(stepped: Material) -> None:
    other = dataclasses.replace(stepped, labels=stepped.labels * 7 + 3)
    for name in ("linear_probe", "logme"):
        np.testing.assert_allclose(SCORERS[name](other).values, SCORERS[name](stepped).values)
