"""Everything on the page but its pictures, as plain values: `report.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search.outcome.decisions import DecisionFacts
from search.outcome.stopped_trials import StoppedTrial
from search.report.findings import Findings
from search.report.wrong_images import WrongImages
from search.study.bought import Bought
from search.study.record import Trial
from search.verdict import Verdict

__all__ = [
    "FIRST_SUSPECTS",
    "FIRST_WRONG",
    "ClassNeed",
    "ClassScores",
    "Confusion",
    "Cost",
    "HeatCell",
    "Importance",
    "NetworkResult",
    "Phase",
    "ReportData",
    "Reproduction",
    "Rival",
    "Score",
    "ScorerResult",
    "Tested",
]

FIRST_WRONG, FIRST_SUSPECTS = 12, 8
"""Wrong images and doubtful labels that stand on the page before its folds."""


@dataclass(frozen=True)
class Score:
    """A test score with its 95 % interval.

    Attributes:
        name: accuracy, precision, recall, macro_f1 or weighted_f1.
        value: in [0, 1].
        low: lower end; None where a bootstrap of nothing but hits is no interval.
        high: upper end, likewise.
    """

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Tested:
    """The winner.

    Attributes:
        epochs: of its trial, and of its refit where that began anew.
        more_epochs: for which its refit went on from its trial; None where it began anew.
        refit: whether on training and validation images together.
        scores: of the test; empty without test images.
        test_reads: how often the study's test images were read, its own time included.
        network: None where the study has one.
        together: how many networks answer together, its own included.
        bought: how it tests beside the default trial; None where that is not known.
    """

    slot: int
    optimizer: str
    learning_rate: float
    lr_factor: float
    freeze_depth: int
    value: float
    epochs: int
    refit: bool
    trained: int
    tested: int
    scores: tuple[Score, ...]
    test_reads: int
    version: str
    model_name: str
    network: str | None = None
    together: int = 1
    bought: Bought | None = None
    more_epochs: int | None = None


@dataclass(frozen=True)
class Rival:
    """The best trial at another freeze depth than the winner's, of the same network.

    Attributes:
        difference: it minus the winner's score; positive only of a trial that was stopped early.
        stopped: whether it was stopped early, so that it might have reached more.
        noise: two standard errors of such a difference, 2 sqrt((v (1 - v) + w (1 - w)) / (n + 4)), as if both scores
            were accuracies of n judged images, other ones each; v and w are they with two hits and two misses added
            (Agresti and Coull 1998), so that two scores of 1 are not taken for exact. None where n is not known.
    """

    slot: int
    freeze_depth: int
    value: float
    difference: float
    stopped: bool
    noise: float | None


@dataclass(frozen=True)
class Phase:
    """Wall time of one phase, summed over all calls that finished."""

    name: str
    seconds: float
    calls: int


@dataclass(frozen=True)
class Cost:
    """What the study has cost.

    Attributes:
        phases: wall time of calls that finished.
        trial_seconds: of all finished trials, one after another.
        epoch_equivalents: of all finished trials, in epochs of training everything.
        epochs: of all finished trials.
    """

    phases: tuple[Phase, ...]
    seconds: float
    trial_seconds: float
    epoch_equivalents: float
    epochs: int


@dataclass(frozen=True)
class HeatCell:
    """Best validation score of one optimizer at one freeze depth.

    Attributes:
        best: best score of any trial there; None where none was tried.
        stopped: whether that trial was stopped early.
        trials: how many there were, diverged ones included.
    """

    optimizer: str
    freeze_depth: int
    best: float | None
    slot: int | None
    stopped: bool
    trials: int
    network: str | None = None


@dataclass(frozen=True)
class NetworkResult:
    """What the trials of one network reached, where the study chose among several.

    Attributes:
        best: best validation score of any trial; None where every trial diverged.
        slot: of that trial.
        stopped: whether it was stopped early.
        trials: how many there were, diverged ones included.
        epoch_equivalents: of them all, in epochs of training everything of the first network.
        seconds: of them all.
    """

    name: str
    best: float | None
    slot: int | None
    stopped: bool
    trials: int
    epoch_equivalents: float
    seconds: float


@dataclass(frozen=True)
class Importance:
    """Share of the variance of the score that a parameter explains (fANOVA), in [0, 1]."""

    name: str
    share: float


@dataclass(frozen=True)
class ScorerResult:
    """A row of the scorecard (`search.outcome.scorecard.ScorecardRow`)."""

    scorer: str
    used: bool
    chosen: int | None
    order: tuple[int, ...]
    tau: float | None
    depths: int
    regret: float | None
    seconds: float


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of the test images; `counts`: row = true class, column = predicted class."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ClassScores:
    """Test scores of one class, each in [0, 1]; None where there is no image of it."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassNeed:
    """A class to take more pictures of.

    Attributes:
        images: judged images of the class: of the test, or validation images where there are no others.
        right: of these.
        low, high: exact 95 % interval of the share that is right, in [0, 1]; None without images.
        training: training images; None where they were not counted.
        pairs: positions among the findings' confused pairs of those in which it is the true class.
    """

    name: str
    images: int
    right: int
    low: float | None
    high: float | None
    training: int | None
    pairs: tuple[int, ...]


@dataclass(frozen=True)
class Reproduction:
    """How to repeat the search.

    Attributes:
        command: gives the same study, on the same machine and images.
        digests: of images, splits and weights.
    """

    command: str
    commit: str
    versions: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class ReportData:
    """The report.

    Attributes:
        made: when, UTC, ISO 8601.
        state: complete, running, or interrupted.
        network: or all of them, the first that of trial 0.
        blocks: names of the first network's L blocks, first to last; empty where they are not known.
        depths: the range of freeze depths that the trials span or the space allows.
        size: that the images were brought to, and why where it was chosen.
        asked: trials asked for.
        unfinished: trials that run or wait.
        winner: None while there is none.
        heat_map: every optimizer at every depth of `depths`, for each network.
        networks: what each network reached; empty where there is one.
        decisions: how far the winner's probabilities and decisions hold; None of studies before that was measured.
        importances: largest first; empty with too few trials.
        prior: in one line, or empty.
        findings: of the validation images, without pictures, or None.
        verdict: on the test images, without these on the validation images; None while no image was judged.
        wrong: test images that the winner has wrong, without pictures; None without test images, or where they could
            not be looked at.
        needs: classes to take more pictures of, the most needed first.
        stopped: trials that were stopped by what their maps show; empty by other rules.
        notes: what is missing from this report, and why.
    """

    study: str
    made: str
    state: str
    run_id: str
    experiment: str
    metric: str
    network: str
    blocks: tuple[str, ...]
    depths: tuple[int, int]
    images: str
    size: str
    asked: int
    unfinished: int
    winner: Tested | None
    rival: Rival | None
    cost: Cost
    trials: tuple[Trial, ...]
    heat_map: tuple[HeatCell, ...]
    importances: tuple[Importance, ...]
    prior: str
    scorecard: tuple[ScorerResult, ...]
    confusion: Confusion | None
    classes: tuple[ClassScores, ...]
    findings: Findings | None
    reproduction: Reproduction
    notes: tuple[str, ...]
    networks: tuple[NetworkResult, ...] = ()
    decisions: DecisionFacts | None = None
    verdict: Verdict | None = None
    wrong: WrongImages | None = None
    needs: tuple[ClassNeed, ...] = ()
    stopped: tuple[StoppedTrial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values and counts of them; NaN becomes None; pictures are left out."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["finished"] = len(self.trials)
        plain["networks_count"] = len(self.networks)
        plain["block_count"] = len(self.blocks)
        plain["depth_numbers"] = list(range(self.depths[0], self.depths[1] + 1))
        if self.findings is not None:
            del plain["findings"]["pictures"]
            plain["findings"]["pairs_shown"] = len(self.findings.pairs)
            plain["findings"]["suspects_shown"] = len(self.findings.suspects)
        if self.wrong is not None:
            del plain["wrong"]["pictures"]
            plain["wrong"]["first"] = min(self.wrong.pictured, FIRST_WRONG)
            plain["wrong"]["listed"] = self.wrong.found - self.wrong.pictured
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
