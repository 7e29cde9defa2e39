"""What a model was shown to do, in plain words: images right, the weakest class, what that is enough for and what not.

The report, the notebook and whoever prints a result say it from the same facts. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.stats import binomtest

from search.pages.numbers import written

__all__ = [
    "LEVELS", "Alone", "Clause", "Name", "Number", "Verdict", "WeakClass", "counted", "enough", "headline", "joined",
    "judge", "weak_points", "words",
]  # fmt: skip

LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Shares of right images that a promise is made of: round ones, so that "75 %, not 80 %" can be kept in mind."""

_MANY = 1000  # images, of which shares have a decimal

Kind = Literal["new", "validation"]


@dataclass(frozen=True)
class WeakClass:
    """The class with the smallest share of right images.

    Attributes:
        images: of it.
        right: of these.
        taken_for: the class that most of the others were taken for; `times` of them.
    """

    name: str
    images: int
    right: int
    taken_for: str
    times: int


@dataclass(frozen=True)
class Alone:
    """What the model decides by itself at one promised coverage.

    Attributes:
        coverage: promised, in (0, 1).
        decided: images that it decides.
        wrong: of these.
        by_hand: images that it leaves to a person.
    """

    coverage: float
    decided: int
    wrong: int
    by_hand: int


@dataclass(frozen=True)
class Verdict:
    """What was shown.

    Attributes:
        kind: new images, which nothing was chosen by, or validation images, which chose the winner.
        images: that were judged.
        right: of these.
        low, high: exact 95 % interval of the share (Clopper-Pearson), in [0, 1].
        weakest: None where no class has a mistake.
        unseen: classes of which no image was judged.
        proven: largest of `LEVELS` that the interval lies above; None where it reaches below all.
        unproven: the next one; None where it lies above all.
        alone: None where it was not measured, or nothing can be promised.
    """

    kind: Kind
    images: int
    right: int
    low: float
    high: float
    weakest: WeakClass | None
    unseen: tuple[str, ...]
    proven: float | None
    unproven: float | None
    alone: Alone | None = None


def judge(
    classes: Sequence[str], counts: Sequence[Sequence[int]], *, kind: Kind = "new", alone: Alone | None = None
) -> Verdict | None:
    """The verdict of a confusion matrix; None without images.

    Args:
        classes: C names.
        counts: (C, C), row = true class, column = predicted class.
    """
    images = sum(map(sum, counts))
    if not images:
        return None
    return replace(
        counted(sum(row[place] for place, row in enumerate(counts)), images),
        kind=kind,
        weakest=_weakest(classes, counts),
        unseen=tuple(name for name, row in zip(classes, counts, strict=True) if not sum(row)),
        alone=alone,
    )


def counted(right: int, images: int) -> Verdict:
    """The verdict where nothing is known of the classes: so many of at least one new image are right."""
    interval = binomtest(right, images).proportion_ci(0.95, "exact")
    low, high = float(interval.low), float(interval.high)
    proven = max((level for level in LEVELS if level <= low), default=None)
    unproven = min((level for level in LEVELS if level > low), default=None)
    return Verdict("new", images, right, low, high, None, (), proven, unproven)


def _weakest(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> WeakClass | None:
    """Of equals the one with more mistakes, then the first."""
    found = []
    for place, row in enumerate(counts):
        images, right = sum(row), row[place]
        if right < images:
            others = [(-count, other) for other, count in enumerate(row) if other != place]
            times, taken = min(others)
            found.append((right / images, right - images, place, WeakClass(
                classes[place], images, right, classes[taken], -times
            )))  # fmt: skip
    return min(found)[3] if found else None


@dataclass(frozen=True)
class Number:
    """A number of a sentence.

    Attributes:
        at: where it stands in the verdict, as a JSON pointer.
        form: how pages write it (`search.pages.numbers`).
    """

    at: str
    value: float
    form: str


@dataclass(frozen=True)
class Name:
    """A name from the user's data in a sentence."""

    text: str


Clause = tuple["str | Number | Name", ...]
"""Part of a sentence: words, numbers and names in their order."""


def words(verdict: Verdict) -> str:
    """All of it in one sentence, as a terminal prints it."""
    return f"{joined(headline(verdict), *weak_points(verdict), *enough(verdict))}."


def joined(*clauses: Clause) -> str:
    """Clauses as plain text, without a full stop."""
    return "; ".join("".join(map(_plain, clause)) for clause in clauses)


def headline(verdict: Verdict) -> Clause:
    """How many images are right, with the interval."""
    form = "whole" if verdict.images < _MANY else "points"
    what = " new images right (" if verdict.kind == "new" else " validation images right ("
    return (
        Number("/right", verdict.right, "count"), " of ", Number("/images", verdict.images, "count"), what,
        Number("/low", verdict.low, form), " to ", Number("/high", verdict.high, form), " %)",
    )  # fmt: skip


def weak_points(verdict: Verdict) -> tuple[Clause, ...]:
    """The weakest class, and those of which nothing is known."""
    found: list[Clause] = []
    if (weak := verdict.weakest) is not None:
        found.append((
            "weakest: ", Name(weak.name), ", ", Number("/weakest/right", weak.right, "count"), " of ",
            Number("/weakest/images", weak.images, "count"), ", taken for ", Name(weak.taken_for),
        ))  # fmt: skip
    elif not verdict.unseen:
        found.append(("no class has a mistake",))
    if verdict.unseen:
        names = [part for name in verdict.unseen for part in (Name(name), ", ")][:-1]
        found.append(("nothing is known of ", *names, ", of which there was no image"))
    return tuple(found)


def enough(verdict: Verdict) -> tuple[Clause, ...]:
    """What it is enough for, and what not."""
    if verdict.kind == "validation":
        return (("these images chose the winner, so fewer of really new ones will be right",),)
    found: list[Clause] = []
    alone = verdict.alone
    if alone is not None and not alone.decided:
        found.append(("not enough to decide any image without a person",))
    elif alone is not None:
        decided, wrong, rest = (
            Number(f"/alone/{name}", getattr(alone, name), "count") for name in ("decided", "wrong", "by_hand")
        )
        if alone.by_hand:
            found.append((
                "enough to decide the surest ", decided, " alone (", wrong, " of these wrong), not the other ", rest
            ))  # fmt: skip
        else:
            found.append(("enough to decide every image alone, ", wrong, " of ", decided, " wrongly"))
    proven, unproven = (
        None if level is None else Number(f"/{name}", level, "level")
        for name, level in (("proven", verdict.proven), ("unproven", verdict.unproven))
    )
    if proven is None:
        found.append(("not enough to promise that half of the next images will be right",))
    elif unproven is None:
        found.append(("enough to promise ", proven, " right"))
    else:
        found.append(("enough to promise ", proven, " right, not ", unproven))
    return tuple(found)


def _plain(part: str | Number | Name) -> str:
    if isinstance(part, Number):
        return written(part.value, part.form)
    return part.text if isinstance(part, Name) else part
