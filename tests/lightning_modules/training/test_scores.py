"""Test scores and their bootstrap, against the whole table of each resample, and with a thousand classes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_fscore_support

from lightning_modules.training.scores import scores_with_intervals
from search.significance import macro_f1_draws


def answered(classes: int, images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """True classes, and the answers of two models of which each has about two thirds right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    first, second = (np.where(rng.random(images) < 0.4, rng.integers(0, classes, images), truth) for _ in range(2))
    return truth, first, second


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(1, 30), st.integers(0, 99))
def test_intervals_are_those_of_whole_tables(classes: int, images: int, seed: int) -> None:
    truth, first, _ = answered(classes, images, seed)
    logits = torch.from_numpy(np.eye(classes)[first])
    names = tuple(map(str, range(classes)))
    found = scores_with_intervals(logits, torch.from_numpy(truth), names, resamples=20, seed=seed)
    table = found.confusion.ravel() / images
    drawn = np.random.default_rng(seed).multinomial(images, table, size=20)
    expected = []
    for counts in drawn:
        cells = np.repeat(np.arange(classes**2), counts)
        true, answer = np.divmod(cells, classes)
        some = precision_recall_fscore_support(true, answer, average="macro", zero_division=0)[:3]
        expected.append([*some, f1_score(true, answer, average="weighted", zero_division=0)])
    low, high = np.quantile(expected, (0.025, 0.975), axis=0)
    kinds = ("precision", "recall", "macro_f1", "weighted_f1")
    assert [found.intervals[kind] for kind in kinds] == [pytest.approx(ends) for ends in zip(low, high, strict=True)]


@pytest.mark.slow
def test_memory_is_bounded_with_a_thousand_classes() -> None:
    truth, first, second = answered(1000, 4000, 0)
    logits = torch.from_numpy(np.eye(1000, dtype=np.float32)[first])
    tracemalloc.start()
    found = scores_with_intervals(logits, torch.from_numpy(truth), tuple(map(str, range(1000))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    _, draws = macro_f1_draws(truth, first, second, 1000, resamples=2000, seed=0)
    _, peak_of_two = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # 16 GB as whole tables
    assert peak_of_two < 250e6
    low, high = found.intervals["macro_f1"]
    assert low < found.values["macro_f1"] + 0.05 and low < high and len(draws) == 2000
