"""The scorecard: worked examples by hand, what is not known, and how it reads on a narrow page."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from explain.evidence import Cost
from search.evidence.record import Evidence, ScorerEvidence
from search.outcome.scorecard import SeenDepth, scorecard, scorecard_table, seen_depths
from search.study.record import TrialRecord

NAN = float("nan")


def _trial(depth: int, value: float, outcome: str = "complete") -> TrialRecord:
    complete = outcome == "complete"
    return TrialRecord(
        create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=value if complete else None,
            params={"freeze_depth": depth},
            distributions={"freeze_depth": IntDistribution(0, 8)},
            user_attrs={"slot": 0, "value": value, "outcome": outcome},
        )
    )


def _scorer(name: str, s: list[float], preferred: int, seconds: float = 1.0) -> ScorerEvidence:
    values = np.array(s)
    unknown = np.full(len(s), NAN)
    flat = np.full(len(s), 1 / len(s))
    return ScorerEvidence(
        name, "depth", values, unknown, unknown, unknown, values, flat, preferred, Cost(seconds, 1, 1)
    )


def _evidence(
    *scorers: ScorerEvidence, prior: str = "uniform", blocks: int = 4, depths: tuple[int, int] | None = None
) -> Evidence:
    none = np.zeros(0, np.int64)
    return Evidence(
        blocks=tuple(f"stage{number + 1}" for number in range(blocks)),
        scorers={scorer.name: scorer for scorer in scorers},
        depths=depths or (0, blocks),
        prior=prior,
        probabilities=np.full(blocks + 1, 1 / (blocks + 1)),
        preferred=blocks,
        cost=Cost(),
        training_rows=none,
        validation_rows=none,
    )


SEEN = {
    0: SeenDepth(0.6, False, 3),
    1: SeenDepth(0.7, False, 2),
    2: SeenDepth(0.9, False, 4),
    4: SeenDepth(0.8, True, 1),
}


def test_the_best_of_each_depth_counts_and_stopped_ones_with_their_best_so_far() -> None:
    trials = [
        _trial(2, 0.80),
        _trial(2, 0.85, "pruned"),
        _trial(2, 0.10),
        _trial(0, 0.70, "pruned"),
        _trial(0, 0.70),
        _trial(3, 0.0, "diverged"),
        _trial(4, NAN, "pruned"),
    ]
    assert seen_depths(trials) == {0: SeenDepth(0.70, False, 2), 2: SeenDepth(0.85, True, 3)}
    assert list(seen_depths(trials)) == [0, 2]
    assert seen_depths([]) == {}


def test_a_row_by_hand() -> None:
    # s of the depths seen (0, 1, 2, 4): 1, 3, 2, 4; their scores: .6, .7, .9, .8: two of six pairs disagree.
    (row,) = scorecard(_evidence(_scorer("logme", [1, 3, 2, 2.5, 4], 1, 2.5), prior="logme"), SEEN)
    assert (row.scorer, row.used, row.chosen, row.depths, row.seconds) == ("logme", True, 4, 4, 2.5)
    assert row.order == (4, 1, 3, 2, 0)
    assert row.tau == pytest.approx((4 - 2) / 6)
    assert row.p_value == pytest.approx(0.75)  # 18 of the 24 orders agree or disagree at least as much
    assert row.regret == pytest.approx(0.1)


def test_depths_without_a_score_are_left_out() -> None:
    (row,) = scorecard(_evidence(_scorer("cka", [NAN, 1, 2, NAN, NAN], 2)), SEEN)
    assert (row.order, row.tau, row.depths, row.regret) == ((2, 1), pytest.approx(1), 2, pytest.approx(0))
    (row,) = scorecard(_evidence(_scorer("cka", [NAN] * 5, 3)), SEEN)
    assert (row.order, row.chosen, row.depths, row.regret) == ((), None, 0, None)
    assert math.isnan(scorecard_table([row], 3)["chosen_depth"][0])
    assert math.isnan(row.tau) and math.isnan(row.p_value)


def test_of_equal_scores_the_deeper_is_first_and_ties_on_all_seen_depths_give_no_tau() -> None:
    (row,) = scorecard(_evidence(_scorer("deepest", [0, 0, 0, 1, 0], 3)), SEEN)
    assert row.order == (3, 4, 2, 1, 0)
    assert math.isnan(row.tau) and row.depths == 4
    assert row.regret is None  # depth 3 was not tried


def test_only_depths_of_the_space_are_ordered() -> None:
    (row,) = scorecard(_evidence(_scorer("monotone", [0, 1, 2, 3, 4], 3), depths=(1, 3)), SEEN)
    assert row.order == (3, 2, 1)


@pytest.mark.parametrize(("seen", "regret"), [({}, None), ({2: SeenDepth(0.9, False, 7)}, 0.0)])
def test_one_depth_or_none_gives_no_tau(seen: dict[int, SeenDepth], regret: float | None) -> None:
    (row,) = scorecard(_evidence(_scorer("logme", [1, 2, 3, 2, 1], 2)), seen)
    assert math.isnan(row.tau) and math.isnan(row.p_value)
    assert (row.depths, row.regret) == (len(seen), regret)


def test_no_scorers_give_no_rows() -> None:
    assert scorecard(_evidence(), SEEN) == ()
    assert scorecard_table([], 0).empty


def test_the_table_holds_what_is_known() -> None:
    rows = scorecard(
        _evidence(_scorer("logme", [1, 3, 2, 2.5, 4], 1), _scorer("deepest", [0, 0, 0, 1, 0], 4), prior="deepest"), SEEN
    )
    table = scorecard_table(rows, 10)
    assert list(table["scorer"]) == ["logme", "deepest"] and list(table["used"]) == [False, True]
    assert list(table["order"]) == ["4 1 3 2 0", "3 4 2 1 0"] and list(table["trials"]) == [10, 10]
    assert table["regret"][0] == pytest.approx(0.1) and math.isnan(table["regret"][1])
    assert list(table["chosen_was_tried"]) == [True, False]
