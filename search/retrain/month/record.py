"""What the steps of a month find, as plain values that go through JSON, and the record of the month made of them.

The ledger keeps what a step found, the month's MLflow run its record. `MonthRecord.metrics()` and `.tags()` are what
the run holds of it; every number on the page names the metric it is, every sentence with numbers the tag. C classes
are numbered in the order of `classes`. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from search.retrain.month.decisions import MonthDecisions
from search.retrain.month.stored import Known, Stored

__all__ = [
    "LEVEL", "MATRIX_CLASSES", "PLACES", "SCALARS", "Action", "BlockFinding", "BlockShift", "ClassComparison",
    "Comparison", "DataCheck", "Decision", "DepthDecision", "Drift", "ModelFacts", "MonthRecord", "Outcome",
    "PictureFacts", "ScorePair", "SearchFacts", "Shift", "comparison_metrics", "confused",
]  # fmt: skip

LEVEL = 0.05
"""Adjusted p-values below it count as a change: one month in twenty is named where nothing changes, by family."""

SCALARS = {"brightness": "brightness", "contrast": "contrast", "confidence": "the champion's confidence"}
"""What drift compares of each image as one number, and its name in a sentence."""

_CHANGED = {
    "brightness": ("The images are darker", "The images are brighter"),
    "contrast": ("The images have less contrast", "The images have more contrast"),
    "confidence": ("The champion is less sure", "The champion is surer"),
}
"""What a fall and a rise of each mean."""

PLACES = ("newest", "regression", "others")
"""Images on which champion and challenger are compared."""

MATRIX_CLASSES = 20
"""Up to so many classes the page shows whole confusion matrices, beyond it the commonest confusions."""

_MOST_CONFUSIONS = 30

Action = Literal["none", "head", "thaw", "search"]
Outcome = Literal["promoted", "kept", "not needed", "refused"]
"""Of a month: the challenger was promoted; it was tested and the champion kept; no challenger was asked for (depth of
retraining "none"); or the data were refused."""
Confusion = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DataCheck(Stored):
    """What step 1 found: why the month is refused (or None), sentences for the user, classes that the champion does not
    know, how many images have no contrast, and the month's images by class."""

    refusal: str | None
    notes: tuple[str, ...]
    new_classes: tuple[str, ...]
    flat: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Shift:
    """One statistic of old against new.

    Attributes:
        name: features, label_mix, brightness, contrast or confidence.
        statistic: squared MMD of the features (>= 0 in expectation, 0 without drift, at most 2); Pearson's chi-square
            of the classes; largest distance of two distribution functions (KS, in [0, 1]) of the others.
        p_value: of the permutations, at least 1 / (P + 1).
        adjusted: after Holm over these five.
        old: mean of the old images, where it is one number an image; else NaN.
        new: mean of the new ones.
    """

    name: str
    statistic: float
    p_value: float
    adjusted: float
    old: Known = math.nan
    new: Known = math.nan

    @property
    def seen(self) -> bool:
        """Whether the change is significant."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class BlockShift:
    """How far one block's maps have moved.

    Attributes:
        statistic: the largest KS distance of its measures, in [0, 1].
        p_value: of the permutations, of that largest one.
        adjusted: after Holm over the L blocks.
        measures: KS distance by measure (entropy, area, dispersion).
    """

    block: str
    statistic: float
    p_value: float
    adjusted: float
    measures: dict[str, float]

    @property
    def seen(self) -> bool:
        """Whether the change is significant."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class Drift(Stored):
    """Everything that was compared.

    Attributes:
        images: in the old sample, and in the new one.
        groups: likewise; as many as images where no groups are known.
        shifts: features, label_mix, brightness, contrast, confidence.
        blocks: by block, first to last.
        counts: class -> (old images, new images), of the whole sets, in the order of the old classes, then new ones.
    """

    images: tuple[int, int]
    groups: tuple[int, int]
    permutations: int
    shifts: tuple[Shift, ...]
    blocks: tuple[BlockShift, ...]
    counts: dict[str, tuple[int, int]]

    def __getitem__(self, name: str) -> Shift:
        """A shift by name; KeyError if there is none."""
        return {shift.name: shift for shift in self.shifts}[name]

    def lines(self) -> list[str]:
        """What has changed, a sentence each; what has not, in the last one."""
        said = []
        for name, (less, more) in _CHANGED.items():
            shift = self[name]
            if shift.seen:
                words = more if shift.new > shift.old else less
                said.append(f"{words}: {shift.new:.3f} on average, before {shift.old:.3f}.")
        if self["label_mix"].seen:
            said.append(f"The mix of classes changed: {self._moved()}.")
        if self["features"].seen:
            said.append("To the champion the images look different from those that it was tested on.")
        if moved := [block.block for block in self.blocks if block.seen]:
            said.append(f"It looks elsewhere: {len(moved)} of its {len(self.blocks)} blocks ({', '.join(moved)}).")
        still = [{**SCALARS, "label_mix": "the mix of classes", "features": "what the champion sees"}[shift.name]
                 for shift in self.shifts if not shift.seen]  # fmt: skip
        still += [] if moved else ["where it looks"]
        if still:
            said.append(
                f"No change is shown of {', '.join(still)}, with {self.images[0]} old and {self.images[1]} new images."
            )
        return said

    def metrics(self) -> dict[str, float]:
        """Flat numbers for MLflow; what is not known is left out."""
        found = {"drift_images_old": float(self.images[0]), "drift_images_new": float(self.images[1])}
        for shift in self.shifts:
            found[f"drift_{shift.name}"] = shift.statistic
            found[f"drift_{shift.name}_p"] = shift.adjusted
            for when in ("old", "new"):
                if not math.isnan(mean := getattr(shift, when)):
                    found[f"drift_{shift.name}_{when}"] = mean
        for block in self.blocks:
            found[f"drift_maps/{block.block}"] = block.statistic
            found[f"drift_maps_p/{block.block}"] = block.adjusted
        return found

    def _moved(self) -> str:
        """The three classes whose share moved most."""
        old, new = (max(1, sum(pair[which] for pair in self.counts.values())) for which in (0, 1))
        shares = {name: (a / old, b / new) for name, (a, b) in self.counts.items()}
        most = sorted(shares, key=lambda name: -abs(shares[name][1] - shares[name][0]))[:3]
        return ", ".join(f"{name} {shares[name][0]:.0%} → {shares[name][1]:.0%}" for name in most)


@dataclass(frozen=True)
class BlockFinding:
    """What is known of one block.

    Attributes:
        shift: how far its maps moved, largest KS distance, in [0, 1].
        p_value: of it, adjusted.
        moved: whether that is more than chance.
        probe: accuracy on new images of a linear classifier on its output; NaN where it could not be fitted.
    """

    shift: float
    p_value: float
    moved: bool
    probe: Known


@dataclass(frozen=True)
class DepthDecision(Stored):
    """How deep to retrain.

    Attributes:
        action: "none", "head" (the head alone), "thaw" (blocks from `depth` on, and the head) or "search".
        depth: freeze depth to retrain at: L for head, 0..L-1 for thaw, None for the others.
        reason: in words, with the numbers.
        by_block: by block, first to last.
        reference: r, the share of old images right; `reference_images` of them.
        accuracy: a, the share of new images right; `images` of them.
        loss: r - a with its 95 % interval (value, low, high).
        features_p: adjusted p-value of the features' MMD.
        by_maps: whether maps chose from which block on is trained, where accuracies asked for that; False where
            accuracies chose the depth alone. None in records of before.
    """

    action: Action
    depth: int | None
    reason: str
    by_block: Mapping[str, BlockFinding]
    reference: float
    reference_images: int
    accuracy: float
    images: int
    loss: tuple[float, float, float]
    features_p: float
    new_classes: tuple[str, ...] = field(default=())
    by_maps: bool | None = None

    def metrics(self) -> dict[str, float]:
        """Flat numbers for MLflow; what is not known is left out."""
        found = {
            "depth_reference_accuracy": self.reference,
            "depth_accuracy": self.accuracy,
            "depth_loss": self.loss[0],
            "depth_loss_low": self.loss[1],
            "depth_loss_high": self.loss[2],
        }
        if self.depth is not None:
            found["depth_chosen"] = float(self.depth)
        found |= {f"depth_probe/{name}": b.probe for name, b in self.by_block.items() if not math.isnan(b.probe)}
        return found


@dataclass(frozen=True)
class ScorePair:
    """One score of both models, in [0, 1], and challenger minus champion with its 95 % interval."""

    champion: float
    challenger: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassComparison:
    """Recall of one class, in images: how many there are, and how many of them champion and challenger have right."""

    name: str
    images: int
    champion: int
    challenger: int

    @property
    def fall(self) -> float:
        """Champion's recall minus challenger's, in [-1, 1]; NaN without images."""
        return (self.champion - self.challenger) / self.images if self.images else math.nan


@dataclass(frozen=True)
class Comparison(Stored):
    """Two models on the same images.

    Attributes:
        accuracy: with Tango's score interval for paired proportions (`significance.paired_interval`).
        macro_f1: mean over the classes that occur in labels or in the predictions of one of the two, the same for
            both; with a percentile bootstrap interval over images, resampled in pairs and within each class.
        only_champion: images that the champion alone has right.
        only_challenger: images that the challenger alone has right.
        mcnemar_p: McNemar's test, exact and two-sided: such images are as likely one way as the other. 1 where there
            are none.
        smallest_detectable: smallest true difference of accuracy that McNemar's test finds among so many images with
            80 % power, at the discordance observed (`significance.smallest_detectable`).
        per_class: by class, in the order of the outputs.
        confusion_champion: counts, row = true class, column = predicted class.
        confusion_challenger: likewise.
    """

    n: int
    accuracy: ScorePair
    macro_f1: ScorePair
    only_champion: int
    only_challenger: int
    mcnemar_p: float
    smallest_detectable: float
    per_class: tuple[ClassComparison, ...]
    confusion_champion: Confusion
    confusion_challenger: Confusion


@dataclass(frozen=True)
class Decision(Stored):
    """Whether the challenger takes the champion's place, why in one sentence with the numbers, and every condition as
    (words with the numbers, whether it holds); it does where all hold."""

    promote: bool
    reason: str
    checks: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """One model in words; the version is empty where it was never registered."""

    version: str
    description: str
    trained_on: str = ""

    def describe(self) -> str:
        """All of it in words."""
        version = f"version {self.version}" if self.version else ""
        trained = f"trained on {self.trained_on}" if self.trained_on else ""
        return "; ".join(part for part in (version, self.description, trained) if part)


@dataclass(frozen=True)
class SearchFacts:
    """What the month's search did: finished trials, seconds of the whole retraining (decision and refit included), cost
    in epochs of training everything, parameters of the winner by name."""

    trials: int
    seconds: float
    epoch_equivalents: float
    best: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureFacts:
    """One image of the page: its label, predicted class and probability of each model (None: no challenger), and why it
    is shown, in words without numbers."""

    path: str
    truth: str
    champion: tuple[str, float]
    challenger: tuple[str, float] | None
    why: str


@dataclass(frozen=True)
class MonthRecord(Stored):
    """Everything the page of a month shows.

    Attributes:
        made: when, ISO 8601.
        classes: the C class names, by output of the challenger (or champion, where there is no challenger).
        images: how many images the month has by use, such as {"training": 60, "selection": 15, "promotion": 25}.
        champion: the model in use when the month began.
        champion_scores: of the champion on the month's images: name (accuracy, macro_f1, ...) -> value, lower and upper
            end of its 95 % interval; `champion_images` of them.
        data_notes: what the checks said, a sentence each: new and vanished classes, a class mix far off.
        left_out: (path, reason) of images that were set aside.
        drift: against the champion's baseline; None where it could not be measured.
        depth: the decision; None where it was not asked for.
        depth_setting: value of retrain.depth: auto decides, everything else overrides.
        search: None where nothing was trained.
        newest: on the promotion images; None without challenger.
        regression: on the regression set; None where there is none.
        others: on held-out images of other months; None where there are none.
        decision: of the promotion rule, or why there was none.
        pictures: the most informative of the images that neither model was trained on (`pictures.informative`).
        suspects: images whose label is suspect (`pictures.suspect`).
        suspects_rule: by which rule they were found, in words.
        cautions: what the reader should know, a sentence each.
        decisions: whether the champion's probabilities and sets hold; None where it is not calibrated.
    """

    month: str
    made: str
    command: str
    model_name: str
    run_id: str
    classes: tuple[str, ...]
    outcome: Outcome
    images: dict[str, int]
    champion: ModelFacts
    champion_scores: dict[str, tuple[Known, Known, Known]]
    champion_images: int
    decision: Decision
    margin: float
    guard: float
    challenger: ModelFacts | None = None
    data_notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    drift: Drift | None = None
    depth: DepthDecision | None = None
    depth_setting: str = "auto"
    search: SearchFacts | None = None
    newest: Comparison | None = None
    regression: Comparison | None = None
    others: Comparison | None = None
    pictures: tuple[PictureFacts, ...] = ()
    suspects: tuple[PictureFacts, ...] = ()
    suspects_rule: str = ""
    cautions: tuple[str, ...] = ()
    decisions: MonthDecisions | None = None

    def metrics(self) -> dict[str, float]:
        """Every number of the page under the name it has there; what is not known is left out."""
        found: dict[str, float] = {f"month_images/{use}": float(count) for use, count in self.images.items()}
        found["month_left_out"] = float(len(self.left_out))
        found["champion_images"] = float(self.champion_images)
        for name, (value, low, high) in self.champion_scores.items():
            found |= {f"champion_{name}": value, f"champion_{name}_low": low, f"champion_{name}_high": high}
        found |= {"retrain_margin": self.margin, "retrain_guard": self.guard}
        if self.drift is not None:
            found |= self.drift.metrics()
            for number, (old, new) in enumerate(self.drift.counts.values()):
                found |= {f"class_images_old/{number}": float(old), f"class_images_new/{number}": float(new)}
        if self.decisions is not None:
            found |= self.decisions.metrics()
        if self.depth is not None:
            found |= self.depth.metrics()
        if self.search is not None:
            found["search_trials"] = float(self.search.trials)
            found["search_seconds"] = self.search.seconds
            found["search_epoch_equivalents"] = self.search.epoch_equivalents
        for place in PLACES:
            if (comparison := getattr(self, place)) is not None:
                found |= comparison_metrics(place, comparison)
        if self.newest is not None:
            for who, true, predicted, count in confused(self.newest):
                found[f"newest_confusion_{who}/{true}/{predicted}"] = float(count)
        for kind, shown in (("picture", self.pictures), ("suspect", self.suspects)):
            found[f"{kind}s"] = float(len(shown))
            for number, one in enumerate(shown, start=1):
                found[f"{kind}_champion_probability/{number}"] = one.champion[1]
                if one.challenger is not None:
                    found[f"{kind}_challenger_probability/{number}"] = one.challenger[1]
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def tags(self) -> dict[str, str]:
        """Every sentence of the page that may hold numbers, under the name it has there."""
        found = {"month": self.month, "outcome": self.outcome, "decision": self.decision.reason}
        found |= {f"decision_check/{i}": words for i, (words, _) in enumerate(self.decision.checks)}
        for role, model in (("champion", self.champion), ("challenger", self.challenger)):
            if model is not None:
                found[f"{role}_model"] = model.describe()
        if self.search is not None and self.search.best:
            found["best_parameters"] = "; ".join(f"{k.replace('_', ' ')} {v}" for k, v in self.search.best.items())
        if self.drift is not None:
            found |= {f"drift/{i}": line for i, line in enumerate(self.drift.lines())}
        if self.decisions is not None:
            found |= {f"decisions/{i}": line for i, line in enumerate(self.decisions.lines())}
        if self.depth is not None:
            found["depth_reason"] = self.depth.reason
        found |= {f"data_note/{i}": note for i, note in enumerate(self.data_notes)}
        found |= {f"caution/{i}": note for i, note in enumerate(self.cautions)}
        return found


def comparison_metrics(prefix: str, comparison: Comparison) -> dict[str, float]:
    """Flat numbers of a comparison for MLflow, their names beginning with `prefix`, one of `PLACES`."""
    found = {f"{prefix}_images": float(comparison.n)}
    for name, pair in (("accuracy", comparison.accuracy), ("macro_f1", comparison.macro_f1)):
        found |= {f"{prefix}_{name}_{part}": value for part, value in asdict(pair).items()}
    for name in ("only_champion", "only_challenger", "mcnemar_p", "smallest_detectable"):
        found[f"{prefix}_{name}"] = float(getattr(comparison, name))
    for number, one in enumerate(comparison.per_class):
        found[f"{prefix}_class_images/{number}"] = float(one.images)
        found[f"{prefix}_class_champion/{number}"] = float(one.champion)
        found[f"{prefix}_class_challenger/{number}"] = float(one.challenger)
    return found


def confused(comparison: Comparison) -> Iterator[tuple[str, int, int, int]]:
    """Cells of both confusion matrices that the page shows: (who, true class, predicted class, images).

    All that are not 0; of more than 20 classes the thirty commonest confusions of each model.
    """
    for who in ("champion", "challenger"):
        rows = getattr(comparison, f"confusion_{who}")
        cells = [(true, predicted, n) for true, row in enumerate(rows) for predicted, n in enumerate(row) if n]
        if len(rows) > MATRIX_CLASSES:
            wrong = [cell for cell in cells if cell[0] != cell[1]]
            cells = sorted(wrong, key=lambda cell: -cell[2])[:_MOST_CONFUSIONS]
        yield from ((who, *cell) for cell in cells)
