"""The record of one month: all that its page shows, as plain values that go through JSON.

`MonthRecord.metrics()` and `.tags()` are what the month's MLflow run holds of it; every number on the page names the
metric it is, every sentence with numbers the tag. C classes are numbered in the order of `classes`. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from search.retrain.month.comparison import Comparison, Decision

if TYPE_CHECKING:
    from search.retrain.month.depth_decision import DepthDecision
    from search.retrain.month.drift import Drift

__all__ = [
    "MATRIX_CLASSES", "PLACES", "ModelFacts", "MonthRecord", "Outcome", "PictureFacts", "SearchFacts",
    "comparison_metrics", "confused",
]  # fmt: skip

MATRIX_CLASSES = 20
"""Up to so many classes the page shows whole confusion matrices, beyond it the commonest confusions."""

PLACES = ("newest", "regression", "others")
"""Images on which champion and challenger are compared."""

_MOST_CONFUSIONS = 30

Outcome = Literal["promoted", "kept", "not needed", "refused"]
"""Of a month: the challenger was promoted; it was tested and the champion kept; no challenger was asked for (depth of
retraining "none"); or the data were refused."""


@dataclass(frozen=True)
class ModelFacts:
    """One model in words.

    Attributes:
        version: in the registry; empty where it was never registered.
        description: optimizer, learning rate, freeze depth and the like.
        trained_on: months or images it was trained on.
    """

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
    """What the month's search did.

    Attributes:
        trials: finished ones.
        seconds: of the whole retraining, decision and refit included.
        epoch_equivalents: cost in epochs of training everything.
        best: parameters of the winner, by name.
    """

    trials: int
    seconds: float
    epoch_equivalents: float
    best: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureFacts:
    """One image of the page.

    Attributes:
        path: of the image.
        truth: its label.
        champion: predicted class and its probability.
        challenger: likewise; None where there is no challenger.
        why: why it is shown, in words without numbers.
    """

    path: str
    truth: str
    champion: tuple[str, float]
    challenger: tuple[str, float] | None
    why: str


@dataclass(frozen=True)
class MonthRecord:
    """Everything the page of a month shows.

    Attributes:
        month: YYYY-MM.
        made: when, ISO 8601.
        command: that did it.
        model_name: of the registry.
        run_id: MLflow run of the month.
        classes: the C class names, by output of the challenger (or champion, where there is no challenger).
        outcome: see `Outcome`.
        images: how many images the month has by use, such as {"training": 60, "selection": 15, "promotion": 25}.
        champion: the model in use when the month began.
        champion_scores: of the champion on the month's images: name (accuracy, macro_f1, ...) -> value, lower and upper
            end of its 95 % interval; `champion_images` of them.
        champion_images: see there.
        challenger: None where none was trained.
        data_notes: what the checks said, a sentence each: new and vanished classes, a class mix far off.
        left_out: (path, reason) of images that were set aside.
        drift: against the champion's baseline; None where it could not be measured.
        depth: the decision; None where it was not asked for.
        depth_setting: value of retrain.depth: auto decides, everything else overrides.
        search: None where nothing was trained.
        newest: on the promotion images; None without challenger.
        regression: on the regression set; None where there is none.
        others: on held-out images of other months; None where there are none.
        margin: of the promotion rule.
        guard: of the promotion rule.
        decision: of the promotion rule, or why there was none.
        pictures: the most informative of the images that neither model was trained on (`pictures.informative`).
        suspects: images whose label is suspect (`pictures.suspect`).
        suspects_rule: by which rule they were found, in words.
        cautions: what the reader should know, a sentence each.
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
    champion_scores: dict[str, tuple[float, float, float]]
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
        if self.depth is not None:
            found["depth_reason"] = self.depth.reason
        found |= {f"data_note/{i}": note for i, note in enumerate(self.data_notes)}
        found |= {f"caution/{i}": note for i, note in enumerate(self.cautions)}
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file or a ledger; NaN becomes None."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("drift", "depth", *PLACES, "decision"):
            plain[name] = None if plain[name] is None else plain[name].to_json()
        for name in ("champion", "challenger", "search"):
            plain[name] = None if plain[name] is None else asdict(plain[name])
        for name in ("pictures", "suspects"):
            plain[name] = [asdict(one) for one in plain[name]]
        plain["champion_scores"] = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in self.champion_scores.items()
        }
        return plain

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> MonthRecord:
        """What `to_json` gave, also after a way through JSON."""
        from search.retrain.month.depth_decision import DepthDecision
        from search.retrain.month.drift import Drift

        found = dict(values)
        for name in PLACES:
            found[name] = None if found[name] is None else Comparison.from_json(found[name])
        for name, kind in (("drift", Drift), ("depth", DepthDecision), ("decision", Decision)):
            found[name] = None if found[name] is None else kind.from_json(found[name])
        for name, facts in (("champion", ModelFacts), ("challenger", ModelFacts), ("search", SearchFacts)):
            found[name] = None if found[name] is None else facts(**found[name])
        for name in ("pictures", "suspects"):
            found[name] = tuple(_picture(one) for one in found[name])
        for name in ("classes", "data_notes", "cautions"):
            found[name] = tuple(found[name])
        found["left_out"] = tuple((path, reason) for path, reason in found["left_out"])
        found["champion_scores"] = {
            name: tuple(math.nan if value is None else value for value in values)
            for name, values in found["champion_scores"].items()
        }
        return MonthRecord(**found)


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


def _picture(raw: Mapping[str, Any]) -> PictureFacts:
    challenger = None if raw["challenger"] is None else (raw["challenger"][0], raw["challenger"][1])
    return PictureFacts(raw["path"], raw["truth"], (raw["champion"][0], raw["champion"][1]), challenger, raw["why"])
