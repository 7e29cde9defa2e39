"""The report as a page: one file that makes no request. What it says is in `templates/report.html`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from explain.subject import described_measures
from search.outcome.decisions import COVERAGES
from search.pages.html import render
from search.report.data import FIRST_SUSPECTS, FIRST_WRONG, ClassScores, ReportData
from search.report.false_associations import FEWEST_CORRECT, FEWEST_MISTAKEN, TRAITS
from search.report.findings import ConfusedPair, Mistake, NearMiss
from search.report.script import packed_plotly, script_hash
from search.report.static_charts import Chart, coverage_curve, curves, reliability_diagram, slices
from search.report.wrong_images import WrongImage
from search.study.judge import best_trial
from search.verdict import enough, headline, weak_points

__all__ = ["at", "page"]

_SIGNIFICANT = 0.05
_ASSOCIATIONS = 2  # named above a pair
_CONFUSIONS = 3  # in the line above the matrix
_MATRIX_CLASSES = 16  # of more the confusion matrix and all but the weakest are folded
_LISTED = 200  # wrong images without pictures
_OTHERS = 2  # classes that one is taken for
_EXAMPLES = 4  # pictures of a class to photograph
_STOPPED = 8  # trials with their maps


def page(
    data: ReportData,
    charts: Mapping[str, Any],
    evidence: tuple[bytes | None, bytes | None] = (None, None),
    stopped: Mapping[int, bytes] = MappingProxyType({}),
) -> str:
    """The page as HTML.

    Args:
        charts: of `charts.chart_data`.
        evidence: PNG of its figure on light and on dark ground, or None.
        stopped: slot -> PNG of the maps of a trial that was stopped by them.
    """
    plain = data.to_json()
    plotly, plotly_hash = packed_plotly() if charts else ("", "")
    winner = None if data.winner is None else data.winner.slot
    runs = {trial.slot: trial.run_id for trial in data.trials}
    scored = [trial for trial in data.trials if trial.outcome != "diverged"]
    curved = [trial for trial in data.trials if trial.curve]
    return render(
        "report.html",
        data=data,
        at=lambda pointer: at(plain, pointer),
        winner_run="" if winner is None else runs.get(winner, ""),
        rival_run="" if data.rival is None else runs.get(data.rival.slot, ""),
        best=best_trial(data.trials),
        heat=_heat(data, runs),
        evidence=evidence,
        stopped=dict(list(stopped.items())[:_STOPPED]),
        headline=() if data.verdict is None else headline(data.verdict),
        weak=() if data.verdict is None else weak_points(data.verdict),
        enough=() if data.verdict is None else enough(data.verdict),
        wrong=_wrong(data),
        needs=_needs(data),
        classes=_classes(data),
        first_suspects=FIRST_SUSPECTS,
        most_classes=_MATRIX_CLASSES,
        curves=curves(curved, winner) if curved else None,
        slices={one: slices(scored, one, winner) for one in sorted(one.name for one in data.importances)},
        most_confused=_most_confused(data),
        reliability=_reliability(data),
        coverage=coverage_curve(data.decisions.points) if data.decisions is not None else None,
        stands_out=_stands_out,
        needed={coverage: place for place, coverage in enumerate(COVERAGES)},
        fewest_mistaken=FEWEST_MISTAKEN,
        fewest_correct=FEWEST_CORRECT,
        measured=described_measures(),
        longest_phase=max((phase.seconds for phase in data.cost.phases), default=1.0) or 1.0,
        charts=charts,
        plotly=plotly,
        hashes=[script_hash(), *([plotly_hash] if charts else [])],
    )


def at(plain: Mapping[str, Any], pointer: str) -> Any:
    """What stands in report.json at a JSON pointer of plain keys and positions."""
    found: Any = plain
    for part in pointer.strip("/").split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part.replace("~1", "/").replace("~0", "~")]
    return found


def _wrong(data: ReportData) -> dict[str, list[tuple[int, WrongImage]]]:
    """Wrong images with their positions: those before the fold, those with pictures in it, and some that have none."""
    if data.wrong is None:
        return {"first": [], "more": [], "listed": []}
    places = list(enumerate(data.wrong.images))
    pictured = data.wrong.pictured
    first = min(pictured, FIRST_WRONG)
    return {"first": places[:first], "more": places[first:pictured], "listed": places[pictured:][:_LISTED]}


def _needs(data: ReportData) -> list[dict[str, Any]]:
    """A class to photograph, pictures of such images, what it is taken for and what stands out in its maps.

    The pictures are of validation images, mistaken or nearly so; where there are none, of wrong test images.
    """
    found = []
    for place, need in enumerate(data.needs):
        pairs = [data.findings.pairs[number] for number in need.pairs] if data.findings is not None else []
        kept = {} if data.findings is None else data.findings.pictures
        examples: list[Mistake | NearMiss] = []
        for pair in pairs:
            examples += [*pair.mistakes, *pair.near]
        shown = [(one.image, one.path) for one in examples if one.image in kept]
        taken_for = [pair.predicted for pair in pairs]
        wrong = [] if data.wrong is None else [one for one in data.wrong.images if one.true == need.name and one.image]
        if not shown and data.wrong is not None:
            kept, shown = data.wrong.pictures, [(one.image, one.path) for one in wrong]
        found.append(
            {
                "at": f"/needs/{place}",
                "need": need,
                "pictures": [(kept[key], path) for key, path in shown[:_EXAMPLES]],
                "taken_for": list(dict.fromkeys([one.predicted for one in wrong] + taken_for))[:_OTHERS],
                "stands_out": next((words for pair in pairs if (words := _stands_out(pair))), []),
            }
        )
    return found


def _classes(data: ReportData) -> tuple[list[tuple[int, ClassScores]], list[tuple[int, ClassScores]]]:
    """Classes with their positions: all in their order; of many the weakest, and the others apart."""
    places = list(enumerate(data.classes))
    if len(places) <= _MATRIX_CLASSES:
        return places, []
    places.sort(key=lambda one: (1.0 if one[1].recall is None else one[1].recall, one[0]))
    return places[:_MATRIX_CLASSES], places[_MATRIX_CLASSES:]


def _heat(data: ReportData, runs: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """Optimizer, with its network where there are several -> cells of its row.

    The colour is the score between the lowest and the highest cell, in percent.
    """
    known = [cell.best for cell in data.heat_map if cell.best is not None]
    worst, best = min(known, default=0.0), max(known, default=1.0)
    rows: dict[str, list[dict[str, Any]]] = {}
    for place, cell in enumerate(data.heat_map):
        shown: dict[str, Any] = {"run": None}
        if cell.best is not None and cell.slot is not None:
            share = (cell.best - worst) / (best - worst) if best > worst else 1.0
            shown = {
                "at": f"/heat_map/{place}",
                "run": runs[cell.slot],
                "won": data.winner is not None and data.winner.slot == cell.slot,
                "stopped": cell.stopped,
                "heat": f"{100 * share:.0f}",
            }
        name = cell.optimizer if cell.network is None else f"{cell.network}, {cell.optimizer}"
        rows.setdefault(name, []).append(shown)
    return rows


def _reliability(data: ReportData) -> tuple[str, Chart] | None:
    """Where the reliability diagram's bins stand in the data, and the diagram: of the test images if there are any."""
    facts = data.decisions
    for name in ("test", "after") if facts is not None else ():
        if (found := getattr(facts, name)) is not None:
            return f"/decisions/{name}", reliability_diagram(found)
    return None


def _most_confused(data: ReportData) -> list[tuple[int, int]]:
    """Row and column of the largest counts beside the diagonal."""
    counts = data.confusion.counts if data.confusion is not None else ()
    found = [(i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    return sorted(found, key=lambda pair: (-counts[pair[0]][pair[1]], pair))[:_CONFUSIONS]


def _stands_out(pair: ConfusedPair) -> list[str]:
    """What the maps of mistaken images have more of than those of right ones, in words."""
    strong = [trait for trait in pair.traits if trait.p_value < _SIGNIFICANT]
    return [TRAITS[trait.name][int(trait.mistaken > trait.correct)] for trait in strong[:_ASSOCIATIONS]]
