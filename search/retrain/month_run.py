"""One month, step by step: check, look, depth, search, compare, report; then the promotion, last and at once.

Each step's result is in the ledger before the next one begins, so a call that was killed anywhere is continued by the
next one. Until the last write of all, nothing that others read has changed: the champion is what it was. The month's
MLflow run is closed before that, so that no run is left open by whatever kills the program after it.
"""

from __future__ import annotations

from typing import Any

from lightning_modules.images.store import ImageSet
from search.retrain.champion import Champion, settle
from search.retrain.ledger import MonthRow
from search.retrain.month.comparison import compare_models
from search.retrain.month.context import MonthContext, Session
from search.retrain.month.data_checks import check_data
from search.retrain.month.depth_decision import decide_depth
from search.retrain.month.drift import look_at_champion
from search.retrain.month.shorter_search import search_month
from search.retrain.month_report import PAGE, report_month
from search.settings.plain import flatten

__all__ = ["run_month"]


def run_month(session: Session, row: MonthRow, images: ImageSet, champion: Champion) -> MonthRow:
    """Do what is left of a month.

    Returns:
        The row, done.

    Raises:
        InterruptedSearchError, StudyStalledError: see `run_study`.
    """
    run_id = row.run_id or _start_run(session, row, champion)
    context = MonthContext(session, row, images, champion, run_id)
    session.tracker.resume(run_id)
    try:
        context.step("check", check_data)
        for note in context.check.notes:
            session.say(f"  {note}")
        if context.check.refusal is None:
            _steps(context)
        else:
            context.step("report", report_month)
            _refuse(context, context.check.refusal)
    except BaseException:
        session.tracker.finish(run_id, "KILLED")
        raise
    session.clear(row)
    session.say(f"  Page of the month: {session.tracker.artifact(run_id, PAGE)}")
    return session.ledger.latest()[row.month]


def _start_run(session: Session, row: MonthRow, champion: Champion) -> str:
    key = f"retraining {session.model_name} {row.month} {row.id}"
    session.tracker.kill_open_study(key)
    tags = {
        "study": key, "month": row.month, "kind": "retraining", "why": row.why, "data_digest": row.data_digest,
        "champion_before": champion.version, "model_name": session.model_name,
    }  # fmt: skip
    run_id = session.tracker.start_parent(f"{session.model_name} {row.month}", flatten(session.settings), tags)
    session.ledger.set_run(row, run_id)
    return run_id


def _steps(context: MonthContext) -> None:
    for line in context.step("look", look_at_champion)["lines"]:
        context.session.say(f"  {line}")
    decided = context.step("depth", decide_depth)
    context.session.say(f"  Depth of retraining: {decided['action']}; {decided['reason']}.")
    context.step("search", search_month)
    context.step("compare", compare_models)
    context.step("report", report_month)
    _close(context)


def _refuse(context: MonthContext, reason: str) -> None:
    session, row, champion = context.session, context.row, context.champion
    numbers = {"seconds": session.seconds(row), "epoch_equivalents": 0.0, "image_passes": 0.0}
    session.tracker.finish(context.run_id, "FINISHED")
    session.ledger.finish([row], "refused", reason, numbers, usable=False, champion=champion.version)
    session.say(f"{row.month}: refused, champion version {champion.version} stays: {reason}.")


def _close(context: MonthContext) -> None:
    """The decision is written to the ledger, then the aliases are moved: see `champion.settle`."""
    session, row, champion, results = context.session, context.row, context.champion, context.results
    decided, searched, compared = results["depth"], results["search"], results["compare"]
    winner = searched.get("winner")
    numbers = {
        **compared["numbers"], "action": decided["action"], "depth": decided["depth"],
        "trials": searched.get("trials", 0), "epoch_equivalents": searched.get("epoch_equivalents", 0.0),
        "image_passes": searched.get("image_passes", 0.0), "seconds": session.seconds(row),
    }  # fmt: skip
    promotion: dict[str, Any] | None = None
    after = champion.version
    if winner is not None and compared["outcome"] == "promoted":
        after = winner["version"]
        freeze_depth = champion.lineage_depth if decided["action"] == "head" else winner["params"]["freeze_depth"]
        newest = max(row.month, champion.month)
        made = {"cut": freeze_depth, "month": newest, "trained": winner["images"][0]}
        promotion = {
            "kind": "promotion", "from_version": champion.version, "to_version": after,
            "previous_version": champion.version, "reason": compared["reason"], "numbers": {**numbers, **made},
            "run_id": context.run_id,
        }  # fmt: skip
    session.tracker.finish(context.run_id, "FINISHED")
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
