"""Successive halving by the log loss and by what the running trials' maps show (`search.pruner=maps`).

At a rung trials are compared by J = z(-ln loss) + z(S); S sums statistics of their maps (`explain.evidence.joint`).
z is over all trials at that rung: J of a trial may change while others arrive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from explain.evidence.joint import joint, summed
from explain.evidence.trial_registry import TRIAL_STATISTICS
from search.study.promotion import Field, Key, PromotionRule, Standing

__all__ = ["MapsPromotionRule", "Weakness"]


@dataclass(frozen=True)
class Weakness:
    """In which a trial is behind.

    Attributes:
        statistic: its name.
        block: of which the value is; empty where it is of none.
        value: of the trial.
        others: mean of those ahead of it.
    """

    statistic: str
    block: str
    value: float
    others: float

    @property
    def words(self) -> str:
        """As a clause, such as `its stage 5 looks elsewhere when the picture is mirrored`."""
        return TRIAL_STATISTICS[self.statistic].weaker.format(block=_spaced(self.block))


class MapsPromotionRule(PromotionRule):
    """The rule of `PromotionRule` with another order.

    Args:
        at, factor, early, reach, in_full: see `PromotionRule`.
        statistics: names of those that S sums; none of them compares trials by their log loss alone.
    """

    def __init__(
        self,
        at: Sequence[int],
        factor: float,
        *,
        early: int = 2,
        reach: int = 1,
        in_full: Collection[int] = (),
        statistics: Sequence[str] = tuple(TRIAL_STATISTICS),
    ) -> None:
        super().__init__(at, factor, early=early, reach=reach, in_full=in_full)
        self._names = tuple(statistics)
        self._joint: dict[int, dict[int, float]] = {}  # rung -> slot -> J

    def may_pass(self, trial: Standing, trials: Sequence[Standing], most: int) -> bool:
        """See `PromotionRule.may_pass`.

        While more trials may come, only those count as ahead that have both a lower loss and a larger S: whatever comes
        changes the weights of the two, and so the order of all others.
        """
        to_come = most - self._field(trials, trial.epoch).size
        if to_come <= 0 or trial.slot in self._in_full:
            return super().may_pass(trial, trials, most)
        peers = self._peers(trial, trials)
        ahead = self._surely_ahead(trial, peers)
        return ahead == 0 or ahead < self._places(trial, len(peers) + to_come)

    def hopeless(self, trials: Sequence[Standing], most: int) -> list[Standing]:
        """See `PromotionRule.hopeless`."""
        waiting = [t for t in trials if t.waiting and t.epoch in self.at]
        return [t for t in waiting if not self.may_pass(t, trials, most)]

    def reason(self, trial: Standing, trials: Sequence[Standing]) -> str:
        """Who is ahead, and what its maps show of it (`shown_by_maps`)."""
        seen = self.shown_by_maps(trial, trials)
        return "; ".join(
            [super().reason(trial, trials).replace("halving rule", "maps rule", 1), *([seen] if seen else [])]
        )

    def ahead(self, trial: Standing, trials: Sequence[Standing]) -> list[Standing]:
        """Those ahead of a trial at its last rung, the best first, of those that it is compared with."""
        rung = trial.epoch
        own = self._order(trial, rung, trials)
        found = [t for t in self._peers(trial, trials) if self._order(t, rung, trials) < own]
        return sorted(found, key=lambda t: self._order(t, rung, trials))

    def shown_by_maps(self, trial: Standing, trials: Sequence[Standing]) -> str:
        """`weakest` in one clause with both numbers; else empty."""
        found = self.weakest(trial, trials)
        return "" if found is None else f"{found.words}: {_short(found.value)} against {_short(found.others)}"

    def weakest(self, trial: Standing, trials: Sequence[Standing]) -> Weakness | None:
        """What is weaker in its maps than in those of the trials ahead of it at its last rung.

        Of all statistics and blocks the one that is lowest in standard deviations of the trials compared; None where
        none is lower than the mean of those ahead.
        """
        rung, ahead, peers = trial.epoch, self.ahead(trial, trials), self._peers(trial, trials)
        lowest = 0.0
        found: Weakness | None = None
        for name in self._names if ahead else ():
            for block, value in trial.maps.get(rung, {}).get(name, {}).items():
                others, all_ = (
                    np.array([t.maps[rung][name][block] for t in of if block in t.maps.get(rung, {}).get(name, {})])
                    for of in (ahead, peers)
                )
                if not len(others) or not all_.std() > 0:
                    continue
                z = float((value - others.mean()) / all_.std())
                if z < lowest:
                    lowest, found = z, Weakness(name, block, value, float(others.mean()))
        return found

    def _peers(self, trial: Standing, trials: Sequence[Standing]) -> list[Standing]:
        """Those that it is compared with at its last rung, itself included."""
        there = [t for t in trials if trial.epoch in t.scores]
        if trial.epoch not in self.at[: self._early]:
            return there
        return [
            t for t in there if t.network == trial.network and abs(t.freeze_depth - trial.freeze_depth) <= self._reach
        ]

    def _surely_ahead(self, trial: Standing, peers: Sequence[Standing]) -> int:
        rung = trial.epoch
        same = [t for t in peers if t.network == trial.network]
        totals = dict(
            zip((t.slot for t in same), summed([t.maps.get(rung, {}) for t in same], self._names), strict=True)
        )
        whole = [t for t in same if all(t.maps.get(rung, {}).get(name) for name in self._names)]
        if trial not in whole:  # a statistic that it lacks is the others' mean, which moves
            return 0
        own = trial.losses.get(rung, math.inf), totals[trial.slot]
        better = [
            t for t in whole
            if t.losses.get(rung, math.inf) < own[0] and totals[t.slot] >= own[1]
        ]  # fmt: skip
        return len(better)

    def _field(self, trials: Sequence[Standing], rung: int) -> Field:
        """Those at a rung, compared anew for each list of trials: J of all changes with one that arrives."""
        if trials is not self._trials:
            self._trials, self._joint, self._fields = trials, {}, {}
        if rung not in self._fields:
            there = [t for t in trials if rung in t.scores]
            values = joint(
                [t.losses.get(rung, math.inf) for t in there],
                [t.maps.get(rung, {}) for t in there],
                [t.network for t in there],
                self._names,
            )
            self._joint[rung] = {t.slot: float(value) for t, value in zip(there, values, strict=True)}
            self._fields[rung] = Field(rung, lambda trial, rung: self._order(trial, rung, trials))
            self._fields[rung].grows_to(trials)
        return self._fields[rung]

    def _order(self, trial: Standing, rung: int, trials: Sequence[Standing]) -> Key:
        """Best first; of equals the lower loss, the deeper, cheaper freeze, then the earlier trial."""
        if trials is not self._trials or rung not in self._joint:
            self._field(trials, rung)
        return (-self._joint[rung][trial.slot], trial.losses.get(rung, math.inf), -trial.freeze_depth, trial.slot)


def _short(value: float) -> str:
    """A number within [-1, 1], as in .31."""
    return f"{value:.2f}".replace("0.", ".", 1)


def _spaced(block: str) -> str:
    """The name of a block with its number apart, as in stage 5."""
    return re.sub(r"(?<=[a-z])(?=[0-9]+$)", " ", block)
