"""Confident learning on tables small enough to follow."""

from __future__ import annotations

import numpy as np
import pytest

from search.report.examination import suspect_labels


def test_a_flipped_label_is_found_and_named() -> None:
    labels = np.repeat([0, 1, 2], 20)
    probabilities = 0.03 + 0.91 * np.eye(3)[labels]
    given = labels.copy()
    given[5], given[45] = 2, 1
    found = suspect_labels(probabilities, given)
    assert {(one.place, one.suggested) for one in found} == {(5, 0), (45, 2)}
    assert all(0.5 < one.threshold < 1 for one in found)


def test_the_threshold_is_the_mean_probability_of_the_class_over_its_images() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.35, 0.65], [0.2, 0.8], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 1])  # thresholds: (0.9 + 0.7 + 0.35) / 3 = 0.65 and (0.8 + 0.6) / 2 = 0.7
    assert suspect_labels(probabilities, labels) == []  # 0.65 is below the 0.7 that class 1 asks for
    probabilities[2] = [0.25, 0.75]
    (one,) = suspect_labels(probabilities, labels)
    assert (one.place, one.suggested) == (2, 1)
    assert one.threshold == pytest.approx(0.7)


def test_the_most_certain_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.3, 0.7], [0.02, 0.98]])
    found = suspect_labels(probabilities, np.array([0, 0, 1, 1, 0, 0]))
    assert [one.place for one in found] == [5]
    probabilities[4] = [0.08, 0.92]
    assert [one.place for one in suspect_labels(probabilities, np.array([0, 0, 1, 1, 0, 0]))] == [5, 4]


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = np.array([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1]])
    assert all(one.suggested != 2 for one in suspect_labels(probabilities, np.array([0, 0, 1])))


def test_nothing_judged_gives_nothing() -> None:
    assert suspect_labels(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == []
