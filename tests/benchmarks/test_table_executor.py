"""Studies of known curves through the driver of a search: who is promoted, what is paid, in which order it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.finished_tables import DepthTable
from benchmarks.table_executor import SilentListener, SilentTracker, TableExecutor
from benchmarks.table_search import Hint, Strategy, block_evidence, replay
from benchmarks.trust import PlainRuleBeside, _rule, _strategy
from search.evidence.trust import Trust
from search.executor.protocol import Executor, Finished, Job, Reported
from search.settings.schema import Settings
from search.study.driver import SearchStudy
from search.study.progress import StudyListener
from search.study.record import finished_trials
from search.trial.result import TrialParams
from search.trial.space import Space

EPOCHS, RUNGS = 4, (1, 2)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(curves: Sequence[Sequence[float]], workers: int = 1) -> tuple[optuna.Study, TableExecutor]:
    """The study in which trial n has curve n, at freeze depths 0 and 1 that cost an epoch and half of one."""
    known: dict[TrialParams, int] = {}
    executor = TableExecutor(
        lambda params: curves[known.setdefault(params, len(known))], lambda depth: 1 - depth / 2, workers=workers
    )
    chosen = Settings()
    chosen = replace(
        chosen,
        search=replace(chosen.search, trials=len(curves), sampler="random"),
        trainer=replace(chosen.trainer, epochs=EPOCHS),
    )
    space = Space(("momentum", "adam"), (0.1, 10.0), (0, 1), TrialParams("momentum", 1.0, 0))
    study = optuna.create_study(direction="maximize")
    listener: StudyListener = SilentListener()
    SearchStudy(chosen, space, study, SilentTracker(), "study", listener).run(executor)
    return study, executor


def test_who_is_promoted_in_a_study_worked_out_by_hand() -> None:
    """One in three goes on. Trial 0 never waits. Trial 1 is the best of three once 2 has come, and waits at epoch 2 as
    one of two. Trial 3 is the best of four, then of three. Trial 5 is second of six, then second of four."""
    curves = [
        [0.50, 0.50, 0.50, 0.50],
        [0.60, 0.65, 0.90, 0.90],
        [0.40, 0.90, 0.90, 0.90],
        [0.70, 0.70, 0.72, 0.71],
        [0.30, 0.90, 0.90, 0.90],
        [0.65, 0.66, 0.90, 0.90],
    ]
    study, executor = study_of(curves)
    trials = finished_trials(study)
    assert [t.user_attrs["epochs"] for t in trials] == [4, 2, 1, 4, 1, 2]
    assert [t.user_attrs["outcome"] for t in trials] == ["complete", "pruned", "pruned", "complete", "pruned", "pruned"]
    assert [t.user_attrs["value"] for t in trials] == [0.50, 0.65, 0.40, 0.71, 0.30, 0.66]
    assert trials[3].user_attrs["loss"] == pytest.approx(0.29)
    costs = [e * (1 - t.params["freeze_depth"] / 2) for e, t in zip([4, 2, 1, 4, 1, 2], trials, strict=True)]
    assert executor.bill == pytest.approx(sum(costs))
    assert [t.user_attrs["epoch_equivalents"] for t in trials] == pytest.approx(costs)


def by_hand(curves: Sequence[Sequence[float]]) -> list[int]:
    """Epochs of each trial by asynchronous successive halving, one in three, with one worker."""
    epochs: list[int] = []

    def ranks(rung: int, trial: int) -> tuple[int, int]:
        there = sorted((n for n, reached in enumerate(epochs) if reached >= rung), key=lambda n: -curves[n][rung - 1])
        return there.index(trial), len(there) // 3

    def advance(trial: int) -> None:
        """To the next rung at which it is not among those that go on."""
        while epochs[trial] < EPOCHS:
            epochs[trial] = next((rung for rung in RUNGS if rung > epochs[trial]), EPOCHS)
            if epochs[trial] in RUNGS and trial != 0 and not goes_on(trial):
                return

    def goes_on(trial: int) -> bool:
        place, places = ranks(epochs[trial], trial)
        return place < places or (place == 0 and len(epochs) == len(curves))

    while True:
        waiting = [n for rung in reversed(RUNGS) for n, reached in enumerate(epochs) if reached == rung]
        ready = [n for n in waiting if goes_on(n)]
        if ready:
            advance(min(ready, key=lambda n: (-epochs[n], -curves[n][epochs[n] - 1])))
        elif len(epochs) < len(curves):
            epochs.append(0)
            advance(len(epochs) - 1)
        else:
            return epochs


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.permutations(range(4 * n))))
def test_the_driver_promotes_whom_the_rule_promotes(order: list[int]) -> None:
    curves = (np.array(order, float) / len(order)).reshape(-1, EPOCHS).tolist()
    study, _ = study_of(curves)
    assert [t.user_attrs["epochs"] for t in finished_trials(study)] == by_hand(curves)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(32)), st.integers(1, 4))
def test_more_workers_fill_the_same_slots(order: list[int], workers: int) -> None:
    curves = (np.array(order, float) / len(order)).reshape(-1, EPOCHS).tolist()
    study, executor = study_of(curves, workers)
    trials = finished_trials(study)
    assert [t.user_attrs["slot"] for t in trials] == list(range(8))
    assert executor.bill == pytest.approx(sum(t.user_attrs["epoch_equivalents"] for t in trials))
    assert sum(one.last for one in executor.spent) >= 8


def test_events_come_in_simulated_time_and_a_trial_that_goes_on_pays_for_new_epochs_alone() -> None:
    executor = TableExecutor(
        lambda _: [0.1, 0.3, 0.2], lambda depth: 1.0 if depth == 0 else 0.4, lambda k: 0.1 * k, workers=2
    )
    protocol: Executor = executor
    slow, fast = Job(0, TrialParams("adam", 1.0, 0), 0), Job(1, TrialParams("adam", 1.0, 1), 0)
    protocol.submit(slow)
    protocol.submit(fast)
    seen = []
    while (event := protocol.poll(0)) is not None:
        epochs = event.report.step + 1 if isinstance(event, Reported) else len(event.result.curve)  # type: ignore[union-attr]
        seen.append((event.slot, type(event).__name__, epochs))
        if isinstance(event, Reported):
            protocol.answer(event.slot, "wait" if event.slot == 1 and epochs == 2 else "train")
    assert seen == [
        (1, "Reported", 1), (1, "Reported", 2), (1, "Finished", 2),
        (0, "Reported", 1), (0, "Reported", 2), (0, "Reported", 3), (0, "Finished", 3),
    ]  # fmt: skip
    assert executor.bill == pytest.approx(3 + 0.8 + 0.1)
    protocol.submit(replace(fast, reported=2))
    reported = protocol.poll(0)
    assert isinstance(reported, Reported) and reported.report.step == 2
    protocol.answer(1, "train")
    finished = protocol.poll(0)
    assert isinstance(finished, Finished) and len(finished.result.curve) == 3
    assert (finished.result.value, finished.result.loss, finished.result.stopped) == (0.2, 0.8, None)
    assert executor.bill == pytest.approx(3 + 1.2 + 0.1)
    protocol.submit(replace(slow, slot=2))
    protocol.cancel(2)
    assert protocol.poll(0) is None


def table(factors: tuple[float, ...] = (0.3, 1.0, 3.0)) -> DepthTable:
    """Validation and test scores of each cell are its place, so that a result tells which cell was looked up."""
    shape = (1, 5, 2, len(factors), EPOCHS)
    curves = np.broadcast_to(np.arange(np.prod(shape[1:-1])).reshape(*shape[:-1], 1) / 100, shape)
    cost = np.linspace(1, 0.2, 5)
    return DepthTable("made up", 5, ("momentum", "adam"), factors, curves, curves, cost, 0 * cost, train=640)


def test_parameters_take_the_curve_of_the_nearest_factor() -> None:
    seen: list[tuple[TrialParams, float]] = []

    class Watch(SilentListener):
        def trial_started(self, slot: int, params: TrialParams, attempt: int) -> None:
            self.params = params

        def trial_ended(self, slot: int, outcome: str, value: float | None, best: tuple[float, int] | None) -> None:
            assert value is not None
            seen.append((self.params, value))

    replay(table(), Strategy("all", {"sampler": "random", "pruner": "none"}), 0, 0, trials=20, listener=Watch())
    assert len({params.lr_factor for params, _ in seen}) == 20
    for params, value in seen:
        factor = 0 if params.lr_factor < (0.3 * 1.0) ** 0.5 else 1 if params.lr_factor < 3**0.5 else 2
        optimizer = ("momentum", "adam").index(params.optimizer)
        assert value == pytest.approx(((params.freeze_depth * 2 + optimizer) * 3 + factor) / 100)


def test_a_prior_steers_the_early_trials_and_costs_what_it_says() -> None:
    prior = np.full(5, 0.05)
    prior[1] = 0.8
    steered = Strategy("prior", {"prior_trials": 1000}, hint=lambda *_: Hint(prior, cost=7.0))
    runs = [replay(table(), steered, 0, seed, trials=12) for seed in range(4)]
    assert all(run.depths[:2] == (2, 1) for run in runs)
    assert np.mean([depth == 1 for run in runs for depth in run.depths[2:]]) > 0.5
    assert all(run.cost[0] == pytest.approx(7 + EPOCHS * table().epoch_cost[2]) for run in runs)


def scores(rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    return {name: rng.normal(size=4) for name in ("cam_stability", "train_validation_disagreement")}


@pytest.mark.parametrize("seed", range(3))
def test_trust_that_trusts_all_alike_decides_as_the_plain_rule(seed: int) -> None:
    noisy = replace(table(), val=np.random.default_rng(seed).random(table().val.shape))
    same = Trust((1.0,) * 5, ("",) * 5)
    beside = PlainRuleBeside(_rule(noisy), 15)
    run = replay(noisy, Strategy("same", rule=lambda t: _rule(t, same)), 0, seed, 15, listener=beside)
    found = beside.decisions(run.won)
    assert not found.let_on and not found.stopped
    plain = replay(noisy, Strategy("plain"), 0, seed, 15)
    assert run.cost.tolist() == plain.cost.tolist() and run.won == plain.won


def test_trust_of_evidence_reaches_the_rule_and_the_listener_sees_where_it_decides() -> None:
    rng = np.random.default_rng(0)
    let_on = stopped = 0
    for seed in range(12):
        noisy = replace(table(), val=rng.random(table().val.shape))
        strategy, trust = _strategy("trust", dict(scores(rng)))
        assert len(trust.values) == 5 and min(trust.values) < 1 < max(trust.values)
        beside = PlainRuleBeside(_rule(noisy), 15)
        found = beside.decisions(replay(noisy, strategy, 0, seed, 15, listener=beside).won)
        let_on, stopped = let_on + len(found.let_on), stopped + len(found.stopped)
    assert let_on and stopped


def test_evidence_by_block_says_nothing_of_depths() -> None:
    found = block_evidence("cam_stability", np.array([0.5, -0.5]))
    assert (found.values - found.null_mean).tolist() == [0.5, -0.5]
    assert np.isnan(found.depth_scores).all() and len(found.depth_scores) == 3
