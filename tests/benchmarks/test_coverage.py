"""What the table of coverage counts, and when it says that a promise is broken, on made-up answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.coverage import chance_below, counted, page_rows, verdict
from benchmarks.results_file import read_rows
from lightning_modules.decisions.conformal import CalibrationScores, categories
from lightning_modules.training.scores import exact_interval
from search.outcome.out_of_sample import OutOfSample

CLASSES = ("a", "b", "c")


def _answers(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 3))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def test_counts_are_those_of_the_sets() -> None:
    unseen = OutOfSample(*_answers(90, 0), np.arange(90))
    logits, labels = _answers(200, 1)
    months = ["2020-01", "2020-02"] * 100
    found = counted(unseen, logits, labels, CLASSES, 0.8, months)
    assert unseen.temperature is not None and unseen.scores is not None
    limits = {place: one.limit for one in categories(unseen.scores, 3, 0.8) for place in one.classes}
    scaled = np.exp(logits / unseen.temperature)
    scores = -np.log(scaled / scaled.sum(1, keepdims=True))
    sets = [[k for k in range(3) if row[k] <= limits[k] + 1e-9] for row in scores]
    kept = [label in one for label, one in zip(labels, sets, strict=True)]
    assert found["kept"] == [sum(kept), 200]
    assert found["by_hand"] == [sum(len(one) != 1 for one in sets), 200]
    decided = [(one[0], label) for one, label in zip(sets, labels, strict=True) if len(one) == 1]
    assert found["wrong"] == [sum(one != label for one, label in decided), len(decided)]
    for place, name in enumerate(CLASSES):
        assert found["classes"][name] == [sum(k for k, label in zip(kept, labels, strict=True) if label == place),
                                          int((labels == place).sum())]  # fmt: skip
    assert found["months"]["2020-02"]["kept"] == [sum(kept[1::2]), 100]


def test_what_cannot_be_calibrated_is_said() -> None:
    with pytest.raises(ValueError, match="19 validation images"):
        counted(OutOfSample(*_answers(19, 0), np.arange(19)), *_answers(9, 1), CLASSES, 0.9)


@pytest.mark.parametrize(("images", "promise"), [(10, 0.9), (60, 0.95)])
def test_chance_is_what_exchangeable_images_show(images: int, promise: float) -> None:
    """One kind of image, whose scores have no ties: how often 300 test images show less than was promised."""
    rng, labels = np.random.default_rng(2), np.zeros(300, np.int64)
    below = []
    for _ in range(1000):
        scores = CalibrationScores(rng.random(images), np.zeros(images, np.int64), np.arange(images))
        limits = categories(scores, 1, promise)
        below.append(exact_interval(int((rng.random(300) <= limits[0].limit).sum()), 300)[1] < promise)
    assert chance_below(limits, labels, promise) == pytest.approx(np.mean(below), abs=0.06)  # 4 standard errors


def test_a_promise_is_broken_where_the_mean_of_the_splits_lies_below() -> None:
    def rows(*hits: int) -> list[dict[str, Any]]:
        return [
            {"kept": [one, 100], "by_hand": [5, 100], "wrong": [1, 95], "chance_below": 0.1,
             "classes": {"a": [one // 2, 50], "b": [one - one // 2, 50], "c": [0, 0]}}
            for one in hits
        ]  # fmt: skip

    kept, broken = verdict(rows(88, 92, 85, 95), 0.9), verdict(rows(80, 81, 82, 79), 0.9)
    assert (kept.broken, broken.broken) == (False, True)
    assert kept.mean[0] == pytest.approx(0.9) and kept.pooled[0] == pytest.approx(0.9)
    assert broken.below == (4, pytest.approx(0.4)) and broken.worst[0] == "a"
    assert not verdict(rows(70), 0.9).broken  # of one split there is no interval


def test_the_page_says_what_was_measured() -> None:
    page = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in page_rows(read_rows("coverage")) if row not in page] == []
