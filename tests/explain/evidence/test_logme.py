from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from explain.evidence.logme import log_maximum_evidence


def directly_maximised(features: np.ndarray, target: np.ndarray) -> float:
    """max over (alpha, beta) of ln N(y; 0, I / beta + F F^T / alpha) / N."""
    gram = features @ features.T

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -20, 20))
        cover = np.eye(len(target)) / beta + gram / alpha
        return -float(multivariate_normal(np.zeros(len(target)), cover, allow_singular=False).logpdf(target))

    starts = [np.array([a, b]) for a in (-2.0, 2.0) for b in (0.0, 3.0)]
    fits = [minimize(loss, x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}) for x in starts]
    return -min(fit.fun for fit in fits) / len(target)


@pytest.mark.parametrize("size", [2, 5, 40], ids=["few features", "some", "more features than images"])
def test_it_is_the_maximum_of_the_evidence(size: int) -> None:
    rng = np.random.default_rng(size)
    features = rng.normal(size=(24, size))
    one_hot = np.eye(3)[np.arange(24) % 3]
    features[:, 0] += 2 * one_hot[:, 0]
    features[:, 1] -= one_hot[:, 1]
    found = log_maximum_evidence(features, one_hot)
    wanted = [directly_maximised(features, target) for target in one_hot.T[:2]]
    np.testing.assert_allclose(found[:2], wanted, atol=1e-6)


def test_scale_and_rotation_of_the_features_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    features, one_hot = rng.normal(size=(30, 6)), np.eye(2)[np.arange(30) % 2]
    features[:, 0] += 3 * one_hot[:, 0]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    wanted = log_maximum_evidence(features, one_hot)
    order = rng.permutation(30)
    for other in (features * 1e-5, features * 1e5, features @ turn, np.hstack([features, np.zeros((30, 4))])):
        np.testing.assert_allclose(log_maximum_evidence(other, one_hot), wanted, atol=1e-9)
    np.testing.assert_allclose(log_maximum_evidence(features[order], one_hot[order]), wanted, atol=1e-9)


def test_features_that_explain_nothing_leave_the_noise_alone() -> None:
    """Targets orthogonal to the features: the best model has no weights and the variance of y as noise."""
    features = np.zeros((8, 2))
    features[:4] = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    target = np.zeros((8, 1))
    target[4:6] = 1
    wanted = -0.5 * (1 + np.log(2 * np.pi * (target**2).mean()))
    assert log_maximum_evidence(features, target)[0] == pytest.approx(wanted, abs=1e-6)


def test_more_signal_is_more_evidence() -> None:
    rng = np.random.default_rng(0)
    noise, target = rng.normal(size=(40, 5)), (np.arange(40) % 2)[:, None].astype(float)
    found = [log_maximum_evidence(noise + signal * target, target)[0] for signal in (0, 1, 2, 4)]
    assert (np.diff(found) > 0).all()
