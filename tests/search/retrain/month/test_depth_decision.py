"""How deep to retrain: every branch of the rule on samples made for it, what the probe reads, and the picture."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from search.retrain.month.baseline import Baseline
from search.retrain.month.depth_decision import decide
from search.retrain.month.drift import compare_drift
from search.retrain.month.probe import beyond_chance, month_probe
from search.retrain.month.record import DepthDecision
from search.retrain.page.depth_figure import depth_figure, depth_title
from tests.search.retrain.made_up import made_up


def decided(old: Baseline, new: Baseline, **options: Any) -> DepthDecision:
    return decide(old, new, compare_drift(old, new), **options)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, int | None, str]] = [
    ("nothing changed", {}, {}, "none", None, "no loss shown"),
    ("fewer than ten images", {"n": 9, "right": 0.0}, {}, "none", None, "9 new images decide nothing"),
    ("a new class, nothing else", {}, {"new_classes": ("scab",)}, "head", 4, "new to the champion: scab; "),
    ("a new class, and a loss", {"right": 0.5}, {"new_classes": ("scab",)}, "head", 4, "so the blocks can stay"),
    (
        "a new class, and many more images",
        {},
        {"new_classes": ("scab",), "growth": 0.4, "lineage_depth": 2},
        "thaw",
        2,
        "new to the champion: scab; ",
    ),
    (
        "nothing to read anywhere",
        {"right": 1 / 3, "readable": (0.0,) * 4, "shares": (1, 1, 1)},
        {},
        "search",
        None,
        "beyond chance",
    ),
    ("maps moved, nothing lost", {"moved": 1}, {}, "head", 4, "maps of two, three, four moved"),
    ("features moved, nothing lost", {"features": 2.0}, {}, "head", 4, "the champion's features moved"),
    ("lost, and the last block still separates", {"right": 0.5}, {}, "head", 4, "so the blocks can stay"),
    (
        "lost in the last block, maps moved from the third on",
        {"right": 0.5, "moved": 2, "readable": (0.2, 0.5, 0.8, 0.5)},
        {},
        "thaw",
        2,
        "the first one whose maps moved, three",
    ),
    (
        "lost in the last block, no maps moved",
        {"right": 0.5, "readable": (0.2, 2.0, 3.5, 0.5)},
        {},
        "thaw",
        3,
        "what can be read from the blocks does: four",
    ),
    (
        "lost behind the second block, no maps moved",
        {"right": 0.5, "readable": (0.2, 3.5, 0.5, 0.5)},
        {},
        "thaw",
        2,
        "what can be read from the blocks does: three",
    ),
    ("many more images", {}, {"growth": 0.4, "lineage_depth": 2}, "thaw", 2, "40% more images"),
    ("many more images, head only", {}, {"growth": 0.4, "lineage_depth": 4}, "head", 4, "40% more images"),
    ("a few more images", {}, {"growth": 0.2, "lineage_depth": 2}, "none", None, "no loss shown"),
]


@pytest.mark.parametrize(("what", "new", "options", "action", "depth", "words"), CASES, ids=[c[0] for c in CASES])
def test_the_rule(
    what: str,
    new: dict[str, Any],
    options: dict[str, Any],
    action: str,
    depth: int | None,
    words: str,
) -> None:
    # A baseline in which every block reads as in the new month, so that only the new month's own story decides.
    old = made_up(240, 5, readable=new.get("readable", (0.2, 0.5, 0.8, 3.0)))
    found = decided(old, made_up(**{"n": 100, "seed": 6, **new}), **options)
    assert (found.action, found.depth) == (action, depth), found.reason
    assert words in found.reason
    assert found.by_maps is ("whose maps moved" in found.reason)
    assert list(found.by_block) == list(old.blocks)


def test_the_loss_has_newcombes_interval() -> None:
    found = decided(made_up(240, 5), made_up(100, 6, right=0.6))

    def wilson(p: float, n: int) -> tuple[float, float]:
        z = norm.ppf(0.975)
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    r, a = found.reference, found.accuracy
    (l1, u1), (l2, u2) = wilson(r, 240), wilson(a, 100)
    expected = (r - a, r - a - math.hypot(r - l1, u2 - a), r - a + math.hypot(u1 - r, a - l2))
    assert found.loss == pytest.approx(expected, abs=1e-6)


def test_the_probe_reads_what_is_there_and_no_more() -> None:
    old, new = made_up(240, 5), made_up(100, 6)
    shares = [np.mean(month_probe(old, new, block) == new.labels) for block in range(4)]
    assert shares[3] > 0.85
    assert shares[0] < 0.6
    assert shares[3] > shares[2] > shares[0]


def test_the_probe_learns_the_new_month_where_it_contradicts_the_old() -> None:
    old, new = made_up(400, 5), made_up(100, 6, turned=1)
    # 80 new images weigh as much as 400 old ones that say the opposite; as single images they would be outvoted.
    assert 0.3 < np.mean(month_probe(old, new, 3) == new.labels) < 0.8


def test_no_image_is_answered_by_a_classifier_that_saw_its_plate() -> None:
    # Labels without any meaning, but each plate has features of its own: only a leak could read them.
    rng = np.random.default_rng(0)
    new = made_up(120, 6, a_group=4)
    plate = rng.integers(0, 3, 30)
    object.__setattr__(new, "labels", plate[new.groups])
    own = 5 * np.eye(30)[new.groups] + rng.normal(0, 0.1, (120, 30))
    object.__setattr__(new, "block_features", (own.astype(np.float32),) * 4)
    old = made_up(30, 5)
    object.__setattr__(old, "block_features", (np.zeros((30, 30), np.float32),) * 4)
    assert np.mean(month_probe(old, new, 0) == new.labels) < 0.55
    object.__setattr__(new, "groups", np.arange(120))
    assert np.mean(month_probe(old, new, 0) == new.labels) > 0.8


def test_classes_are_matched_by_name() -> None:
    old, new = made_up(240, 5), made_up(100, 6)
    turned = made_up(240, 5)
    order = np.array([2, 0, 1])
    object.__setattr__(turned, "classes", tuple(np.array(old.classes)[order]))
    object.__setattr__(turned, "labels", np.argsort(order)[old.labels])
    assert month_probe(turned, new, 3).tolist() == month_probe(old, new, 3).tolist()  # type: ignore[union-attr]


def test_features_that_are_not_finite_have_no_probe() -> None:
    new = made_up(100, 6)
    new.block_features[1][0, 0] = np.nan
    found = decided(made_up(240, 5), new)
    assert math.isnan(found.by_block["two"].probe) and not math.isnan(found.by_block["four"].probe)
    assert "depth_probe/two" not in found.metrics()
    assert DepthDecision.from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()
    assert depth_figure(found).axes


def test_unequal_classes_are_no_excuse() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    rng = np.random.default_rng(0)
    assert not beyond_chance([np.zeros(100, int)], labels, rng)
    assert beyond_chance([np.array([0] * 96 + [1] * 4)], labels, rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth": -0.1}, "growth must be >= 0, got -0.1"),
        ({"lineage_depth": 5}, r"lineage_depth must be in 0\.\.4, got 5"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decided(made_up(20, 5), made_up(20, 6), **options)


def test_the_picture_shows_the_freeze_depth() -> None:
    found = decided(made_up(240, 5, readable=(0.2, 0.5, 0.8, 0.5)),
                    made_up(100, 6, right=0.5, moved=2, readable=(0.2, 0.5, 0.8, 0.5)))  # fmt: skip
    assert depth_title(found) == "Retrained: blocks from three on, and the head"
    figure = depth_figure(found)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "◀ frozen" in texts and "trained ▶" in texts
    memory = io.BytesIO()
    figure.savefig(memory, format="png")
    assert Image.open(memory).size[0] > 600
