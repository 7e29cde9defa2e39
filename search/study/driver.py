"""The driver: the only owner of the Optuna study. ask -> executor -> report or prune -> tell.

A *slot* is a place in the study, 0..trials-1. Each slot is filled by one finished trial (complete or pruned); a trial
lost to a crash is marked FAIL and its slot asked again with the same parameters. Everything needed to go on after an
interruption is in Optuna's storage: which slots are filled, which attempts were lost, the ids of the MLflow runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import optuna
from optuna.trial import TrialState

from search.evidence.record import Evidence
from search.executor.protocol import Executor, Failed, Finished, Job, Reported
from search.settings.budget import parse_budget
from search.settings.schema import Settings
from search.study.attempts import RunningTrial, resume_open_trials
from search.study.maps_promotion import MapsPromotionRule
from search.study.notes import map_metrics, outcome_tags, start_tags
from search.study.progress import StudyListener
from search.study.promotion import Standing
from search.study.pruning import build_promotion, build_pruner
from search.study.record import StudyRecord
from search.study.sampler import SamplerView, build_sampler, network_seed, slot_seed
from search.study.slots import Slots
from search.study.spending import Spending
from search.study.storage import written_together
from search.tracking.tracker import Tracker
from search.trial.files import TrialFiles
from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict
from search.trial.rungs import ENOUGH_STEPS
from search.trial.space import Space

__all__ = ["FEW_WRONG", "SearchStudy"]

FEW_WRONG = 4
"""Validation images; 1 / 2^5 is the first power of a half below 5 %."""
_POLL_SECONDS = 0.2


class SearchStudy:
    """Runs trials until the study has as many finished ones as asked for.

    Args:
        study: the Optuna study; this object must be its only user.
        batches: training steps in an epoch.
        trial_files: keeps trials that go on later, and the networks of the best; None trains them again.
        validated: validation images, of all folds together; 0 where that is not known.
        epoch_cost: parameters -> what an epoch costs, in epochs of training everything; for `search.budget`.
    """

    def __init__(
        self,
        settings: Settings,
        space: Space,
        study: optuna.Study,
        tracker: Tracker,
        parent: str,
        listener: StudyListener,
        *,
        trial_files: TrialFiles | None = None,
        batches: int = ENOUGH_STEPS,
        validated: int = 0,
        epoch_cost: Callable[[TrialParams], float] = lambda _: 1.0,
    ) -> None:
        self.settings = settings
        self.space = space
        self.study = study
        self._record = StudyRecord(study)
        self._tracker = tracker
        self._parent = parent
        self._listener = listener
        self._files = trial_files or TrialFiles(None)
        self._active: dict[int, RunningTrial] = {}
        self._waiting: dict[int, RunningTrial] = {}
        self._evidence: Evidence | None = None
        self._steps = settings.trainer.epochs * settings.data.folds * settings.data.repeats
        study.pruner = build_pruner(settings.search)
        study.sampler = optuna.samplers.RandomSampler(0)  # everything it is asked for was drawn before
        self._slots = Slots(study)
        budget = settings.search.budget
        self._spending = Spending(study, parse_budget(budget) if budget is not None else None, epoch_cost)
        self._members = self._record.members(settings.search.members)
        self._complete = sum(trial.outcome == "complete" for trial in self._record.finished())
        self._view = SamplerView(study, both=settings.search.objective != "accuracy")
        self._batches, self._validated = batches, validated
        self._promotion = build_promotion(settings.search, self._steps, batches=batches, in_full=space.in_full)

    def repair(self) -> int:
        """Resume the trials that wait at a rung, and tell others that an interrupted driver left open FAIL.

        Returns:
            How many were lost. Call before `run`.
        """
        lost, waiting = resume_open_trials(
            self.study, self._slots, self._tracker, self._parent, rungs=self._promotion is not None
        )
        self._waiting |= waiting
        return lost

    def exhausted(self) -> tuple[str, str, str]:
        """Which setting lets no more trials be asked for though there are fewer than asked for, why, and what goes on;
        else empty."""
        if self._spending.exhausted:
            return "budget", f"search.budget={self.settings.search.budget} is spent", "a larger one continues the study"
        if (wrong := self._too_good()) is None:
            return "", "", ""
        which = f"No trial could be shown to be better than trial {self._members[0].slot}"
        why = f"{which}, which has {wrong} of {self._validated} validation images wrong"
        return "stop", why, "search.stop=never goes on"

    def unfinished(self) -> bool:
        """Whether there is anything to run: trials to ask for, or some that wait."""
        return bool(self._waiting) or self._next_slot() is not None

    def run(self, executor: Executor, stopping: Callable[[], bool] = lambda: False) -> None:
        """Fill every slot.

        Args:
            stopping: True lets running trials end and starts no more.

        Raises:
            StudyStalledError: three slots in a row failed in every attempt.
        """
        self._evidence = self._record.evidence
        self._promotion = build_promotion(
            self.settings.search, self._steps, self._evidence, batches=self._batches, in_full=self.space.in_full
        )
        self._spending.begin()
        try:
            for active in self._waiting.values():
                self._tracker.resume(active.run_id, {"status": "waiting", "reason": ""})
            while True:
                if not stopping():
                    self._start_jobs(executor)
                if not self._active:
                    if not stopping():
                        self._drop_waiting()
                    return
                event = executor.poll(_POLL_SECONDS)
                if isinstance(event, Reported):
                    executor.answer(event.slot, self._report(event.slot, event.report))
                elif isinstance(event, Finished):
                    self._finish(event.slot, event.result)
                elif isinstance(event, Failed):
                    self._fail(event.slot, event.traceback)
                self._listener.waiting()
                self._spending.note()
        finally:
            self._abandon(executor)

    def _start_jobs(self, executor: Executor) -> None:
        while len(self._active) < executor.capacity:
            slot = self._next_slot()
            if (promoted := self._promoted(closing=slot is None)) is not None:
                executor.submit(self._go_on(promoted))
            elif slot is not None:
                executor.submit(self._ask(slot))
            else:
                return

    def _next_slot(self) -> int | None:
        """The slot to ask for next; a slot whose trial failed is not asked again once the budget is spent."""
        if self._asks_no_more:
            return None
        return self._slots.next(self.settings.search, {*self._active, *self._waiting})

    @property
    def _most(self) -> int:
        """How many trials the study will have."""
        if self._asks_no_more:
            return len(self._slots.filled.union(self._active, self._waiting))
        return self.settings.search.trials

    @property
    def _asks_no_more(self) -> bool:
        """Whether no new trial is asked for, however many the study has."""
        return self._spending.exhausted or self._too_good() is not None

    def _too_good(self) -> int | None:
        """How many validation images the best trial has wrong where so few are left that the search ends; else None.

        A trial that has all of them right, where the best has m wrong, would be right m times where that is wrong and
        never the other way round: by a sign test no better than chance at 5 % for m up to `FEW_WRONG`.
        """
        search = self.settings.search
        if search.stop == "never" or not self._validated or not self._members:
            return None
        if (accuracy := self._members[0].accuracy) is None:
            return None
        wrong = round((1 - accuracy) * self._validated)
        enough = self._complete >= max(search.members, self.space.in_full)
        return wrong if enough and wrong <= FEW_WRONG else None

    def _promoted(self, *, closing: bool) -> int | None:
        if self._promotion is None or not self._waiting:
            return None
        all_ = self._slots.standings(self._waiting)
        interrupted = (s.slot for s in all_ if s.waiting and s.epoch not in self._promotion.at)
        if (slot := next(interrupted, None)) is not None:
            return slot
        if (slot := self._promotion.next(all_, closing=closing)) is not None:
            self._note_trust(slot, self._waiting[slot], all_, closing=closing)
        return slot

    def _ask(self, slot: int) -> Job:
        earlier = self._slots.attempts(slot)
        attempt = len(earlier)
        if earlier and len(earlier[-1].source.params) == len(self.space.default.searched()):
            params = earlier[-1].params
        else:
            params = self._draw(slot)
        with written_together(self.study):
            self._record.enqueue(params, slot, attempt, self.settings.search.judge)
            trial = self.study.ask()
            self.space.suggest(trial)  # what was enqueued
        seed = slot_seed(self.settings.seed, slot)
        steered = self._evidence is not None and self._evidence.steering is not None
        steered = steered and params.network == self.space.default.network
        tags = start_tags(params, self.study.study_name, self.settings.search.prior if steered else "uniform")
        self._active[slot] = RunningTrial.started(trial, params, slot, attempt, seed, self._tracker, self._parent, tags)
        self._listener.trial_started(slot, params, attempt)
        return Job(slot, params, seed, self._files.take_over(slot, attempt))

    def _draw(self, slot: int) -> TrialParams:
        """The default first, then the same at the depth that the prior prefers, then what the sampler says."""
        if slot < len(self.space.first):
            return self.space.first[slot]
        prior = self._evidence.steering if self._evidence is not None else None
        if self._evidence is not None and prior is not None and slot == len(self.space.first):
            preferred = replace(self.space.default, freeze_depth=self._evidence.preferred)
            if preferred != self.space.default:
                return preferred
        waiting = {active.trial.number for active in self._waiting.values()}
        search, seed = self.settings.search, self.settings.seed
        if self.space.networks is None:
            return self.space.suggest(self._view.study(waiting, build_sampler(search, seed, slot, prior)).ask())
        network = self._draw_network(slot, waiting)
        # The prior is of the first network's depths.
        known = prior if network == self.space.default.network else None
        shared = replace(search, startup_trials=-(-search.startup_trials // len(self.space.networks)))
        sampler = build_sampler(shared, seed, slot, known)
        return self.space.suggest_for(self._view.study(waiting, sampler, network=network).ask(), network)

    def _draw_network(self, slot: int, waiting: Collection[int]) -> str:
        """In turn while the sampler knows little, then as it says of the networks alone."""
        names = tuple(self.space.networks or ())
        if slot < self.settings.search.startup_trials:
            return names[slot % len(names)]
        sampler = build_sampler(self.settings.search, network_seed(self.settings.seed), slot)
        chosen = self._view.networks(waiting, sampler).ask().suggest_categorical("network", names)
        return str(chosen)

    def _go_on(self, slot: int) -> Job:
        active = self._active[slot] = self._waiting.pop(slot)
        reported = len(self.study.get_trials(deepcopy=False)[active.trial.number].intermediate_values)
        self._tracker.log(active.run_id, {}, tags={"status": "running"})
        self._listener.trial_goes_on(slot, active.params, reported)
        checkpoint = self._files.checkpoint(slot, active.record.attempt)
        return Job(slot, active.params, slot_seed(self.settings.seed, slot), checkpoint, reported)

    def _report(self, slot: int, report: EpochReport) -> Verdict:
        active = self._active[slot]
        step = report.step + 1
        with written_together(self.study):
            if self._promotion is not None and step in self._promotion.at:
                active.record.losses = {**active.record.losses, step: report.loss}
                if report.maps:
                    active.record.maps = {**active.record.maps, step: report.maps}
            active.trial.report(report.value, step)
        self._listener.epoch(slot, report)
        verdict = self._verdict(slot, active, step)
        seconds = {"epoch_seconds": report.seconds, **({"map_seconds": report.map_seconds} if report.maps else {})}
        metrics = {**report.metrics, **map_metrics(report.maps), **seconds}
        # Its result comes at once, and is logged with this. A trial that waited before is resumed behind this epoch if
        # the driver is killed until then, so that its run would lack it; another's run is closed as KILLED.
        if not active.waited and (step == self._steps or verdict != "train"):
            active.unlogged[step] = metrics
        else:
            self._tracker.log(active.run_id, metrics, step=step)
        return verdict

    def _verdict(self, slot: int, active: RunningTrial, step: int) -> Verdict:
        if step == self._steps:
            return "train"
        if self._promotion is not None:
            if step not in self._promotion.at:
                return "train"
            all_ = self._slots.standings({*self._waiting, slot})
            own = next(s for s in all_ if s.slot == slot)
            closing = self._next_slot() is None
            if self._promotion.passes(own, all_, closing=closing):
                self._note_trust(slot, active, all_, closing=closing)
                return "train"
            if not self._promotion.may_pass(own, all_, self._most):
                active.reason = self._promotion.reason(own, all_)
                return "stop"
            return "wait"
        if active.trial.should_prune():
            active.reason = f"{self.settings.search.pruner} rule at epoch {step}"
            return "stop"
        return "train"

    def _note_trust(self, slot: int, active: RunningTrial, all_: list[Standing], *, closing: bool) -> None:
        """Say of a trial that goes on that it does so because of its trust, where it does."""
        own = next(s for s in all_ if s.slot == slot)
        if self._promotion is not None and self._promotion.owes_to_trust(own, all_, closing=closing):
            line = f"goes on: {self._promotion.reason(own, all_)}"
            active.record.trusted = line
            self._tracker.log(active.run_id, {}, tags={"trusted": line})

    def _finish(self, slot: int, result: TrialResult) -> None:
        active = self._active.pop(slot)
        summary = result.summary()
        reason = active.reason
        if result.stopped == "diverged":
            reason = f"loss or outputs were not finite in epoch {len(result.curve)}"
        elif result.stopped == "overtime":
            limit = self.settings.search.trial_seconds or 0
            reason = f"over search.trial_seconds={limit:g} in epoch {len(result.curve) + 1}"
        outcome = result.stopped or "complete"
        with written_together(self.study):
            active.record.end(summary, outcome, reason)
            if (accuracy := result.metrics.get("val_accuracy")) is not None:
                active.record.accuracy = accuracy
        self._tracker.log(
            active.run_id,
            {**summary, **{f"final_{n}": v for n, v in result.metrics.items()}},
            step=len(result.curve),
            tags={
                **outcome_tags(active.params, self.settings.search.metric, outcome, reason, summary),
                **(result.machine.tags() if result.machine is not None else {}),
            },
            earlier=active.unlogged,
        )
        active.unlogged = {}
        if outcome == "waiting":
            active.record.waiting = True
            active.waited = True
            self._waiting[slot] = active
            self._listener.trial_waits(slot, result.value)
        else:
            self._close(slot, active, outcome, result.value)
        self._drop_hopeless()

    def _close(self, slot: int, active: RunningTrial, outcome: str, value: float) -> None:
        self._tracker.finish(active.run_id, "FINISHED")
        before = self._members
        if outcome == "complete":
            self.study.tell(active.trial, value)
            self._complete += 1
            self._files.settle(slot, active.record.attempt)
            self._members = self._record.members(self.settings.search.members)
        else:
            self.study.tell(active.trial, state=TrialState.PRUNED)
        self._files.leave(slot, best=[t.slot for t in self._members], before=[t.slot for t in before])
        self._listener.trial_ended(slot, outcome, value, self._shown_best())

    def _drop_hopeless(self) -> None:
        """Prune the trials that wait for what can no longer happen."""
        if self._promotion is None:
            return
        all_ = self._slots.standings(self._waiting)
        for own in self._promotion.hopeless(all_, self._most):
            self._drop([own.slot], self._promotion.reason(own, all_))

    def _drop_waiting(self) -> None:
        """Prune all that wait, since no other trial runs any more."""
        all_ = self._slots.standings(self._waiting)
        for own in [s for s in all_ if s.waiting]:
            seen = self._promotion.shown_by_maps(own, all_) if isinstance(self._promotion, MapsPromotionRule) else ""
            self._drop([own.slot], "; ".join(["not promoted: no other trial runs any more", *([seen] if seen else [])]))
        self._drop(list(self._waiting), "not promoted: no other trial runs any more")

    def _drop(self, slots: list[int], reason: str) -> None:
        for slot in slots:
            active = self._waiting.pop(slot)
            with written_together(self.study):
                active.record.end({}, "pruned", reason)
            numbers = active.record.numbers()
            tags = outcome_tags(active.params, self.settings.search.metric, "pruned", reason, numbers)
            self._tracker.log(active.run_id, {}, tags=tags)
            self._close(slot, active, "pruned", numbers["value"])

    def _fail(self, slot: int, traceback: str) -> None:
        active = self._active.pop(slot)
        error = traceback.strip().splitlines()[-1]
        active.record.error = error
        self._tracker.log_text(active.run_id, traceback, "traceback.txt")
        tags = outcome_tags(active.params, self.settings.search.metric, "failed", error, {})
        self._tracker.log(active.run_id, {}, tags=tags, earlier=active.unlogged)
        self._tracker.finish(active.run_id, "FAILED")
        self.study.tell(active.trial, state=TrialState.FAIL)
        self._listener.trial_ended(slot, "failed", None, self._shown_best())

    def _abandon(self, executor: Executor) -> None:
        """Close all runs when the driver ends, whatever ended it. Trials that waited go on in the next call."""
        self._spending.note(now=True)
        for slot, active in self._active.items():
            executor.cancel(slot)
            if not active.waited:
                self.study.tell(active.trial, state=TrialState.FAIL, skip_if_finished=True)
        for active in (*self._active.values(), *self._waiting.values()):
            self._tracker.kill(active.run_id, active.unlogged)
        self._active.clear()
        self._waiting.clear()

    def _shown_best(self) -> tuple[float, int] | None:
        return (self._members[0].value, self._members[0].slot) if self._members else None
