"""How far evidence trusts a freeze depth, and what that does to a study whose trials wait for each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from explain.evidence import Cost
from search.evidence.record import Evidence, ScorerEvidence
from search.evidence.trust import Trust, describe_trust, trust_from_evidence, trust_from_scores
from search.executor.protocol import Job
from search.study.driver import SearchStudy
from search.study.promotion import PromotionRule, Standing
from search.study.record import finished_trials
from tests.search.conftest import RunSearch
from tests.search.study.scripted_study import Bench, ScriptedExecutor, curve

E2, E3 = "cam_stability", "train_validation_disagreement"
NAN = math.nan


def trust_of(stability: list[float], disagreement: list[float]) -> list[float]:
    scores = {E2: np.array(stability, float), E3: np.array(disagreement, float)}
    return list(trust_from_scores(scores, tuple(f"stage{b}" for b in range(1, len(stability) + 1))).values)


def scorer(name: str, values: list[float], null: float = 0.0) -> ScorerEvidence:
    blocks, depths = len(values), len(values) + 1
    return ScorerEvidence(
        name=name,
        kind="block",
        values=np.array(values, float),
        null_mean=np.full(blocks, null),
        null_spread=np.ones(blocks),
        z=np.array(values, float) - null,
        depth_scores=np.zeros(depths),
        probabilities=np.full(depths, 1 / depths),
        preferred=depths - 1,
        cost=Cost(1.0),
    )


def evidence(**values: list[float]) -> Evidence:
    """Of eight blocks; E2 and E3 as given."""
    scorers = {name: scorer(name, list(found), null=0.1) for name, found in values.items()}
    none = np.zeros(0, np.int64)
    return Evidence(
        tuple(f"stage{b}" for b in range(1, 9)), scorers, (0, 8), "uniform", np.full(9, 1 / 9), 8, Cost(1.0), none, none
    )


@pytest.mark.parametrize(
    ("stability", "disagreement", "expected"),
    [
        pytest.param([0, 0, 0], [0, 0, 0], [1, 1, 1, 1], id="blocks that do not differ"),
        pytest.param([NAN] * 3, [NAN] * 3, [1, 1, 1, 1], id="nothing is known"),
        # c = +1, -1 in both: g = 1, -1
        pytest.param([1, 0], [1, 0], [0.5, 2, 0.5], id="freeze the first, thaw the second"),
        pytest.param([0, 1], [0, 1], [2, 0.5, 2], id="thaw the first, freeze the second"),
        pytest.param([1, 0], [0, 1], [1, 1, 1], id="the two contradict each other"),
        pytest.param([1, 0], [NAN, NAN], [0.5, 2, 0.5], id="one scorer alone"),
        pytest.param([1, 0], [NAN, 5], [0.5, 2**0.75, 2**-0.5], id="one block known to one scorer"),
        pytest.param([1, 0, NAN], [NAN] * 3, [0.5, 2, 0.5, 1], id="an unknown last block"),
    ],
)
def test_the_formula(stability: list[float], disagreement: list[float], expected: list[float]) -> None:
    assert trust_of(stability, disagreement) == pytest.approx(expected)


numbers = st.one_of(st.floats(-1e6, 1e6), st.just(NAN), st.just(math.inf))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_trust_is_between_a_half_and_two_whatever_the_scores(scores: list[tuple[float, float]]) -> None:
    found = trust_of([a for a, _ in scores], [b for _, b in scores])
    assert len(found) == len(scores) + 1 and all(0.5 <= value <= 2 for value in found)


def test_scores_are_read_above_their_own_null_and_the_reason_has_the_numbers() -> None:
    found = trust_from_evidence(evidence(**{E2: [0.9, 0.1, *[0.5] * 6], E3: [0.1] * 8}))
    assert found is not None and found.values[0] < 1 < found.values[1]
    assert found.reasons[0] == (
        "first thawed stage1: maps change little when trained, 0.80 against 0.40, "
        "training does not over-fit it, 0.00 against 0.00"
    )
    assert found.reasons[1].startswith("first thawed stage2: maps change much when trained, 0.00 against 0.40")
    assert "; last frozen stage1: maps change little when trained, 0.80 against 0.40" in found.reasons[1]
    assert "first thawed" not in found.reasons[8]


def test_no_evidence_is_no_trust() -> None:
    assert trust_from_evidence(evidence()) is None
    assert trust_from_evidence(evidence(**{E2: [NAN] * 8})) is None
    assert describe_trust(None).startswith("No trust from evidence")
    assert describe_trust(evidence(**{E2: [0.0] * 8})).startswith("Trust in freeze depths 0..8: 1.00 1.00")


# Nine waiting trials at depth 4, scores falling with the slot.
FIELD = [Standing(slot, 4, {1: 0.9 - slot / 100}, True) for slot in range(9)]


def rule(trust: float, factor: float = 3, at: tuple[int, ...] = (1, 2, 4)) -> PromotionRule:
    return PromotionRule(at, factor, trust=Trust((trust,) * 9, ("why",) * 9))


@pytest.mark.parametrize(
    ("trust", "factor", "rung", "expected"),
    [
        pytest.param(1.0, 3, 1, 3, id="neither"),
        pytest.param(2.0, 3, 1, 6, id="most"),
        pytest.param(0.5, 3, 1, 1, id="least"),
        pytest.param(0.5, 9, 1, 1, id="the best of its peers goes on all the same"),
        pytest.param(1.2, 3, 1, 4, id="patience: half of them at the first rung"),
        pytest.param(1.2, 3, 2, 3, id="no patience at the second"),
        pytest.param(2.0, 2, 1, 8, id="never the last of them"),
    ],
)
def test_how_many_of_nine_go_on(trust: float, factor: float, rung: int, expected: int) -> None:
    there = [replace(t, scores=dict.fromkeys(range(1, rung + 1), t.scores[1])) for t in FIELD]
    assert sum(rule(trust, factor).passes(t, there) for t in there) == expected


def test_one_that_goes_on_for_its_trust_is_known_as_such() -> None:
    assert [t.slot for t in FIELD if rule(2.0).owes_to_trust(t, FIELD)] == [3, 4, 5]
    assert not any(rule(0.5).owes_to_trust(t, FIELD) for t in FIELD)
    assert rule(0.5).reason(FIELD[2], FIELD) == (
        "halving rule at epoch 1: 2 of 8 other trials of similar freeze depth are ahead; trusted 0.50 times (why)"
    )


def test_nobody_goes_on_for_having_come_first() -> None:
    assert not rule(2.0, factor=2).passes(FIELD[0], FIELD[:1])
    assert rule(0.5).passes(FIELD[0], FIELD[:1], closing=True)


fields = st.lists(st.tuples(st.integers(0, 8), st.floats(0, 1)), min_size=1, max_size=15)
trusts = st.lists(st.floats(0.5, 2), min_size=9, max_size=9)


@given(fields, st.sampled_from([2, 3, 4, 2.5]), st.booleans(), st.integers(0, 8))
def test_trust_of_one_is_the_plain_rule(
    field: list[tuple[int, float]], factor: float, closing: bool, more: int
) -> None:
    trials = [Standing(slot, depth, {1: score}, True) for slot, (depth, score) in enumerate(field)]
    plain, trusting = PromotionRule((1, 2), factor), rule(1.0, factor, (1, 2))
    assert plain.next(trials, closing=closing) == trusting.next(trials, closing=closing)
    for trial in trials:
        assert plain.passes(trial, trials, closing=closing) == trusting.passes(trial, trials, closing=closing)
        most = len(trials) + more
        assert plain.may_pass(trial, trials, most) == trusting.may_pass(trial, trials, most)


@given(fields, trusts, st.sampled_from([2, 3, 4]), st.integers(0, 8), st.integers(0, 8))
def test_the_best_goes_on_and_who_may_not_pass_never_does(
    field: list[tuple[int, float]], trust: list[float], factor: int, more: int, depth: int
) -> None:
    """Whatever comes after: the poorest possible scores, or any of those seen, at any depth."""
    made = PromotionRule((1,), factor, trust=Trust(tuple(trust), ("",) * 9))
    now = [Standing(slot, k, {1: score}, True) for slot, (k, score) in enumerate(field)]
    best = min(now, key=lambda t: (-t.scores[1], -t.freeze_depth, t.slot))
    assert made.passes(best, now, closing=True) and made.may_pass(best, now, len(now) + more)
    for trial in made.hopeless(now, len(now) + more):
        for later in (0.0, max(t.scores[1] for t in now)):
            come = [Standing(len(now) + i, depth, {1: later}, True) for i in range(more)]
            assert not made.passes(trial, [*now, *come], closing=True)


# A study whose evidence is for freezing four blocks: depths 3 and 5 are beside it.
CUT = {E2: [0.8] * 4 + [0.2] * 4, E3: [0.4] * 4 + [0.1] * 4}


def trusting(**search: Any) -> Bench:
    bench = Bench(**{"pruner": "halving", "trials": 14, "trust": "evidence", "evidence": True, **search})
    bench.study.set_user_attr("evidence", evidence(**CUT).to_json())
    return bench


def test_a_study_says_whom_it_trusted_and_why() -> None:
    bench = trusting()
    bench.run()
    trials = finished_trials(bench.study)
    assert [t.state for t in trials].count(TrialState.COMPLETE) >= 1
    stopped = [t for t in trials if t.user_attrs["reason"].startswith("halving rule")]
    assert stopped and all(" times (" in t.user_attrs["reason"] and "stage" in t.user_attrs["reason"] for t in stopped)
    on = [t for t in trials if "trusted" in t.user_attrs]
    assert on
    for trial in on:
        assert trial.user_attrs["trusted"] == bench.tracker.runs[trial.user_attrs["run_id"]].tags["trusted"]
        assert trial.user_attrs["trusted"].startswith("goes on: halving rule at epoch ")
        assert len(trial.intermediate_values) > 1
    assert not any("trusted" in t.user_attrs for t in finished_trials(plain_of(bench).study))


def plain_of(bench: Bench) -> Bench:
    other = Bench(**{**bench.search, "trust": "none"})
    other.study.set_user_attr("evidence", bench.study.user_attrs["evidence"])
    other.run()
    return other


@pytest.mark.parametrize("killed", [False, True], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("job", [0, 3, 7, 11])
def test_a_study_that_is_taken_up_again_goes_on_with_the_same_trust(
    job: int, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, bench = trusting(), trusting()
    jobs = undisturbed.run().jobs
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if killed:
            patch.setattr(SearchStudy, "_abandon", lambda self, executor: None)
        bench.run(ScriptedExecutor(interrupt_in=(job, jobs[job].reported)))
    bench.run()
    assert bench.params() == undisturbed.params()
    for name in ("trusted", "reason", "outcome"):
        found = [[t.user_attrs.get(name) for t in finished_trials(b.study)] for b in (bench, undisturbed)]
        assert found[0] == found[1]


def test_a_trial_that_diverges_in_its_first_epoch_ends_as_without_trust() -> None:
    def script(number: int, job: Job) -> list[float] | str:
        return "diverge" if job.slot == 2 else curve(job.params)

    bench = trusting()
    bench.run(ScriptedExecutor(script))
    assert finished_trials(bench.study)[2].user_attrs["outcome"] == "diverged"
    assert bench.slots() == list(range(14))


def test_a_study_without_evidence_trusts_all_alike() -> None:
    bench = Bench(pruner="halving", trials=14, trust="evidence", evidence=True)
    bench.run()
    plain = Bench(pruner="halving", trials=14)
    plain.run()
    assert bench.params() == plain.params()
    assert [t.values for t in finished_trials(bench.study)] == [t.values for t in finished_trials(plain.study)]


@pytest.mark.parametrize(
    ("setting", "got"),
    [
        ("search.pruner=median", "got search.pruner=median and search.evidence=true"),
        ("search.evidence=false", "got search.pruner=halving and search.evidence=false"),
    ],
)
def test_settings_that_contradict_trust_are_refused(setting: str, got: str, run_search_warm: RunSearch) -> None:
    outcome = run_search_warm("search.trust=evidence", "search.evidence=true", setting)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "search.trust=evidence needs search.pruner=halving and search.evidence=true" in outcome.err
    assert got in outcome.err


@pytest.mark.slow
@pytest.mark.long  # off by default
def test_a_search_prints_and_keeps_its_trust(tiny: tuple[str, ...], run_search_warm: RunSearch) -> None:
    outcome = run_search_warm(*tiny, "search.study=trusting", "search.trust=evidence", "search.evidence=true")
    assert outcome.code == 0, outcome.err
    assert "Trust in freeze depths 0..8:" in outcome.out


@pytest.mark.slow
def test_a_search_without_evidence_says_so(tiny: tuple[str, ...], run_search_warm: RunSearch) -> None:
    outcome = run_search_warm(
        *tiny, "search.study=trustless", "search.trust=evidence", "search.evidence=true", "trainer.warmup=false"
    )
    assert outcome.code == 0, outcome.err
    assert "No trust from evidence:" in outcome.out
