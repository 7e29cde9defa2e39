"""Which trials go on: successive halving with promotion, over trials that wait at the rungs.

A trial that reaches a rung waits there, and its worker takes another job. It goes on once it is among the best
1/factor of all that have reached the rung (asynchronous successive halving: Li et al. 2020, arXiv 1810.05934,
algorithm 2). A trial is not promoted just because it arrived first.

The default trial does not wait: it is what one would have trained without a search. Nor do those that differ from it
in their freeze depth alone, of which a committee is made (`search.members`).

Evidence may trust a freeze depth more or less (`search.trust`): a trial at depth k goes on when it is among the best
trust(k)/factor. Patience: from the first rung, a trial that is trusted more than others goes on with the better half.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from explain.evidence.joint import Statistics
from search.evidence.trust import Trust
from search.study.judge import judged

__all__ = ["Field", "Key", "PromotionRule", "Standing"]

Key = tuple[float, float, int, int]
_Kind = tuple[str | None, int]


@dataclass(frozen=True)
class Standing:
    """How far a trial has come.

    Attributes:
        scores: epoch, from 1 -> validation score so far.
        waiting: whether it waits at the last of them; one that is running, complete or lost does not.
        network: None where the study has one.
        losses: validation log loss at the rungs.
        maps: what its maps say at the rungs, where they are asked (`search.pruner=maps`).
    """

    slot: int
    freeze_depth: int
    scores: Mapping[int, float]
    waiting: bool
    network: str | None = None
    losses: Mapping[int, float] = field(default_factory=dict)
    maps: Mapping[int, Statistics] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Its last epoch, 0 before the first."""
        return max(self.scores, default=0)


class PromotionRule:
    """Successive halving of one bracket, with promotion.

    At the first rungs like is compared with like: only with trials of the same network whose freeze depth is at most
    `reach` blocks away.
    Deep freezes have all they will ever have after an epoch, shallow ones begin lower and climb past them, so
    that a comparison of all with all would decide for freezing before thawing had begun to pay.

    Args:
        at: the rungs, epochs from 1, ascending.
        factor: one in this many goes on, > 1.
        early: how many of the first rungs compare like with like; 0 compares all with all at every rung.
        reach: blocks.
        judge: `search.judge`; see `judged`.
        trust: by freeze depth, of every depth that trials may have; None trusts all alike.
        in_full: slots that never wait, such as that of the default trial: what one would have trained without a search
            is compared with at full length, and there is a good model early.
    """

    def __init__(
        self,
        at: Sequence[int],
        factor: float,
        *,
        early: int = 2,
        reach: int = 1,
        judge: str = "score",
        trust: Trust | None = None,
        in_full: Collection[int] = (),
    ) -> None:
        if factor <= 1:
            raise ValueError(f"factor must be greater than 1, got {factor}")
        self.at, self.factor, self.trust = tuple(at), factor, trust
        self._judge = judge
        self._early, self._reach, self._in_full = early, reach, frozenset(in_full)
        self._trials: Sequence[Standing] = ()
        self._current: set[int] = set()  # rungs whose field is that of these trials
        self._fields: dict[int, Field] = {}

    def next(self, trials: Sequence[Standing], *, closing: bool = False) -> int | None:
        """The slot of a waiting trial that may go on, those furthest ahead first; None when there is none.

        Args:
            trials: all of the study that reached an epoch and were not lost.
            closing: no more trials will come. Then the best trial at a rung goes on however few there are, so that
                one runs its full length.
        """
        all_waiting = [t for t in trials if t.waiting]
        for rung in reversed(self.at):
            first: dict[_Kind, Standing] = {}  # where the best of its kind does not pass, no other of it does
            here = [t for t in all_waiting if t.epoch == rung]
            for trial in sorted(here, key=lambda t: self._order(t, rung, trials)):
                first.setdefault((trial.network, trial.freeze_depth), trial)
            for trial in first.values():
                if self.passes(trial, trials, closing=closing):
                    return trial.slot
        return None

    def passes(self, trial: Standing, trials: Sequence[Standing], *, closing: bool = False) -> bool:
        """Whether a trial at a rung is among the best trust/factor of those that have reached it; see `next`."""
        if trial.slot in self._in_full:
            return True
        ahead, peers = self._rank(trial, trials)
        if ahead < self._places(trial, peers):
            return True
        return closing and self._order(trial, trial.epoch, trials) == self._field(trials, trial.epoch).best

    def owes_to_trust(self, trial: Standing, trials: Sequence[Standing], *, closing: bool = False) -> bool:
        """Whether a trial passes that would not, or not yet, if all freeze depths were trusted alike."""
        if self.trust is None or not self.passes(trial, trials, closing=closing):
            return False
        plain = PromotionRule(
            self.at, self.factor, early=self._early, reach=self._reach, judge=self._judge, in_full=self._in_full
        )
        return not plain.passes(trial, trials, closing=closing)

    def may_pass(self, trial: Standing, trials: Sequence[Standing], most: int) -> bool:
        """Whether it still can be, however good or poor those are that have not come so far.

        Args:
            trials: all that reached an epoch and were not lost.
            most: how many trials the study will have.
        """
        ahead, peers = self._rank(trial, trials)
        to_come = most - self._field(trials, trial.epoch).size
        return trial.slot in self._in_full or ahead == 0 or ahead < self._places(trial, peers + max(to_come, 0))

    def hopeless(self, trials: Sequence[Standing], most: int) -> list[Standing]:
        """Those that wait for what can no longer happen; see `may_pass`."""
        waiting = [t for t in trials if t.waiting and t.epoch in self.at]
        some: set[tuple[_Kind, int]] = set()  # kinds and rungs of which one may pass, and so all that are ahead of it
        gone: set[int] = set()
        for trial in sorted(waiting, key=lambda t: self._order(t, t.epoch, trials), reverse=True):
            alike = (trial.network, trial.freeze_depth), trial.epoch
            if alike in some:
                continue
            if self.may_pass(trial, trials, most):
                some.add(alike)
            else:
                gone.add(trial.slot)
        return [t for t in waiting if t.slot in gone]

    def reason(self, trial: Standing, trials: Sequence[Standing]) -> str:
        """One line for people."""
        ahead, peers = self._rank(trial, trials)
        which = "trials of similar freeze depth" if trial.epoch in self.at[: self._early] else "trials"
        line = f"halving rule at epoch {trial.epoch}: {ahead} of {peers - 1} other {which} are ahead"
        if self.trust is None:
            return line
        why = self.trust.reasons[trial.freeze_depth] or "no evidence of its blocks"
        return f"{line}; trusted {self.trust.values[trial.freeze_depth]:.2f} times ({why})"

    def expected_epochs(self, trials: int, epochs: int) -> float:
        """About how many epochs so many trials will take together: each rung lets 1/factor of them on."""
        total, start = 0.0, 0
        for rung, end in enumerate([*self.at, epochs]):
            total += max(trials / self.factor**rung, 1, min(len(self._in_full), trials)) * (end - start)
            start = end
        return total

    def _places(self, trial: Standing, peers: int) -> int:
        """How many of so many go on if they are like this trial; never falls as `peers` rises."""
        plain = int(peers / self.factor)
        if self.trust is None:
            return plain
        trust = self.trust.values[trial.freeze_depth]
        share = int(peers * trust / self.factor)
        if trust > 1 and trial.epoch == self.at[0]:
            share = max(share, peers // 2)
        # The best of its peers goes on where it would without trust, and the last of them never does.
        return min(max(share, min(plain, 1)), peers - 1)

    def _rank(self, trial: Standing, trials: Sequence[Standing]) -> tuple[int, int]:
        """How many are ahead of it at its rung, and how many it is compared with, itself included."""
        reach = self._reach if trial.epoch in self.at[: self._early] else None
        return self._field(trials, trial.epoch).rank(trial, self._order(trial, trial.epoch, trials), reach)

    def _field(self, trials: Sequence[Standing], rung: int) -> Field:
        """Those at a rung; a list that has only grown since the last question is not sorted again."""
        if trials is not self._trials:
            self._trials, self._current = trials, set()
        if rung not in self._current:
            field = self._fields.get(rung)
            if field is None or not field.grows_to(trials):
                field = Field(rung, lambda trial, rung: self._order(trial, rung, trials))
                field.grows_to(trials)
            self._fields[rung] = field
            self._current.add(rung)
        return self._fields[rung]

    def _order(self, trial: Standing, rung: int, trials: Sequence[Standing]) -> Key:  # noqa: ARG002 - of a subclass
        """Best first; of equals the deeper, cheaper freeze, then the earlier trial.

        Args:
            trials: all of the study that reached an epoch and were not lost.
        """
        first, second = judged(self._judge, trial.scores[rung], trial.losses.get(rung, math.inf))
        return (first, second, -trial.freeze_depth, trial.slot)


class Field:
    """All trials that reached a rung, by network and freeze depth, best first."""

    def __init__(self, rung: int, order: Callable[[Standing, int], Key]) -> None:
        self._rung, self._order = rung, order
        self._keys: dict[_Kind, list[Key]] = {}
        self._scores: dict[int, tuple[float, float | None]] = {}  # by slot, with the loss

    def grows_to(self, trials: Sequence[Standing]) -> bool:
        """Add those that are new; False where others are gone or have another score, and this field is of no use."""
        rung, known, there = self._rung, self._scores, 0
        for trial in trials:
            if (score := trial.scores.get(rung)) is None:
                continue
            there += 1
            now = score, trial.losses.get(rung)
            if (before := known.get(trial.slot)) is None:
                known[trial.slot] = now
                insort(self._keys.setdefault((trial.network, trial.freeze_depth), []), self._order(trial, rung))
            elif before != now:
                return False
        return there == len(known)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._scores)

    @property
    def best(self) -> Key | None:
        """Key of the best of all."""
        return min((keys[0] for keys in self._keys.values()), default=None)

    def rank(self, trial: Standing, own: Key, reach: int | None) -> tuple[int, int]:
        """How many are ahead of a trial with this key, and how many there are; with `reach`, among those so many depths
        away of the same network."""
        alike = [
            keys
            for (network, depth), keys in self._keys.items()
            if reach is None or (network == trial.network and abs(depth - trial.freeze_depth) <= reach)
        ]
        return sum(bisect_left(keys, own) for keys in alike), sum(map(len, alike))
