"""How often the promotion rule promotes a challenger truly d points better: `python -m benchmarks.promotion_rule`.

Every image is drawn by itself: its class by the simulated set's mean shares, then which of the two models has it right.
The champion has 85 % right; the challenger d points more on the newest images, and as many as the champion on 150
images of the regression set, both as much so in every class; the share of images on which one alone is right is 10 %
(or d, where that is more). The whole rule of `search.retrain.comparison.decide` decides, class guard included.
Compared with two others: any challenger with more images right, and only significantly better ones (McNemar's exact
test, 5 %). Rows go to benchmarks/results/promotion_rule.json.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.results_file import write_rows
from search.retrain.month.comparison import decide
from search.retrain.month.record import ClassComparison, Comparison, ScorePair
from search.settings.retrain import RetrainSettings
from search.significance import paired_interval

__all__ = ["coverage", "main", "promotions"]

# island, segregation, porosity, pipe, lamination, stringer, cluster, halfway crack, star crack, blowhole, flake
SHARES = np.array([8, 17, 14, 5, 12, 13, 10, 6, 3, 7, 5]) / 100
ACCURACY, DISCORDANCE, REGRESSION = 0.85, 0.10, 150
IMAGES = (50, 100, 300)
DIFFERENCES = (-10, -5, -3, -2, -1, 0, 1, 2, 3, 5, 10)
MARGINS = (0.02, 0.03, 0.05, 0.1)

_interval = cache(paired_interval)


def _draw(
    n: int, difference: float, rng: np.random.Generator, collapsed: int | None = None
) -> tuple[Comparison, tuple[int, int]]:
    """A comparison of two models whose true accuracies differ so, and its discordant counts.

    Args:
        n: images.
        difference: true accuracy of the challenger minus that of the champion.
        rng: draws.
        collapsed: class of which the challenger has nothing right.
    """
    discordance = max(DISCORDANCE, abs(difference))
    lost, gained = (discordance - difference) / 2, (discordance + difference) / 2
    both = ACCURACY - lost
    cells = rng.multinomial(rng.multinomial(n, SHARES / SHARES.sum()), [both, lost, gained, 1 - both - lost - gained])
    if collapsed is not None:
        had, only, _, _ = cells[collapsed]
        cells[collapsed] = [0, had + only, 0, cells[collapsed].sum() - had - only]
    per_class = tuple(
        ClassComparison(f"class {i}", int(row.sum()), int(row[0] + row[1]), int(row[0] + row[2]))
        for i, row in enumerate(cells)
    )
    b, c = int(cells[:, 1].sum()), int(cells[:, 2].sum())
    low, high = _interval(c, b, n)
    one, other = (sum(getattr(row, who) for row in per_class) / n for who in ("champion", "challenger"))
    accuracy = ScorePair(one, other, (c - b) / n, low, high)
    # The rule reads neither macro F1 nor the confusion matrices.
    return Comparison(n, accuracy, accuracy, b, c, 1.0, 0.0, per_class, (), ()), (b, c)


def promotions(
    n: int,
    difference: float,
    draws: int,
    *,
    margin: float,
    guard: float,
    old_difference: float = 0.0,
    collapsed: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Share of challengers promoted by each rule, and share of refusals by the class guard.

    Args:
        n: newest images.
        difference: true difference of accuracy on the newest images.
        draws: months.
        margin: of the rule.
        guard: of the rule.
        old_difference: true difference on the regression set.
        collapsed: class that the challenger has forgotten; None for none.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    counts = {"rule": 0, "more right": 0, "significant": 0, "class guard": 0}
    for _ in range(draws):
        newest, (b, c) = _draw(n, difference, rng, collapsed)
        regression, _ = _draw(REGRESSION, old_difference, rng, collapsed)
        decision = decide(newest, regression, margin=margin, guard=guard)
        counts["rule"] += decision.promote
        counts["more right"] += c > b
        counts["significant"] += c > b and binomtest(b, b + c).pvalue < 0.05
        counts["class guard"] += not decision.checks[-1][1]
    return {name: count / draws for name, count in counts.items()}


def coverage(n: int, difference: float, draws: int, *, seed: int = 0) -> dict[str, float]:
    """Share of 95 % intervals that hold the true difference: Tango's, and the percentile bootstrap's.

    Args:
        n: images.
        difference: true difference.
        draws: samples.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    discordance = max(DISCORDANCE, abs(difference))
    shares = [(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance]
    held = {"Tango": 0, "bootstrap": 0}
    for b, c, rest in rng.multinomial(n, shares, size=draws):
        low, high = _interval(int(c), int(b), n)
        held["Tango"] += low <= difference <= high
        resampled: NDArray[np.int64] = rng.multinomial(n, np.array([b, c, rest]) / n, size=1000)
        low, high = np.quantile((resampled[:, 1] - resampled[:, 0]) / n, (0.025, 0.975))
        held["bootstrap"] += low <= difference <= high
    return {name: count / draws for name, count in held.items()}


def main(draws: int = 4000) -> int:
    """Measure, print, write."""
    settings = RetrainSettings()
    guard = settings.guard
    rows = []
    console = Console(width=140)
    for n in IMAGES:
        table = Table("truly better by, points", *(f"margin {100 * m:g}" for m in MARGINS), "more right", "significant",
                      title=f"share promoted, {n} newest images")  # fmt: skip
        for points in DIFFERENCES:
            found = [promotions(n, points / 100, draws, margin=margin, guard=guard) for margin in MARGINS]
            shown = [*(one["rule"] for one in found), found[0]["more right"], found[0]["significant"]]
            table.add_row(f"{points:+d}", *(f"{share:.3f}" for share in shown))
            names = [*(f"margin {100 * m:g}" for m in MARGINS), "more right", "significant"]
            rows += [
                {"what": f"promoted: {name}, {n} images, truly {points:+d} points", "value": round(share, 4),
                 "unit": "share", "goal": None, "better": "higher" if points > 0 else "lower"}
                for name, share in zip(names, shown, strict=True)
            ]  # fmt: skip
        console.print(table)
    table = Table("guard", "images", "refused, no class worse", "refused: island (8 %) forgotten",
                  "refused: star crack (3 %) forgotten", title="class guard alone")  # fmt: skip
    for level in (0.2, 0.3, 0.5):
        for n in IMAGES:
            shares = [
                promotions(n, 0.03, draws, margin=settings.margin, guard=level, collapsed=which)["class guard"]
                for which in (None, 0, 8)
            ]
            table.add_row(f"{level:g}", str(n), *(f"{share:.3f}" for share in shares))
            rows += [
                {"what": f"class guard {level:g}, {n} images: {what}", "value": round(share, 4), "unit": "share",
                 "goal": None, "better": "lower" if what == "no class worse" else "higher"}
                for what, share in zip(("no class worse", "island forgotten", "star crack forgotten"), shares,
                                       strict=True)
            ]  # fmt: skip
    console.print(table)
    table = Table("images", "true difference", "Tango", "bootstrap", title="coverage of 95 % intervals")
    for n in IMAGES:
        for points in (0, 5):
            held = coverage(n, points / 100, draws)
            table.add_row(str(n), f"{points:+d}", *(f"{share:.3f}" for share in held.values()))
            rows += [
                {"what": f"coverage of {name}'s interval, {n} images, truly {points:+d} points",
                 "value": round(share, 4), "unit": "share", "goal": 0.95, "better": "higher"}
                for name, share in held.items()
            ]  # fmt: skip
    console.print(table)
    table = Table("points worse on the regression set", "promoted", title="100 newest images, truly 3 points better")
    for points in (0, -2, -5, -8, -12):
        found_old = promotions(100, 0.03, draws, margin=settings.margin, guard=guard, old_difference=points / 100)
        table.add_row(str(-points), f"{found_old['rule']:.3f}")
        rows.append({"what": f"promoted: {-points} points worse on the regression set", "value": found_old["rule"],
                     "unit": "share", "goal": None, "better": "lower"})  # fmt: skip
    console.print(table)
    print(f"defaults: { ({k: v for k, v in asdict(settings).items() if k in ('margin', 'guard')}) }")
    write_rows("promotion_rule", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
