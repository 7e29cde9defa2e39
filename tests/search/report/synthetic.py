"""Data of a report that no search has made, with labels that try to be markup."""

from __future__ import annotations

from lightning_modules.decisions.reliability import Reliability, ReliabilityBin
from search.outcome.decisions import Counted, CoveragePoint, DecisionFacts, PolicyCost, Strangers
from search.report.data import (
    ClassNeed,
    ClassScores,
    Confusion,
    Cost,
    HeatCell,
    Importance,
    Phase,
    ReportData,
    Reproduction,
    Rival,
    Score,
    ScorerResult,
    Tested,
)
from search.report.findings import (
    BlockMeasures,
    ConfusedPair,
    Findings,
    Mistake,
    NearMiss,
    Suspect,
    Trait,
)
from search.report.wrong_images import WrongImage, WrongImages
from search.study.record import Trial
from search.verdict import Alone, judge

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
EVIL = (IMAGE, SCRIPT, '" onmouseover="alert(3)', "가로 줄무늬")
PIXEL = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4z"
    "NDL/wAALCAABAAEBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJx"
    "FDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKj"
    "pKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/APn+v//Z"
)


def trial(slot: int, depth: int, value: float, outcome: str = "complete") -> Trial:
    """A trial of two epochs."""
    return Trial(
        slot, "nag", 0.01, 1.0, depth, None, value, 0.4, "score", 2, outcome,
        "" if outcome == "complete" else f"worse {EVIL[0]}", 1.5, 2.0, (value / 2, value), f"run{slot}",
    )  # fmt: skip


def findings() -> Findings:
    """One confused pair and one suspect, all names evil."""
    mistake = Mistake(f"{SCRIPT}.png", 0.8, 0.1, "p0", "p0", "p0", f"{EVIL[2]}.png", 0.5, "p0")
    traits = (Trait("border", 0.8, 0.4, 2.5, 0.01), Trait("side", 0.5, 0.5, None, 1.0))
    pair = ConfusedPair(
        IMAGE, SCRIPT, 3, 9, 2, 20, 30, (mistake,), (NearMiss("b.png", 0.1, "p0", "p0"),), (3, 6), traits
    )
    measures = (BlockMeasures("stage1", 8, 8, 0.8, 0.9, 1.5, None, 0.0), BlockMeasures(IMAGE, 4, 4, *[None] * 4, 1.0))
    suspect = Suspect(f"{IMAGE}.png", IMAGE, SCRIPT, 0.9, 0.7, 0.05, "p0")
    confusion = tuple(tuple(3 if i == j else int(i < j) for j in range(4)) for i in range(4))
    return Findings(1, 2, 40, 20, 0.8, 0.81, 0.81, EVIL, confusion, "layercam", "stage1", 20, measures, (pair,), 4,
                    (suspect,), 1, 2.5, (), {"p0": PIXEL})  # fmt: skip


def decisions(problem: str = "") -> DecisionFacts:
    """Of a winner with few images of two classes, or of one that could not be calibrated."""
    if problem:
        return DecisionFacts(7, 7, problem, None, None, None, None, None, "", (), (), (4, 9, 19, 49, 99))
    bins = (ReliabilityBin(0.4, 0.5, 3, 0.45, 1 / 3, 0.01, 0.91), ReliabilityBin(0.9, 1.0, 9, 0.97, 1.0, 0.66, 1.0))
    one = Reliability(12, 0.08, 0.05, 0.21, 0.06, bins)
    share = Counted(0.9, 0.7, 0.99, 20)
    points = (
        CoveragePoint(0.8, (), share, Counted(0.1, 0.01, 0.3, 20), Counted(0.05, 0.0, 0.2, 18)),
        CoveragePoint(0.9, EVIL[:2], share, Counted(1.0, 0.8, 1.0, 20), Counted(None, None, None, 0)),
    )
    return DecisionFacts(
        40, 12, "", (1.7, 1.2, 2.4), one, one, one, one, "test images", points, (0.95, 0.98, 0.99), (4, 9, 19, 49, 99),
        tuple(PolicyCost(name, 120.0, 80.5, 150.0, 0.2) for name in ("cheapest", "likeliest", "by hand")),
        (Strangers(0.1, share),),
    )  # fmt: skip


def wrong_images() -> WrongImages:
    """Two with a picture, one whose map says nothing, and one that is only listed."""
    shown = [
        WrongImage(f"{IMAGE}.png", IMAGE, SCRIPT, 0.9, 0.05, "p0", "p0"),
        WrongImage("b.png", SCRIPT, EVIL[3], 0.6, 0.3, "p0", "p0", "alike"),
    ]
    listed = WrongImage("c.png", SCRIPT, IMAGE, 0.5, 0.4)
    return WrongImages("3", 18, 6, (*shown, listed), 2, 1, "layercam", "stage1", (4, 4), (), {"p0": PIXEL})


def report_data(*, winner: bool = True) -> ReportData:
    """A study of three trials."""
    trials = (trial(0, 1, 0.7, "pruned"), trial(1, 2, 0.8), trial(2, 0, 0.0, "diverged"))
    heat = tuple(
        HeatCell("nag", k, best, slot, slot == 0, int(slot is not None))
        for k, best, slot in ((0, None, None), (1, 0.7, 0), (2, 0.8, 1))
    )
    scores = (Score("accuracy", 0.75, 0.43, 0.95), Score("macro_f1", 1.0, None, None))
    tested = Tested(1, "nag", 0.01, 1.0, 2, 0.8, 2, True, 60, 12, scores, 1, "3", "thawline")
    counts = tuple(tuple(3 if i == j else int(i < j) for j in range(4)) for i in range(4))
    return ReportData(
        study=f"study {IMAGE}",
        made="2026-01-02T03:04:05+00:00",
        state="complete" if winner else "running",
        run_id="0" * 32,
        experiment=SCRIPT,
        metric="macro_f1",
        network="lenet5",
        blocks=("stage1", IMAGE),
        depths=(0, 2),
        images=f"folder, {IMAGE}",
        size=f"96 x 96; {IMAGE}",
        asked=3,
        unfinished=0 if winner else 1,
        winner=tested if winner else None,
        rival=Rival(0, 1, 0.7, -0.1, True, 0.09) if winner else None,
        cost=Cost((Phase("trials", 12.5, 1), Phase("winner", 3.0, 2)), 15.5, 4.5, 6.0, 6),
        trials=trials,
        heat_map=heat,
        importances=(Importance("freeze_depth", 0.9), Importance("lr_factor", 0.1)),
        prior="Prior over freeze depths 0..2: uniform, left to the sampler.",
        scorecard=(
            ScorerResult("cka", True, 2, (2, 1, 0), None, 2, None, 0.5),
            ScorerResult("static", False, 1, (1,), 0.3, 2, 0.1, 0.0),
        ),
        confusion=Confusion(EVIL, counts) if winner else None,
        classes=tuple(ClassScores(c, 3, 0.5, 0.5, 0.1, 0.9, 0.5) for c in EVIL) if winner else (),
        findings=findings() if winner else None,
        reproduction=Reproduction(f"python -m search data.path='{SCRIPT}'", "abc", {"torch": "2"}, {"data": "12ab"}),
        notes=() if winner else (f"No images at {IMAGE}",),
        decisions=decisions() if winner else None,
        verdict=judge(EVIL, counts, alone=Alone(0.9, 12, 1, 6)) if winner else None,
        wrong=wrong_images() if winner else None,
        needs=(ClassNeed(IMAGE, 6, 3, 0.12, 0.88, 20, (0,)), ClassNeed(EVIL[3], 0, 0, None, None, None, ()))
        if winner
        else (),
    )  # fmt: skip


CHARTS = {"curves": {"data": [{"type": "scatter", "x": [1, 2], "y": [0.1, 0.2], "name": SCRIPT}], "layout": {}}}
