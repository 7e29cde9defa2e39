"""What a study keeps in its journal: the one reader and writer of the user attributes of studies and trials.

`StudyRecord` and `TrialRecord` look at Optuna's objects; `Study` and `Trial` are plain frozen values for the report and
for notebooks. The key of an attribute on disk is its name in the class: renaming one makes old studies unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from explain.evidence.joint import Statistics
from search.errors import StoreError
from search.evidence.record import Evidence
from search.study.bought import Bought
from search.study.judge import best_trial, members
from search.trial.result import TrialParams
from search.words import epoch_count

__all__ = [
    "FINISHED",
    "OpenTrial",
    "Study",
    "StudyRecord",
    "Trial",
    "TrialFeed",
    "TrialRecord",
    "Winner",
    "finished_trials",
    "first_network",
    "of_evidence",
]

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_REQUIRED = object()
_T = TypeVar("_T")


@dataclass(frozen=True)
class Winner:
    """The tested winner.

    Attributes:
        epochs: of its trial, and of its refit where that began anew.
        more_epochs: for which its refit went on from its trial; None where it began anew.
        refit: whether on training and validation images together.
        members: slots of the trials whose networks answer together, the winner first.
        bought: how it tests beside the default trial; None where there are no test images or that trial is not
            complete.
        images: it was trained on, and tested on.
        test: test scores, None where there are no test images.
        intervals: their 95 % intervals.
    """

    slot: int
    params: dict[str, Any]
    value: float
    epochs: int
    refit: bool
    images: tuple[int, int]
    test: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    version: str
    run_id: str
    seconds: float
    members: tuple[int, ...] = ()
    bought: Bought | None = None
    more_epochs: int | None = None

    @property
    def trained_for(self) -> str:
        """In words: `10 epochs`, or `10 epochs, then 3 more`."""
        more = "" if self.more_epochs is None else f", then {self.more_epochs} more"
        return f"{epoch_count(self.epochs)}{more}"


class _Kept(Generic[_T]):
    """An attribute in the journal, under its name in the class; one without a default must be there.

    Args:
        read: what was read from JSON -> value.
        default: where the journal has none.
        write: value -> what JSON holds.
    """

    def __init__(
        self, read: Callable[[Any], _T], default: Any = _REQUIRED, write: Callable[[_T], Any] = lambda value: value
    ) -> None:
        self._read, self._default, self._write = read, default, write

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = name

    def __get__(self, record: Any, owner: type) -> _T:
        raw = record.source.user_attrs.get(self._key)
        if raw is not None:
            try:  # no context manager: a driver reads attributes thousands of times for each trial
                return self._read(raw)
            except (TypeError, ValueError, KeyError) as error:
                raise _damaged(self._key, error) from error
        if self._default is _REQUIRED:
            raise KeyError(self._key)
        default: _T = self._default
        return default

    def __set__(self, record: Any, value: _T) -> None:
        record.source.set_user_attr(self._key, self._write(value))


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn what a damaged record of the journal raises into one line."""
    try:
        yield
    except (TypeError, ValueError, KeyError) as error:
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> StoreError:
    return StoreError(
        f"the study's journal is damaged: {what} is not what was written ({type(error).__name__}); put back a copy "
        "of it, or search.fresh=true starts the study anew"
    )


class _TrialAttributes:
    """What the driver keeps of an attempt at a slot; see `TrialResult` for the numbers."""

    __slots__ = ()

    slot = _Kept(int)
    attempt = _Kept(int)  # at its slot, from 0
    run_id = _Kept(str, "")  # of its MLflow run; empty before it has one
    map_spread = _Kept[float | None](float, None)
    value = _Kept(float)
    loss = _Kept(float, math.inf)
    losses = _Kept[Mapping[int, float]](lambda raw: {int(step): float(v) for step, v in raw.items()}, {})  # at rungs
    maps = _Kept[Mapping[int, Statistics]](lambda raw: {int(step): v for step, v in raw.items()}, {})  # at rungs
    judge = _Kept(str, "score")
    accuracy = _Kept[float | None](float, None)  # on the validation images after the last epoch
    epochs = _Kept(int)
    seconds = _Kept(float)
    epoch_equivalents = _Kept(float)
    micro_batch = _Kept(int, 0)
    threads = _Kept(int, 0)
    outcome = _Kept(str, "")  # complete, pruned, diverged, overtime, waiting; empty until then
    reason = _Kept(str, "")
    waiting = _Kept(bool, False)  # whether it has ever waited at a rung
    trusted = _Kept(str, "")  # the line that says it goes on because of its freeze depth's trust
    error = _Kept(str, "")  # what it died of; empty where an interruption was to blame


@dataclass(frozen=True)
class TrialRecord(_TrialAttributes):
    """One attempt at a slot as the journal has it, read where it is asked for."""

    source: FrozenTrial

    @property
    def has_slot(self) -> bool:
        """Whether this driver asked for it; others are not of the study."""
        return "slot" in self.source.user_attrs

    @property
    def number(self) -> int:
        """Optuna's number of the attempt."""
        return self.source.number

    @property
    def ended(self) -> bool:
        """Whether nothing of it changes any more, lost attempts included."""
        return self.source.state.is_finished()

    @property
    def finished(self) -> bool:
        """Whether it fills its slot: it is complete or was stopped early."""
        return self.source.state in FINISHED

    @property
    def params(self) -> TrialParams:
        """What was asked for."""
        with _readable("params"):
            return TrialParams(**self.source.params)

    @property
    def freeze_depth(self) -> int:
        """Leading blocks that stayed frozen."""
        return int(self.source.params["freeze_depth"])

    @property
    def network(self) -> str | None:
        """Which network; None where the study has one."""
        name = self.source.params.get("network")
        return None if name is None else str(name)

    @property
    def scores(self) -> Mapping[int, float]:
        """Epoch, from 1 -> validation score."""
        return self.source.intermediate_values

    @property
    def curve(self) -> tuple[float, ...]:
        """Validation score after each epoch."""
        return tuple(float(self.scores[step]) for step in sorted(self.scores))

    def plain(self) -> Trial:
        """As a value; only of a finished trial."""
        params = self.params
        own = {f.name: getattr(params if hasattr(params, f.name) else self, f.name) for f in fields(Trial)}
        return Trial(**own | {"value": self.value if math.isfinite(self.value) else 0.0})


@dataclass(slots=True)
class OpenTrial(_TrialAttributes):
    """An attempt that is under way: what is assigned is on the disk at once."""

    source: optuna.Trial

    def end(self, summary: Mapping[str, float], outcome: str, reason: str) -> None:
        """Keep the numbers of `TrialResult.summary`, what became of it and why."""
        for name, value in summary.items():
            setattr(self, name, value)
        self.outcome, self.reason = outcome, reason

    def numbers(self) -> dict[str, float]:
        """The key figures of a trial that has reported, by name."""
        return {n: getattr(self, n) for n in ("value", "epochs", "seconds", "epoch_equivalents")}


@dataclass(slots=True, eq=False)
class StudyRecord:
    """What a study keeps beside its trials: what is assigned is on the disk at once."""

    identity = _Kept[dict[str, Any] | None](dict, None)  # setting -> value of all that makes it this study
    parent = _Kept[str | None](str, None)  # its MLflow run
    evidence = _Kept[Evidence | None](Evidence.from_json, None, lambda found: found.to_json() if found else None)
    winner = _Kept[Winner | None](TypeAdapter(Winner).validate_python, None, lambda won: asdict(won) if won else None)
    test_reads = _Kept(int, 0)  # how often the test images were read
    refits_diverged = _Kept[tuple[int, ...]](tuple, ())  # slots of trials that cannot win for that
    seconds_spent = _Kept(float, 0.0)  # wall time in which trials ran
    scorecard_trials = _Kept[int | None](int, None)  # finished trials that the logged scorecard is of
    front_trials = _Kept[int | None](int, None)  # the same of the logged front
    maps_logged = _Kept(bool, False)  # whether the maps before training are

    source: optuna.Study

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.source.study_name

    def enqueue(self, params: TrialParams, slot: int, attempt: int, judge: str) -> None:
        """Let the next trial that is asked for have these parameters and this place, and be compared by that."""
        attributes = {"slot": slot, "attempt": attempt, "judge": judge}
        self.source.enqueue_trial(params.searched(), user_attrs=attributes)

    def finished(self) -> list[TrialRecord]:
        """Finished trials (complete or pruned), one a slot, by slot."""
        return [TrialRecord(trial) for trial in finished_trials(self.source)]

    def best(self) -> TrialRecord | None:
        """See `best_trial`."""
        return best_trial(self.finished(), self.refits_diverged)

    def members(self, most: int) -> list[TrialRecord]:
        """See `members`."""
        return members(self.finished(), most, self.refits_diverged)


class TrialFeed:
    """The attempts of a study that goes on: those that have ended are handed out once, so a long study stays quick."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._read = 0
        self._open: list[TrialRecord] = []

    def news(self) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """The attempts that ended since the last call, and those that are open now."""
        trials = self._study.get_trials(deepcopy=False)
        # A storage may put another object in the place of a trial that changes; most have not.
        before = (t if trials[t.number] is t.source else TrialRecord(trials[t.number]) for t in self._open)
        records = [*before, *map(TrialRecord, trials[self._read :])]
        self._read, self._open = len(trials), [record for record in records if not record.ended]
        return [record for record in records if record.ended], self._open


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Optuna's view of `StudyRecord.finished`."""
    records = map(TrialRecord, study.get_trials(deepcopy=False))
    done = [record for record in records if record.finished and record.has_slot]
    return [record.source for record in sorted(done, key=lambda t: t.slot)]


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        learning_rate: reference rate of the optimizer x lr_factor.
        lr_factor: times the reference learning rate.
        freeze_depth: leading blocks that stayed frozen, 0..L.
        fostering_beta: weight of the CAM entropy in the loss; None where it was not searched.
        value: validation score after its last epoch, in [0, 1]; 0 where training diverged.
        loss: validation log loss after its last epoch; infinite where training diverged or an older version did not
            keep it.
        judge: which of the two compares it: `score` or `loss`.
        epochs: epochs trained, of all folds.
        outcome: complete, pruned or diverged.
        reason: why it was pruned or diverged, or empty.
        seconds: wall time.
        epoch_equivalents: cost in epochs of training everything, of the first network where there are several.
        curve: validation score after each epoch.
        network: one of the networks that the study chose among; None where there was one.
    """

    slot: int
    optimizer: str
    learning_rate: float
    lr_factor: float
    freeze_depth: int
    fostering_beta: float | None
    value: float
    loss: float
    judge: str
    epochs: int
    outcome: str
    reason: str
    seconds: float
    epoch_equivalents: float
    curve: tuple[float, ...]
    run_id: str
    network: str | None = None


_Finished = TypeVar("_Finished", bound=Trial | TrialRecord)


def first_network(identity: Mapping[str, Any]) -> str | None:
    """The network of the default trial, which evidence is of, where the study chooses among several; else None."""
    name = identity.get("model.name")
    return str(name[0]) if isinstance(name, list) else None


def of_evidence(trials: Iterable[_Finished], identity: Mapping[str, Any]) -> list[_Finished]:
    """The trials that evidence by block can be held against: those of the network that it is of."""
    network = first_network(identity)
    return [trial for trial in trials if trial.network == network]


@dataclass(frozen=True, eq=False)
class Study:
    """One study as its journal records it.

    Attributes:
        identity: setting -> value of all that makes it this study, with the digests of data, splits and weights.
        unfinished: trials that run, wait, or were left open by a search that was killed.
        evidence: what the scorers said before the first trial, or None.
        winner: the tested winner, or None.
        run_id: its MLflow run, or None before it has one.
        refits_diverged: slots of trials that did not win because their refitted network diverged.
    """

    name: str
    root: Path
    metric: str
    identity: dict[str, Any]
    trials: tuple[Trial, ...]
    unfinished: int
    evidence: Evidence | None
    winner: Winner | None
    run_id: str | None
    test_reads: int
    refits_diverged: tuple[int, ...] = ()

    @property
    def best(self) -> Trial | None:
        """See `best_trial`."""
        return best_trial(self.trials, self.refits_diverged)

    def frame(self) -> pd.DataFrame:
        """A row a finished trial, a column an attribute of `Trial` but for the curve; the index is the slot."""
        columns = [f.name for f in fields(Trial) if f.name != "curve"]
        rows = [{name: getattr(trial, name) for name in columns} for trial in self.trials]
        return pd.DataFrame(rows, columns=columns).set_index("slot")
