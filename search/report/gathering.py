"""From a study's journal and its MLflow run to the data of the report."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any

from scipy.stats import binomtest

from lightning_modules.errors import printable
from search.outcome.decisions import ARTIFACT, DecisionFacts, read_decisions
from search.outcome.scorecard import ScorecardRow, scorecard, seen_depths
from search.outcome.stopped_trials import STOPPED, read_stopped
from search.report.data import (
    ClassNeed,
    ClassScores,
    Confusion,
    Cost,
    HeatCell,
    Importance,
    NetworkResult,
    Phase,
    ReportData,
    Reproduction,
    Rival,
    Score,
    ScorerResult,
    Tested,
)
from search.report.findings import Findings
from search.report.so_far import SoFar
from search.report.wrong_images import WrongImages
from search.settings.compose import compose_settings
from search.settings.plain import flatten
from search.settings.schema import Settings
from search.study.judge import best_seen
from search.study.record import Study, Trial, Winner, first_network, of_evidence
from search.tracking.runs import ParentRun
from search.verdict import Alone, Verdict, judge
from search.words import interval_known

__all__ = ["command", "gather"]

_NEEDED = 4  # classes
_COVERAGE = 0.95
_DIGESTS = ("data_digest", "splits_digest", "weights_digest")
_PHASES = ("images", "network", "tracking", "warmup", "evidence", "trials", "winner", "figures", "validation_maps",
           "report")  # fmt: skip


def gather(
    study: Study,
    run: ParentRun,
    importances: Sequence[tuple[str, float]],
    findings: Findings | None,
    wrong: WrongImages | None = None,
    notes: Sequence[str] = (),
    so_far: SoFar | None = None,
) -> ReportData:
    """Everything on the page.

    Args:
        importances: parameter and share, from `charts.importances`.
        findings: of the validation images, or None.
        wrong: test images that the winner has wrong, or None.
        notes: what is missing, and why.
        so_far: what the best trial has wrong; shown while there is no winner.
    """
    tried = [t.freeze_depth for t in study.trials] or [0]
    depths = study.evidence.depths if study.evidence is not None else (min(tried), max(tried))
    if several := first_network(study.identity) is not None:
        depths = (min(depths[0], *tried), max(depths[1], *tried))
    confusion = _confusion(run) if study.winner is not None and study.winner.test is not None else None
    winner = study.winner
    path = run.params.get("data.path", "None")
    decisions = None if winner is None else read_decisions(run.artifact(ARTIFACT))
    classes = () if confusion is None else _classes(run, len(confusion.classes))
    said = list(notes)
    if wrong is not None and confusion is not None and wrong.found != _mistakes(confusion):
        said.append(
            "The model answers some test images otherwise than when it was tested, on another machine or with other "
            "versions: the pictures show today's answers, the scores are those of the test."
        )
    return ReportData(
        study=study.name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        state=_state(study, run),
        run_id=run.run_id,
        experiment=run.experiment,
        metric=study.metric,
        network=" or ".join(study.identity["model.name"])
        if several
        else str(study.identity.get("model.name", "unknown")),
        blocks=_blocks(study, findings),
        depths=depths,
        images=run.params.get("data.source", "unknown") + ("" if path == "None" else f", {path}"),
        size=run.tags.get("size", "").removeprefix("Size: ") or _size(run.params),
        asked=int(run.params.get("search.trials", len(study.trials))),
        unfinished=study.unfinished,
        winner=None if winner is None else _tested(winner, study, run),
        rival=_rival(study, winner, findings),
        cost=_cost(study.trials, run),
        trials=study.trials,
        heat_map=_heat_map(study, depths),
        importances=tuple(Importance(name, share) for name, share in importances),
        prior=run.tags.get("prior", ""),
        scorecard=tuple(
            ScorerResult(r.scorer, r.used, r.chosen, r.order, _known(r.tau), r.depths, r.regret, r.seconds)
            for r in (_scorecard(study))
        ),
        confusion=confusion,
        classes=classes,
        findings=findings,
        reproduction=_reproduction(study, run),
        notes=tuple(said),
        networks=_networks(study) if several else (),
        decisions=decisions,
        verdict=judge(so_far.classes, so_far.confusion, kind="validation")
        if winner is None and so_far is not None
        else _verdict(confusion, findings, decisions),
        wrong=so_far.wrong if winner is None and so_far is not None else wrong,
        needs=_needs(classes, findings),
        stopped=read_stopped(run.artifact(STOPPED)),
    )


def _blocks(study: Study, findings: Findings | None) -> tuple[str, ...]:
    """Names of the first network's blocks: of the evidence, or of the winner where it is that network."""
    if study.evidence is not None:
        return study.evidence.blocks
    if findings is None or study.winner is None:
        return ()
    return findings.blocks if study.winner.params.get("network") == first_network(study.identity) else ()


def _mistakes(confusion: Confusion) -> int:
    return sum(map(sum, confusion.counts)) - sum(row[i] for i, row in enumerate(confusion.counts))


def _verdict(confusion: Confusion | None, findings: Findings | None, decisions: DecisionFacts | None) -> Verdict | None:
    """Of the test images; without these of the validation images that the winning trial had not seen."""
    if confusion is not None:
        return judge(confusion.classes, confusion.counts, alone=_alone(decisions))
    return None if findings is None else judge(findings.classes, findings.confusion, kind="validation")


def _alone(decisions: DecisionFacts | None) -> Alone | None:
    """At a coverage of 95 %, or the largest below that can be promised; of test images alone."""
    if decisions is None or decisions.measured_on != "test images":
        return None
    for point in reversed(decisions.points):
        if point.coverage <= _COVERAGE and point.by_hand.of:
            decided = point.wrong.of
            wrong = round((point.wrong.value or 0.0) * decided)
            return Alone(point.coverage, decided, wrong, point.by_hand.of - decided)
    return None


def _needs(classes: Sequence[ClassScores], findings: Findings | None) -> tuple[ClassNeed, ...]:
    """Classes with mistakes, the weakest first, then those without a judged image; `_NEEDED` at most."""
    if not classes and findings is None:
        return ()
    judged = {one.name: (one.images, round((one.recall or 0.0) * one.images)) for one in classes}
    if findings is not None and not classes:
        rows = zip(findings.classes, findings.confusion, strict=True)
        judged = {name: (sum(row), row[place]) for place, (name, row) in enumerate(rows)}
    known = findings is not None and len(findings.training) == len(judged)
    training = dict(zip(findings.classes, findings.training, strict=True)) if findings is not None and known else {}
    pairs = () if findings is None else findings.pairs
    found = []
    for name, (images, right) in judged.items():
        if images and right == images:
            continue
        ends = binomtest(right, images).proportion_ci(0.95, "exact") if images else None
        found.append(
            ClassNeed(
                name=name,
                images=images,
                right=right,
                low=None if ends is None else float(ends.low),
                high=None if ends is None else float(ends.high),
                training=training.get(name),
                pairs=tuple(place for place, pair in enumerate(pairs) if pair.true == name),
            )
        )
    return tuple(sorted(found, key=lambda one: (one.right / one.images if one.images else 1.0, -one.images))[:_NEEDED])


def _size(params: Mapping[str, str]) -> str:
    sides = params.get("data.size", "unknown").strip("[]").replace(", ", " x ")
    return f"{sides}, data.fit={params.get('data.fit', 'unknown')}"


def _scorecard(study: Study) -> tuple[ScorecardRow, ...]:
    if study.evidence is None:
        return ()
    return scorecard(study.evidence, seen_depths(of_evidence(study.trials, study.identity)))


def _networks(study: Study) -> tuple[NetworkResult, ...]:
    found = []
    for name in study.identity["model.name"]:
        here = [t for t in study.trials if t.network == name]
        best = best_seen(here)
        cost, seconds = sum(t.epoch_equivalents for t in here), sum(t.seconds for t in here)
        if best is None:
            found.append(NetworkResult(name, None, None, False, len(here), cost, seconds))
        else:
            stopped = best.outcome != "complete"
            found.append(NetworkResult(name, best.value, best.slot, stopped, len(here), cost, seconds))
    return tuple(found)


def command(params: Mapping[str, str]) -> str:
    """The command line that asks for the same study.

    Args:
        params: dotted setting -> text of its value, as MLflow keeps them.
    """
    # An option of a group brings defaults of its own, so it is named first and what still differs after it.
    options = {"data": "data.source", "executor": "executor.name"}
    plain = flatten(Settings())
    words = [f"{group}={params[key]}" for group, key in options.items() if params.get(key, plain[key]) != plain[key]]
    if params.get("data.path", "None") != "None":
        words.append(f"data.path={params['data.path']}")
    defaults = flatten(compose_settings(words))
    for key, default in defaults.items():
        if key in params and params[key] != str(default) and key != "search.fresh":
            words.append(f"{key}={_override(params[key])}")
    return " ".join(["python -m search", *map(shlex.quote, words)])


def _override(text: str) -> str:
    """A value as the command line takes it."""
    if text in ("True", "False"):
        return text.lower()
    if text == "None":
        return "null"
    return text.replace("'", "").replace(" ", "") if text.startswith("[") else text


def _state(study: Study, run: ParentRun) -> str:
    if study.winner is not None and study.best is not None and study.winner.slot == study.best.slot:
        return "complete"
    return "running" if run.status == "RUNNING" else "interrupted"


def _tested(winner: Winner, study: Study, run: ParentRun) -> Tested:
    trial = next(t for t in study.trials if t.slot == winner.slot)
    scores = []
    for name, (low, high) in (winner.intervals or {}).items():
        value = (winner.test or {})[name]
        known = interval_known(name, low, high)
        scores.append(Score(name, value, low if known else None, high if known else None))
    return Tested(
        slot=winner.slot,
        optimizer=trial.optimizer,
        learning_rate=trial.learning_rate,
        lr_factor=trial.lr_factor,
        freeze_depth=trial.freeze_depth,
        value=winner.value,
        epochs=winner.epochs,
        refit=winner.refit,
        trained=winner.images[0],
        tested=winner.images[1],
        scores=tuple(scores),
        test_reads=study.test_reads,
        version=winner.version,
        model_name=run.params.get("tracking.model_name", "thawline"),
        network=trial.network,
        together=max(len(winner.members), 1),
        bought=winner.bought,
        more_epochs=winner.more_epochs,
    )


def _rival(study: Study, winner: Winner | None, findings: Findings | None) -> Rival | None:
    if winner is None:
        return None
    depth, network = winner.params["freeze_depth"], winner.params.get("network")
    best = best_seen(t for t in study.trials if t.network == network and t.freeze_depth != depth)
    if best is None:
        return None
    noise = None
    if findings is not None and findings.judged:
        n = findings.judged + 4
        shares = ((value * findings.judged + 2) / n for value in (winner.value, best.value))
        noise = 2 * math.sqrt(sum(share * (1 - share) / n for share in shares))
    return Rival(best.slot, best.freeze_depth, best.value, best.value - winner.value, best.outcome != "complete", noise)


def _cost(trials: Sequence[Trial], run: ParentRun) -> Cost:
    order = [name for name in _PHASES if name in run.seconds] + sorted(set(run.seconds) - set(_PHASES))
    phases = tuple(Phase(name, sum(run.seconds[name]), len(run.seconds[name])) for name in order)
    return Cost(
        phases=phases,
        seconds=sum(phase.seconds for phase in phases),
        trial_seconds=sum(t.seconds for t in trials),
        epoch_equivalents=sum(t.epoch_equivalents for t in trials),
        epochs=sum(t.epochs for t in trials),
    )


def _heat_map(study: Study, depths: tuple[int, int]) -> tuple[HeatCell, ...]:
    asked = study.identity.get("space.optimizers", ())
    names = list(dict.fromkeys([*asked, *(t.optimizer for t in study.trials)]))
    given = study.identity.get("model.name")
    cells = []
    for network, name in product(given if isinstance(given, list) else [None], names):
        for depth in range(depths[0], depths[1] + 1):
            here = [t for t in study.trials if (t.network, t.optimizer, t.freeze_depth) == (network, name, depth)]
            best = best_seen(here)
            if best is None:
                cells.append(HeatCell(name, depth, None, None, False, len(here), network))
            else:
                stopped = best.outcome != "complete"
                cells.append(HeatCell(name, depth, best.value, best.slot, stopped, len(here), network))
    return tuple(cells)


def _table(run: ParentRun, name: str) -> list[dict[str, Any]]:
    """Rows of a table that was logged as an artifact; MLflow appends to one that is there."""
    raw = run.artifact(name)
    if raw is None:
        return []
    table = json.loads(raw)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def _confusion(run: ParentRun) -> Confusion | None:
    rows = _table(run, "test/confusion.json")
    if not rows:
        return None
    classes = tuple(list(rows[0])[1:])
    last = rows[-len(classes) :]
    return Confusion(classes, tuple(tuple(int(row[name]) for name in classes) for row in last))


def _classes(run: ParentRun, count: int) -> tuple[ClassScores, ...]:
    return tuple(
        ClassScores(
            name=row["class"],
            images=int(row["images"]),
            **{
                key: _known(row[key]) if row["images"] or key == "precision" else None
                for key in ("precision", "recall", "recall_low", "recall_high", "f1")
            },
        )
        for row in _table(run, "test/per_class.json")[-count:]
    )


def _reproduction(study: Study, run: ParentRun) -> Reproduction:
    return Reproduction(
        command=command(run.params),
        commit=run.tags.get("commit", "unknown"),
        versions={
            name.removeprefix("version."): printable(value)
            for name, value in run.tags.items()
            if name.startswith("version.")
        },
        digests={name.removesuffix("_digest"): str(study.identity.get(name, "unknown")) for name in _DIGESTS},
    )


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
