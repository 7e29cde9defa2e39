"""Which trial is better: what `search.judge` compares, at the rungs and at the end, and who wins by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

__all__ = ["best_seen", "best_trial", "judged", "members", "rank"]


class Finished(Protocol):
    """What is compared of a finished trial; see `search.study.record.Trial`."""

    @property
    def slot(self) -> int: ...
    @property
    def network(self) -> str | None: ...
    @property
    def freeze_depth(self) -> int: ...
    @property
    def value(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def judge(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def epoch_equivalents(self) -> float: ...
    @property
    def outcome(self) -> str: ...


_Finished = TypeVar("_Finished", bound=Finished)


def judged(judge: str, score: float, loss: float) -> tuple[float, float]:
    """What orders trials by `search.judge`, best first: the score and of equals the log loss, or the other way round.

    Of few images many trials have the same score; the loss tells these apart.
    """
    return (-score, loss) if judge == "score" else (loss, -score)


def rank(trial: Finished) -> tuple[bool, bool, float, float, float, int, int]:
    """Sort key that puts the best trial first.

    Complete trials come first and diverged ones last; then `judged` decides, the cheaper epoch where there are several
    networks, the deeper (cheaper) freeze and the earlier trial, in this order.
    """
    epoch_cost = 0.0 if trial.network is None else trial.epoch_equivalents / max(trial.epochs, 1)
    order = (*judged(trial.judge, trial.value, trial.loss), epoch_cost, -trial.freeze_depth, trial.slot)
    return (trial.outcome != "complete", trial.outcome == "diverged", *order)


def members(trials: Iterable[_Finished], most: int, without: Sequence[int] = ()) -> list[_Finished]:
    """The trials whose networks answer together, the best first: complete ones of the best one's network.

    Args:
        most: how many at most.
        without: slots of trials that cannot win.
    """
    ranked = sorted((t for t in trials if t.outcome == "complete" and t.slot not in without), key=rank)
    return [t for t in ranked if t.network == ranked[0].network][:most]


def best_trial(trials: Iterable[_Finished], without: Sequence[int] = ()) -> _Finished | None:
    """The complete trial that ranks first: the only one that can win.

    Args:
        without: slots of trials that cannot win.
    """
    return next(iter(members(trials, 1, without)), None)


def best_seen(trials: Iterable[_Finished]) -> _Finished | None:
    """The trial that reached the highest validation score, pruned ones too; of equals the one that ranks first.

    It says what a freeze depth or an optimizer reached at least. A diverged trial says nothing of it.
    """
    scored = [t for t in trials if t.outcome != "diverged" and math.isfinite(t.value)]
    return min(scored, key=lambda t: (-t.value, rank(t)), default=None)
