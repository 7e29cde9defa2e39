"""Champion against challenger: the numbers by other ways, the laws, and the promotion rule on tables of cases."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact
from sklearn.metrics import f1_score

from benchmarks.promotion_rule import coverage, promotions
from search.retrain.month.comparison import compare, decide
from search.retrain.month.record import Comparison, Decision
from search.significance import fall_p_value, macro_f1_draws, paired_interval, smallest_detectable

CLASSES = ("island", "pipe", "<b>flake</b> 섬")


def answers(predicted: Any, classes: int = 3) -> np.ndarray:
    """Probabilities that say so, 0.8 for the class."""
    return np.eye(classes)[np.asarray(predicted)] * 0.7 + 0.3 / classes


def pair(n: int = 90, *, gained: int = 0, lost: int = 0, wrong: int = 10) -> Comparison:
    """n images of three classes in turn; the last `wrong` of them wrong in both, before them those lost and gained."""
    labels = np.arange(n) % 3
    champion, challenger = labels.copy(), labels.copy()
    off = (labels + 1) % 3
    both, only = slice(n - wrong, n), n - wrong
    champion[both] = challenger[both] = off[both]
    challenger[only - lost : only] = off[only - lost : only]
    champion[only - lost - gained : only - lost] = off[only - lost - gained : only - lost]
    return compare(answers(champion), answers(challenger), labels, classes=CLASSES)


@pytest.fixture(scope="module")
def compared() -> tuple[np.ndarray, np.ndarray, np.ndarray, Comparison]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    one, other = (np.where(rng.random(120) < share, labels, rng.integers(0, 3, 120)) for share in (0.7, 0.85))
    return labels, one, other, compare(answers(one), answers(other), labels, classes=CLASSES, seed=3)


def test_the_numbers_are_those_of_other_programs(
    compared: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    labels, one, other, found = compared
    assert found.accuracy.champion == pytest.approx((one == labels).mean())
    assert found.accuracy.difference == pytest.approx((other == labels).mean() - (one == labels).mean())
    for predicted, score in ((one, found.macro_f1.champion), (other, found.macro_f1.challenger)):
        assert score == pytest.approx(f1_score(labels, predicted, average="macro"))
    b, c = ((one == labels) & (other != labels)).sum(), ((one != labels) & (other == labels)).sum()
    assert (found.only_champion, found.only_challenger) == (b, c)
    assert found.mcnemar_p == pytest.approx(binomtest(int(b), int(b + c)).pvalue)
    for number, row in enumerate(found.per_class):
        inside = labels == number
        assert (row.name, row.images) == (CLASSES[number], inside.sum())
        assert row.fall == pytest.approx((one == labels)[inside].mean() - (other == labels)[inside].mean())
    assert np.sum(found.confusion_champion) == 120
    assert found.confusion_challenger[1][2] == ((labels == 1) & (other == 2)).sum()
    assert found.macro_f1.low < found.macro_f1.difference < found.macro_f1.high


def test_a_comparison_goes_through_json(compared: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison]) -> None:
    found = compared[-1]
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found
    decision = decide(found, None, margin=0.05, guard=0.3)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_exchanging_the_models_turns_every_sign(
    compared: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    labels, one, other, found = compared
    turned = compare(answers(other), answers(one), labels, classes=CLASSES, seed=3)
    assert turned.accuracy.low == pytest.approx(-found.accuracy.high, abs=1e-9)
    assert turned.accuracy.difference == -found.accuracy.difference
    assert turned.mcnemar_p == found.mcnemar_p
    assert turned.smallest_detectable == found.smallest_detectable
    assert turned.macro_f1.low == pytest.approx(-found.macro_f1.high, abs=0.03)


def test_a_class_that_nobody_answers_and_nobody_is_changes_nothing(
    compared: tuple[np.ndarray, np.ndarray, np.ndarray, Comparison],
) -> None:
    labels, one, other, found = compared
    wider = compare(answers(one, 5), answers(other, 5), labels, classes=(*CLASSES, "d", "e"), seed=3)
    assert (wider.macro_f1, wider.accuracy) == (found.macro_f1, found.accuracy)
    assert math.isnan(wider.per_class[4].fall)


@given(st.integers(1, 400), st.data())
def test_the_interval_solves_tangos_equation(n: int, data: Any) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    low, high = paired_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    for d in (low, high):
        if abs(d) > 1 - 1e-6:
            continue
        # q maximises the likelihood of the lost share under the difference d: found here by search, not by formula.
        grid = np.linspace(max(0, -d), (1 - d) / 2, 20001)[1:-1]
        likelihood = gained * np.log(grid + d) + lost * np.log(grid) + (n - gained - lost) * np.log1p(-2 * grid - d)
        q = grid[np.argmax(likelihood)]
        z = (gained - lost - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))
        assert abs(z) == pytest.approx(1.96, abs=0.02)


def test_without_discordant_images_the_interval_is_not_empty() -> None:
    z2 = 1.959964**2
    low, high = paired_interval(0, 0, 100)
    assert (low, high) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-6)


def test_the_interval_covers_as_often_as_it_says() -> None:
    held = coverage(50, 0.05, 800)
    assert held["Tango"] == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("n", "discordant"), [(60, 6), (100, 30), (400, 20)])
def test_the_smallest_detectable_difference_is_found_with_the_power_it_says(n: int, discordant: int) -> None:
    d = smallest_detectable(n, discordant)
    psi = max(discordant / n, d)
    rng = np.random.default_rng(0)
    cells = rng.multinomial(n, [(psi - d) / 2, (psi + d) / 2, 1 - psi], size=3000)
    counts, times = np.unique(cells[:, :2], axis=0, return_counts=True)
    found = [b + c > 0 and binomtest(int(b), int(b + c)).pvalue <= 0.05 for b, c in counts]
    assert np.dot(found, times) / 3000 == pytest.approx(0.8, abs=0.025)


def test_the_smallest_detectable_difference_obeys_its_laws() -> None:
    assert smallest_detectable(5, 0) == 1
    by_size = [smallest_detectable(n, n // 10) for n in (20, 50, 100, 300, 1000)]
    assert by_size == sorted(by_size, reverse=True)
    assert smallest_detectable(100, 30) > smallest_detectable(100, 10)
    # Connor's formula for many images: sqrt(n) d = z(.975) sqrt(psi) + z(.8) sqrt(psi - d^2).
    d = smallest_detectable(2000, 200)
    assert math.sqrt(2000) * d == pytest.approx(1.959964 * math.sqrt(0.1) + 0.841621 * math.sqrt(0.1 - d * d), rel=0.03)


@given(st.integers(1, 40), st.data())
def test_the_fall_of_a_class_is_fishers_exact_test(images: int, data: Any) -> None:
    champion, challenger = data.draw(st.integers(0, images)), data.draw(st.integers(0, images))
    table = [[champion, images - champion], [challenger, images - challenger]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert fall_p_value(champion, challenger, images) == pytest.approx(expected, abs=1e-9)


def test_macro_f1_is_resampled_within_classes() -> None:
    truth = np.array([0] * 50 + [1])
    first, second = truth.copy(), truth.copy()
    second[:10] = 1
    scores, draws = macro_f1_draws(truth, first, second, 2, resamples=300, seed=0)
    assert scores == pytest.approx((f1_score(truth, first, average="macro"), f1_score(truth, second, average="macro")))
    # The one image of class 1 is in every resample, so the first model is always perfect.
    assert draws.max() < 0


CASES = [
    ("clearly better", {"gained": 12}, {}, True),
    ("a little better, and the interval allows it", {"gained": 5, "lost": 2}, {}, True),
    ("equal", {"gained": 4, "lost": 4}, {}, False),
    ("identical", {}, {}, False),
    ("worse", {"gained": 2, "lost": 5}, {}, False),
    ("better, but the interval reaches too far down", {"gained": 15, "lost": 13}, {}, False),
    ("better, regression set a little worse", {"gained": 12}, {"gained": 0, "lost": 4}, True),
    ("better, regression set forgotten", {"gained": 12}, {"gained": 0, "lost": 6}, False),
]


@pytest.mark.parametrize(("what", "newest", "regression", "promoted"), CASES, ids=[case[0] for case in CASES])
def test_the_rule(what: str, newest: dict[str, int], regression: dict[str, int], promoted: bool) -> None:
    decision = decide(pair(**newest), pair(**regression), margin=0.05, guard=0.3)
    assert decision.promote is promoted, decision.reason
    assert decision.promote is all(held for _, held in decision.checks)
    assert decision.reason.startswith("promoted: " if promoted else "champion kept: ")
    assert "of 90 new images right, the champion " in decision.reason and "-0" not in decision.reason


@pytest.mark.parametrize(("others", "promoted"), [({"gained": 0, "lost": 4}, True), ({"gained": 0, "lost": 6}, False)])
def test_other_months_are_not_to_be_forgotten_either(others: dict[str, int], promoted: bool) -> None:
    decision = decide(pair(gained=12), pair(), pair(**others), margin=0.05, guard=0.3)
    assert decision.promote is promoted, decision.reason
    assert (
        "held-out images of other months it is " in decision.reason and "points worse; 5 are allowed" in decision.reason
    )


@pytest.mark.parametrize(
    ("gained", "lost", "images", "said"),
    [
        (2, 1, 20, "with 20 images we cannot exclude that it is 16 points worse; 5 are allowed"),
        (12, 2, 90, "with 90 images it is shown to be no worse"),
        (4, 1, 100, "with 100 images it can be at most 1.9 points worse; 5 are allowed"),
    ],
)
def test_what_so_many_images_show_is_said_plainly(gained: int, lost: int, images: int, said: str) -> None:
    decision = decide(pair(images, gained=gained, lost=lost), None, margin=0.05, guard=0.9)
    assert decision.checks[1][0] == said
    assert decision.reason.count(said) == 1


def test_without_a_regression_set_it_is_not_asked_for() -> None:
    assert len(decide(pair(gained=12), None, margin=0.05, guard=0.3).checks) == 3


def collapse(hits: int, images: int, others: int = 120) -> Comparison:
    """The challenger is better on other classes, and has `hits` of `images` of the last one right, the champion all."""
    labels = np.array([0, 1] * (others // 2) + [2] * images)
    champion, challenger = labels.copy(), labels.copy()
    champion[:30] = 1 - champion[:30]
    challenger[len(labels) - images + hits :] = 0
    return compare(answers(champion), answers(challenger), labels, classes=CLASSES)


@pytest.mark.parametrize(
    ("hits", "images", "collapsed"), [(2, 3, False), (1, 3, False), (0, 3, True), (0, 2, False), (4, 8, True)]
)
def test_a_class_collapses_beyond_chance_only(hits: int, images: int, collapsed: bool) -> None:
    decision = decide(collapse(hits, images), None, margin=0.05, guard=0.3)
    assert decision.promote is not collapsed
    if collapsed:
        assert f"<b>flake</b> 섬 (newest: {hits} of {images} right instead of {images}" in decision.reason


def test_two_halves_of_a_collapse_are_put_together() -> None:
    half = collapse(0, 2)
    assert decide(half, None, margin=0.05, guard=0.3).promote
    decision = decide(half, half, margin=0.05, guard=0.3)
    assert not decision.promote
    assert "all together: 0 of 4 right instead of 4" in decision.reason


def test_the_rule_is_as_often_right_as_the_documentation_says() -> None:
    better = promotions(100, 0.05, 250, margin=0.05, guard=0.3)
    worse = promotions(100, -0.05, 250, margin=0.05, guard=0.3)
    assert better["rule"] > 0.75 > 0.4 > better["significant"]
    assert worse["rule"] < 0.06


@pytest.mark.parametrize(
    ("champion", "labels", "message"),
    [
        (answers([0, 1]), [0, 1, 2], r"champion must be \(3, 3\) probabilities, got \(2, 3\)"),
        (answers([0]), [], "labels must be at least one class index"),
        (answers([0]), [3], r"labels must be in 0\.\.2, got 3\.\.3"),
        (answers([0]), [0.5], "labels must be at least one class index .*float64"),
        (np.full((1, 3), np.nan), [0], "champion must be finite probabilities"),
    ],
)
def test_what_cannot_be_compared_is_refused(champion: np.ndarray, labels: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(champion, champion, labels, classes=CLASSES)


@pytest.mark.parametrize(
    ("margin", "guard", "message"),
    [(0, 0.3, r"margin must be in \(0, 1\), got 0"), (0.05, 0, r"guard must be in \(0, 1\], got 0")],
)
def test_margins_out_of_range_are_refused(margin: float, guard: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(pair(), None, margin=margin, guard=guard)
