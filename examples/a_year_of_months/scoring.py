"""How well each policy's models do on months that no model had seen, and the tables of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_modules.images.store import ImageSet

__all__ = ["Month", "Right", "paired", "rows_of", "scores", "show", "summary", "trained", "wanted"]

Right = dict[tuple[str, str, str], list[bool]]
"""(policy, version, month) -> whether each image of the month is classified rightly."""

_OUTCOMES = ("promoted", "kept", "not needed", "refused")


@dataclass(frozen=True)
class Month:
    """One row of a ledger."""

    month: str
    outcome: str
    reason: str
    before: str | None
    after: str
    challenger: str | None
    numbers: dict[str, Any]


def wanted(policy: str, months: list[Month]) -> list[tuple[str, str]]:
    """(version, month) of all that is scored of a policy."""
    return [(v, b.month) for a, b in pairwise(months) for v in versions(policy, a)]


def scores(settings: list[str], root: Path, chosen: dict[str, list[tuple[str, str]]]) -> Right:
    """Answers of all versions on all months that are wanted.

    Args:
        settings: of the data.
        root: folder of the policies' tracking roots.
        chosen: policy -> (version, month) to score.
    """
    from search.retrain.month.images import probabilities
    from search.settings.compose import compose_settings
    from search.tracking.models import resolve_model
    from search.trial.preparation import load

    composed = compose_settings([*settings, f"tracking.root={root / 'images'}"])
    images = load(composed, Console(quiet=True), accept=lambda _: None)
    months = np.array([record.month for record in images.index.records])
    groups = np.array([record.group or record.digest for record in images.index.records])
    found: Right = {}
    for policy, pairs in chosen.items():
        for version in sorted({version for version, _ in pairs}, key=int):
            model = resolve_model(f"models:/thawline/{version}", root / policy)
            for month in (month for v, month in pairs if v == version):
                rows = np.flatnonzero((months == month) & ~np.isin(groups, trained(root / policy, images, month)))
                classes = [model.card.classes[a] for a in probabilities(model.net, images, rows).argmax(1)]
                truth = [images.index.classes[label] for label in images.index.labels[rows]]
                found[policy, version, month] = [c == t for c, t in zip(classes, truth, strict=True)]
    return found


def trained(root: Path, images: ImageSet, month: str) -> list[str]:
    """Groups (plates, tiles) that were trained on before a month: its images of them are not new to the models."""
    with closing(sqlite3.connect(root / "retraining.db")) as ledger:
        used = dict(ledger.execute("SELECT digest, role FROM images"))
    records = images.index.records
    before = (r for r in records if (r.month or "") < month and used.get(r.digest) not in ("held_out", "regression"))
    return sorted({r.group for r in before if r.group})


def versions(policy: str, month: Month) -> list[str]:
    """Versions of a month whose answers on the next one are wanted: in charge first."""
    in_charge = month.challenger or month.after if policy == "always" else month.after
    return list(dict.fromkeys(v for v in (in_charge, month.before, month.challenger) if v is not None))


def rows_of(ledgers: dict[str, list[Month]], right: Right) -> list[dict[str, Any]]:
    """One row a policy and month: the model then in charge on the next month, cost, whether the decision was right."""
    from lightning_modules.training.scores import exact_interval

    rows = []
    for policy, months in ledgers.items():
        for month, after in pairwise(months):
            following = after.month
            answers = right[policy, versions(policy, month)[0], following]
            low, high = exact_interval(sum(answers), len(answers))
            row: dict[str, Any] = {
                "policy": policy, "month": month.month, "outcome": month.outcome, "scored_on": following,
                "images": len(answers), "accuracy": float(np.mean(answers)), "low": low, "high": high,
                "seconds": month.numbers.get("seconds"), "epoch_equivalents": month.numbers.get("epoch_equivalents"),
                "image_passes": month.numbers.get("image_passes"), "action": month.numbers.get("action"),
                "depth": month.numbers.get("depth"), "reason": month.reason,
            }  # fmt: skip
            if month.challenger and month.before:
                new, old = (np.mean(right[policy, v, following]) for v in (month.challenger, month.before))
                row["challenger_minus_champion"] = float(new - old)
                row["right"] = bool(new >= old if month.outcome == "promoted" else new <= old)
            rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a policy over the year; the first champion's cost, which all have, is left out."""
    found: list[dict[str, Any]] = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [r for r in rows if r["policy"] == policy]
        images = sum(r["images"] for r in own)
        after = [r for r in own if r["outcome"] != "bootstrap"]
        found.append(
            {
                "policy": policy, "images": images, "accuracy": sum(r["accuracy"] * r["images"] for r in own) / images,
                "seconds": sum(r["seconds"] or 0 for r in after),
                "image_passes": sum(r["image_passes"] or 0 for r in after),
                **{outcome.replace(" ", "_"): sum(r["outcome"] == outcome for r in own) for outcome in _OUTCOMES},
                "right": sum(bool(r.get("right")) for r in own), "judged": sum("right" in r for r in own),
            }
        )  # fmt: skip
    always = next(row for row in found if row["policy"] == "always")
    for row in found:
        for what in ("image_passes", "seconds"):
            row[f"{what}_of_always"] = row[what] / always[what] if always[what] else None
    return found


def paired(right: Right, ledgers: dict[str, list[Month]], one: str, other: str) -> dict[str, Any]:
    """Difference of two policies over all scored images, with a 95 % interval by bootstrap over months, then images."""

    def of(policy: str) -> dict[str, list[bool]]:
        months = ledgers[policy]
        return {
            after.month: right[policy, versions(policy, month)[0], after.month] for month, after in pairwise(months)
        }

    first, second = of(one), of(other)
    both = [np.subtract(first[m], second[m], dtype=float) for m in first if m in second]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        picked = [both[i] for i in rng.integers(len(both), size=len(both))]
        draws.append(np.concatenate([d[rng.integers(len(d), size=len(d))] for d in picked]).mean())
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "what": f"{one} minus {other}",
        "accuracy": float(np.concatenate(both).mean()),
        "low": float(low),
        "high": float(high),
    }


def show(
    name: str, rows: list[dict[str, Any]], totals: list[dict[str, Any]], differences: list[dict[str, Any]]
) -> None:
    """Print both tables."""
    console = Console()
    policies = [t["policy"] for t in totals]
    table = Table("month", "next", *policies, "ours: decision", "right?", title=f"{name}: accuracy on the next month")
    by = {(r["policy"], r["month"]): r for r in rows}
    for month in dict.fromkeys(r["month"] for r in rows):
        cells = [by.get((p, month)) for p in policies]
        ours = by.get(("ours", month), {})
        decision = (
            f"{ours.get('action') or ''} {'' if ours.get('depth') is None else ours['depth']} {ours.get('outcome', '')}"
        )
        shown = ["" if c is None else f"{c['accuracy']:.3f} ({c['low']:.2f}-{c['high']:.2f})" for c in cells]
        judged = {True: "yes", False: "no", None: ""}[ours.get("right")]
        table.add_row(month, ours.get("scored_on", ""), *shown, decision.strip(), judged)
    console.print(table)
    table = Table(
        "policy", "accuracy", "seconds", "image passes", "cost / always", "promoted", "kept", "not needed", "right"
    )
    for t in totals:
        cost = "" if t["image_passes_of_always"] is None else f"{t['image_passes_of_always']:.2f}"
        table.add_row(
            t["policy"], f"{t['accuracy']:.3f}", f"{t['seconds']:.0f}", f"{t['image_passes']:.0f}", cost,
            str(t["promoted"]), str(t["kept"]), str(t["not_needed"]), f"{t['right']} of {t['judged']}",
        )  # fmt: skip
    console.print(table)
    for d in differences:
        console.print(
            f"{d['what']}: {100 * d['accuracy']:+.1f} points ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
        )
