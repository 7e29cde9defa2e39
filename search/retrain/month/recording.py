"""The record of a month, from what its steps left in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from search.retrain.month.comparison import Comparison, Decision
from search.retrain.month.depth_decision import DepthDecision
from search.retrain.month.drift import Drift
from search.retrain.month.record import PLACES, ModelFacts, MonthRecord, PictureFacts, SearchFacts
from search.retrain.page.pictures import SUSPECTS_RULE
from search.trial.result import TrialParams

if TYPE_CHECKING:
    from search.retrain.month.run import MonthRun

__all__ = ["month_record"]


def month_record(
    run: MonthRun, pictures: tuple[PictureFacts, ...] = (), suspects: tuple[PictureFacts, ...] = ()
) -> MonthRecord:
    """All that the page of the month shows; of a refused month, what is known of it.

    Args:
        run: the month, its steps up to the comparison done.
        pictures: the images to show.
        suspects: images whose label is suspect.
    """
    steps = {name: result for name, (result, _) in run.session.ledger.steps(run.row).items()}
    settings, champion = run.session.settings, run.champion
    compared, look, depth = (steps.get(name, {}) for name in ("compare", "look", "depth"))
    check = run.check
    images = {"month": sum(check.counts.values())}
    if check.refusal is None:
        plan = run.plan
        images |= {
            "training and validation": int(sum(run.images.index.records[r].month == run.row.month for r in plan.pool)),
            "of older months": int(sum(run.images.index.records[r].month != run.row.month for r in plan.pool)),
            "held out": len(plan.own),
            "compared on": len(plan.newest),
            "regression set": len(plan.regression),
            "held out in other months": len(plan.others),
        }
        decision = Decision.from_json(compared["decision"])
    else:
        decision = Decision(False, f"refused: {check.refusal}")
    return MonthRecord(
        month=run.row.month,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=run.session.command,
        model_name=run.session.model_name,
        run_id=run.run_id,
        classes=run.classes,
        outcome=compared.get("outcome", "refused"),
        images=images,
        champion=ModelFacts(champion.version, champion.describe(), f"{champion.trained} images up to {champion.month}"),
        champion_scores={name: (v[0], v[1], v[2]) for name, v in look.get("scores", {}).items()},
        champion_images=look.get("images", 0),
        decision=decision,
        margin=settings.retrain.margin,
        guard=settings.retrain.guard,
        challenger=_challenger(run, steps.get("search", {})),
        data_notes=check.notes,
        left_out=tuple((problem.path, problem.reason) for problem in run.all.index.set_aside),
        drift=Drift.from_json(look["drift"]) if look.get("drift") else None,
        depth=DepthDecision.from_json(depth["decision"]) if depth.get("decision") else None,
        depth_setting=settings.retrain.depth,
        search=_search(run, steps.get("search", {})),
        **{place: Comparison.from_json(compared[place]) if compared.get(place) else None for place in PLACES},
        pictures=pictures,
        suspects=suspects,
        suspects_rule=SUSPECTS_RULE if steps.get("search", {}).get("winner") else "",
        cautions=(*compared.get("cautions", ()), *_cautions(run)),
    )


def _challenger(run: MonthRun, searched: dict[str, Any]) -> ModelFacts | None:
    if (winner := searched.get("winner")) is None:
        return None
    params = TrialParams(**winner["params"])
    words = f"{params.optimizer}, learning rate {params.learning_rate:.3g}, freeze depth {params.freeze_depth}"
    return ModelFacts(winner["version"], words, f"{winner['images'][0]} images up to {run.row.month}")


def _search(run: MonthRun, searched: dict[str, Any]) -> SearchFacts | None:
    if (winner := searched.get("winner")) is None:
        return None
    best = {name: f"{v:.3g}" if isinstance(v, float) else str(v) for name, v in winner["params"].items()}
    seconds = run.session.seconds(run.row)
    return SearchFacts(searched["trials"], seconds, searched["epoch_equivalents"], best)


def _cautions(run: MonthRun) -> list[str]:
    if run.check.refusal is not None:
        return []
    months = run.plan.newest_months
    if len(months) < 2:
        return []
    return [f"The month alone has {len(run.plan.own)} held-out images; those of {', '.join(months[1:])} were pooled."]
