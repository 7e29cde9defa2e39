"""What a model was shown to do, in words: the sentence says what the confusion matrix holds, and no more."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from search.verdict import LEVELS, Alone, judge, words

CLASSES = ("halfway crack", "inclusion cluster", "pore")


def test_the_sentence() -> None:
    found = judge(CLASSES, [[3, 4, 0], [2, 41, 2], [0, 6, 42]], alone=Alone(0.95, 65, 2, 35))
    assert found is not None
    assert words(found) == (
        "86 of 100 new images right (78 to 92 %); weakest: halfway crack, 3 of 7, taken for inclusion cluster; "
        "enough to decide the surest 65 alone (2 of these wrong), not the other 35; enough to promise 75 % right, not "
        "80 %."
    )


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        (Alone(0.95, 0, 0, 100), "not enough to decide any image without a person"),
        (Alone(0.95, 100, 3, 0), "enough to decide every image alone, 3 of 100 wrongly"),
        (None, "; enough to promise"),
    ],
)
def test_what_it_may_decide_alone(alone: Alone | None, said: str) -> None:
    found = judge(CLASSES, [[30, 4, 0], [2, 30, 2], [0, 6, 26]], alone=alone)
    assert found is not None and said in words(found)


@pytest.mark.parametrize(("right", "images"), [(1, 30), (20, 30), (72, 72), (995, 1000), (100_000, 100_000)])
def test_a_promise_lies_below_the_interval_and_the_next_round_one_does_not(right: int, images: int) -> None:
    found = judge(("a", "b"), [[right, images - right], [0, 0]])
    assert found is not None
    low = binomtest(right, images).proportion_ci(0.95, "exact").low
    assert (found.proven is None) is (low < LEVELS[0]) and (found.unproven is None) is (low >= LEVELS[-1])
    assert found.proven is None or found.proven <= low
    assert found.unproven is None or found.unproven > low
    places = [LEVELS.index(level) for level in (found.proven, found.unproven) if level is not None]
    assert len(places) < 2 or places[1] == places[0] + 1


def test_a_class_without_an_image_is_said_to_be_unknown() -> None:
    found = judge(CLASSES, [[7, 0, 0], [0, 0, 0], [0, 0, 5]])
    assert found is not None and found.weakest is None
    assert "nothing is known of inclusion cluster, of which there was no image" in words(found)
    flawless = judge(CLASSES[:2], [[7, 0], [0, 5]])
    assert flawless is not None and "no class has a mistake" in words(flawless)
    assert judge(CLASSES, [[0, 0, 0]] * 3) is None


def test_validation_images_promise_nothing() -> None:
    found = judge(CLASSES[:2], [[7, 1], [0, 5]], kind="validation")
    assert found is not None
    assert "12 of 13 validation images right" in words(found) and "promise" not in words(found)
