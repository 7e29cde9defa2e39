"""One month, step by step: check, look, depth, search, compare, report; then the promotion, last and at once.

Each step's result is in the ledger before the next one begins, so a call that was killed anywhere is continued by the
next one. Until the last write of all, nothing that others read has changed: the champion is what it was. The month's
MLflow run is closed before that, so that no run is left open by whatever kills the program after it.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_modules.images.split_units import Rows
from lightning_modules.images.store import ImageSet
from lightning_modules.training.scores import scores_with_intervals
from search.retrain.champion import BASELINE, Champion, settle, widened
from search.retrain.ledger_rows import MonthRow
from search.retrain.month.answers import plain_images, probabilities
from search.retrain.month.baseline import Baseline, measure_baseline
from search.retrain.month.comparing import compare_models
from search.retrain.month.data_checks import DataCheck, check_month
from search.retrain.month.depth_decision import decide
from search.retrain.month.drift import Drift, compare_drift
from search.retrain.month.image_roles import MonthPlan, month_roles, plan_month
from search.retrain.month.image_subset import image_subset
from search.retrain.month.reporting import PAGE, report_month
from search.retrain.month.searching import search_month, too_few
from search.retrain.months import month_rows, usable_months
from search.retrain.session import MonthOutcome, Session
from search.settings.plain import flatten

__all__ = ["MonthRun"]


class MonthRun:
    """One month for one champion.

    Args:
        session: shared things.
        row: the month's row of the ledger, running.
        images: all that there are.
        champion: that meets the month.
    """

    def __init__(self, session: Session, row: MonthRow, images: ImageSet, champion: Champion) -> None:
        self.session, self.row, self.all, self.champion = session, row, images, champion
        latest = session.ledger.latest()
        self._usable = usable_months(latest)
        self._trained_on = session.ledger.trained_on(champion.version)
        self.run_id = row.run_id or self._start_run()

    def _start_run(self) -> str:
        session, row = self.session, self.row
        key = f"retraining {session.model_name} {row.month} {row.id}"
        session.tracker.kill_open_study(key)
        tags = {
            "study": key, "month": row.month, "kind": "retraining", "why": row.why, "data_digest": row.data_digest,
            "champion_before": self.champion.version, "model_name": session.model_name,
        }  # fmt: skip
        run_id = session.tracker.start_parent(f"{session.model_name} {row.month}", flatten(session.settings), tags)
        session.ledger.set_run(row, run_id)
        return run_id

    def run(self) -> MonthOutcome:
        """Do what is left of the month.

        Raises:
            InterruptedSearchError, StudyStalledError: see `run_study`.
        """
        session, row = self.session, self.row
        session.tracker.resume(self.run_id)
        try:
            found = DataCheck.from_json(session.step(row, "check", self._check))
            for note in found.notes:
                session.say(f"  {note}")
            if found.refusal is not None:
                self._refuse(found)
            else:
                self._work()
        except BaseException:
            session.tracker.finish(self.run_id, "KILLED")
            raise
        session.clear(row)
        session.say(f"  Page of the month: {session.tracker.artifact(self.run_id, PAGE)}")
        return MonthOutcome.of(session.ledger.latest()[row.month])

    def _work(self) -> None:
        session, row = self.session, self.row
        look = session.step(row, "look", self._look)
        for line in look["lines"]:
            session.say(f"  {line}")
        decided = session.step(row, "depth", lambda: self._depth(look))
        session.say(f"  Depth of retraining: {decided['action']}; {decided['reason']}.")
        searched = session.step(row, "search", lambda: self._search(decided))
        compared = session.step(row, "compare", lambda: compare_models(self, searched))
        session.step(row, "report", lambda: self._report())
        self._close(decided, searched, compared)

    # What the steps share; made when it is first asked for, so that a continued month makes no more than it needs.

    @cached_property
    def check(self) -> DataCheck:
        """What step 1 found."""
        return DataCheck.from_json(self.session.ledger.steps(self.row)["check"][0])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The champion's and the month's."""
        return tuple(sorted({*self.champion.classes, *self.check.new_classes}))

    @cached_property
    def images(self) -> ImageSet:
        """Those of the month and of usable older and newer ones, of classes that are known."""
        months = {*self._usable, self.row.month}
        inside = [i for i, r in enumerate(self.all.index.records) if r.month in months and r.label in self.classes]
        return image_subset(self.all, np.array(inside, np.int64), self.classes, self.session.folder(self.row))[0]

    @cached_property
    def plan(self) -> MonthPlan:
        """How they are used; the roles were given at the end of step 1."""
        return plan_month(
            self.images.index, self.row.month, self.session.ledger.roles(), self.session.settings,
            trained_on=self._trained_on,
        )  # fmt: skip

    @cached_property
    def champion_net(self) -> Any:
        """The champion with an output, never the largest, for each class it does not know."""
        return widened(self.champion.model, self.classes).net.to(self.session.device)

    @property
    def month_baseline(self) -> Path:
        """File of what the champion shows of the month's images that may be trained on now, and were not before."""
        return self.session.folder(self.row) / "month.npz"

    def baseline(self, net: Any, rows: Rows) -> Baseline:
        """What a network shows of the images at `rows`."""
        index = self.images.index
        return measure_baseline(
            net,
            plain_images(self.images, rows, self.session.device),
            index.labels[rows],
            index.classes,
            groups=[index.records[r].group or index.records[r].digest for r in rows.tolist()],
            seed=self.session.settings.seed,
        )

    # Steps

    def _check(self) -> dict[str, Any]:
        settings, ledger, index = self.session.settings, self.session.ledger, self.all.index
        rows = month_rows(index, self.row.month)
        older = np.array([i for i, r in enumerate(index.records) if r.month in self._usable], dtype=np.int64)
        found = check_month(
            self.all,
            rows,
            older,
            known=self.champion.classes,
            white_level=self.champion.model.card.white_level,
            new_class=settings.retrain.new_class,
            constant_share=settings.retrain.constant_share,
        )
        self.check = found
        if found.refusal is None:
            fraction, seed = settings.retrain.test_fraction, settings.seed
            roles = month_roles(self.images.index, self.row.month, ledger.roles(), fraction=fraction, seed=seed)
            ledger.give_roles(self.row, roles)
        return found.to_json()

    def _look(self) -> dict[str, Any]:
        """Scores of the champion, and drift, on images it was not trained on; both annotate, neither gates."""
        plan, lines = self.plan, []
        drift: Drift | None = None
        trainable = np.intersect1d(plan.unseen, plan.pool)
        old = self.old_baseline()
        if len(trainable) >= 2:
            new = self.baseline(self.champion_net, trainable)
            self.month_baseline.parent.mkdir(parents=True, exist_ok=True)
            new.save(self.month_baseline)
            drift = compare_drift(old, new, seed=self.session.settings.seed)
            lines += drift.lines()
        shown, said = self._champion_scores(plan.unseen)
        drifted = drift and drift.to_json()
        return {"scores": shown, "images": len(plan.unseen), "drift": drifted, "lines": [*said, *lines]}

    def _champion_scores(self, rows: Rows) -> tuple[dict[str, tuple[float, ...]], list[str]]:
        """Scores of the champion on images of the month with their intervals, and in words."""
        index, who = self.images.index, f"Champion, version {self.champion.version}"
        if not len(rows):
            return {}, [f"{who}: it was trained on every image of the month, so it is not judged on them."]
        answers = torch.from_numpy(probabilities(self.champion_net, self.images, rows)).clamp_min(1e-30).log()
        scores = scores_with_intervals(answers, torch.from_numpy(index.labels[rows]), index.classes)
        accuracy, (low, high) = scores.values["accuracy"], scores.intervals["accuracy"]
        of = "images of the month"
        if known := len(self.plan.month) - len(rows):
            of += f" that it was not trained on ({known} others it was)"
        lines = [f"{who}: accuracy {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}) on {len(rows)} {of}."]
        if flattering := self._of_known_groups(rows):
            lines.append(f"{flattering} of these show a group that the champion was trained on: that flatters it.")
        return {n: (scores.values[n], *scores.intervals[n]) for n in scores.intervals}, lines

    def _of_known_groups(self, rows: Rows) -> int:
        """How many of the images at `rows` are of a coil, plate or tile of which other images trained the champion."""
        records = self.images.index.records
        known = {record.group for record in records if record.group and record.digest in self._trained_on}
        return sum(records[r].group in known for r in rows.tolist())

    def old_baseline(self) -> Baseline:
        """What the champion showed of the images it was tested on when it was promoted."""
        path = self.session.tracker.artifact(self.champion.run_id, BASELINE)
        if path.is_file():
            return Baseline.load(path)
        rows = np.setdiff1d(self.plan.tests, self.plan.month)
        return self.baseline(self.champion_net, rows)

    def _depth(self, look: dict[str, Any]) -> dict[str, Any]:
        setting, blocks = self.session.settings.retrain.depth, self.champion_net.num_blocks
        if setting != "auto":
            action = "thaw" if setting.isdigit() else setting
            depth = {"head": blocks, "thaw": int(setting) if setting.isdigit() else None}.get(action)
            return {"action": action, "depth": depth, "reason": f"retrain.depth={setting}", "decision": None}
        if look["drift"] is None:
            reason = "fewer than two images of the month may be trained on that the champion was not trained on already"
            return {"action": "none", "depth": None, "reason": reason, "decision": None}
        new = Baseline.load(self.month_baseline)
        digests = [self.images.index.records[r].digest for r in self.plan.pool.tolist()]
        growth = sum(digest not in self._trained_on for digest in digests) / max(1, self.champion.trained)
        decision = decide(
            self.old_baseline(),
            new,
            Drift.from_json(look["drift"]),
            new_classes=self.check.new_classes,
            growth=growth,
            champion_depth=self.champion.cut,
            seed=self.session.settings.seed,
        )
        found = {"action": decision.action, "depth": decision.depth, "reason": decision.reason}
        return {**found, "decision": decision.to_json()}

    def _search(self, decided: dict[str, Any]) -> dict[str, Any]:
        if decided["action"] == "none":
            return {"skipped": "no retraining asked for"}
        depth = decided["depth"]
        folds = self.plan.folds_anew if depth is None else self.plan.folds
        if short := too_few(folds):
            return {"skipped": short}
        found = search_month(self.session, self.row, self.run_id, self.champion, self.images, folds, depth)
        rest = {name: getattr(found, name) for name in ("trials", "epoch_equivalents", "image_passes")}
        return {"winner": asdict(found.winner), **rest}

    def _report(self) -> dict[str, Any]:
        return report_month(self)

    # Endings

    def _refuse(self, found: DataCheck) -> None:
        session, row = self.session, self.row
        session.step(row, "report", self._report)
        numbers = {"seconds": session.seconds(row), "epoch_equivalents": 0.0, "image_passes": 0.0}
        reason = str(found.refusal)
        session.tracker.finish(self.run_id, "FINISHED")
        session.ledger.finish([row], "refused", reason, numbers, usable=False, champion=self.champion.version)
        session.say(f"{row.month}: refused, champion version {self.champion.version} stays: {reason}.")

    def _close(self, decided: dict[str, Any], searched: dict[str, Any], compared: dict[str, Any]) -> None:
        """The decision is written to the ledger, then the aliases are moved: see `champion.settle`."""
        session, row, champion = self.session, self.row, self.champion
        winner = searched.get("winner")
        numbers = {
            **compared["numbers"], "action": decided["action"], "depth": decided["depth"],
            "trials": searched.get("trials", 0), "epoch_equivalents": searched.get("epoch_equivalents", 0.0),
            "image_passes": searched.get("image_passes", 0.0), "seconds": session.seconds(row),
        }  # fmt: skip
        promotion, after = None, champion.version
        if winner is not None and compared["outcome"] == "promoted":
            after = winner["version"]
            cut = champion.cut if decided["action"] == "head" else winner["params"]["freeze_depth"]
            newest = max(row.month, champion.month)
            made = {"cut": cut, "month": newest, "trained": winner["images"][0]}
            promotion = {
                "kind": "promotion", "from_version": champion.version, "to_version": after,
                "previous_version": champion.version, "reason": compared["reason"], "numbers": {**numbers, **made},
                "run_id": self.run_id,
            }  # fmt: skip
        session.tracker.finish(self.run_id, "FINISHED")
        session.ledger.finish(
            [row],
            compared["outcome"],
            compared["reason"],
            numbers,
            usable=compared["usable"],
            champion=after,
            challenger=winner and winner["version"],
            promotion=promotion,
        )
        settle(session.ledger, session.tracker, session.model_name)
        session.say(f"{row.month}: {compared['reason']}.")
        if after != champion.version:
            session.say(f"Champion: version {after}; previous: version {champion.version}.")
