"""A study as plain frozen values, read from its journal: for the report, and for notebooks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from lightning_modules.errors import InputError, printable
from search.evidence.record import Evidence, recorded_evidence
from search.outcome.scorecard import ScorecardRow, SeenDepth, scorecard, seen_depths
from search.study.storage import FINISHED, finished_trials, open_storage
from search.trial.result import TrialParams

if TYPE_CHECKING:
    import optuna

    from explain.subject import ImageExplanation

__all__ = [
    "PACKAGES",
    "Study",
    "Trial",
    "Winner",
    "choose_winner",
    "load_study",
    "open_study",
    "package_versions",
    "recorded_winner",
]

PACKAGES = ("thawline", "torch", "torchvision", "pytorch-lightning", "timm", "optuna", "mlflow", "numpy")


@dataclass(frozen=True)
class Winner:
    """The tested winner, as it is kept in the study's user attributes.

    Attributes:
        slot: of the winning trial.
        params: its parameters.
        value: its validation score.
        epochs: it was refitted for.
        refit: whether on training and validation images together.
        images: it was trained on, and tested on.
        test: test scores, None where there are no test images.
        intervals: their 95 % intervals.
        version: of the registered model.
        run_id: MLflow run that holds the model.
        seconds: of refit and test.
    """

    slot: int
    params: dict[str, Any]
    value: float
    epochs: int
    refit: bool
    images: tuple[int, int]
    test: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    version: str
    run_id: str
    seconds: float


def package_versions() -> dict[str, str]:
    """Package -> installed version, of what decides a result."""
    return {name: version(name) for name in PACKAGES}


def recorded_winner(study: optuna.Study) -> Winner | None:
    """The winner that was tested earlier, if the study has one."""
    raw = study.user_attrs.get("winner")
    if raw is None:
        return None
    tuples: dict[str, Any] = {"images": tuple(raw["images"])}
    if raw["intervals"] is not None:
        tuples["intervals"] = {k: tuple(v) for k, v in raw["intervals"].items()}
    return Winner(**{**raw, **tuples})


_SHOWN = 5  # names in the line on a study that does not exist


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        slot: its place in the study.
        optimizer: a name of `optimizers.OPTIMIZERS`.
        learning_rate: reference rate of the optimizer x lr_factor.
        lr_factor: times the reference learning rate.
        freeze_depth: leading blocks that stayed frozen, 0..L.
        fostering_beta: weight of the CAM entropy in the loss; None where it was not searched.
        value: best validation score of any epoch, in [0, 1]; 0 where training diverged.
        best_epoch: epoch of `value`, from 0.
        epochs: epochs trained, of all folds.
        outcome: complete, pruned or diverged.
        reason: why it was pruned or diverged, or empty.
        seconds: wall time.
        epoch_equivalents: cost in epochs of training everything.
        curve: validation score after each epoch.
        run_id: its MLflow run.
    """

    slot: int
    optimizer: str
    learning_rate: float
    lr_factor: float
    freeze_depth: int
    fostering_beta: float | None
    value: float
    best_epoch: int
    epochs: int
    outcome: str
    reason: str
    seconds: float
    epoch_equivalents: float
    curve: tuple[float, ...]
    run_id: str


@dataclass(frozen=True, eq=False)
class Study:
    """One study as its journal tells it.

    Attributes:
        name: of the study.
        root: folder of the MLflow store and the studies.
        metric: name of the validation score.
        identity: setting -> value of all that makes it this study, with the digests of data, splits and weights.
        trials: finished ones, by slot.
        unfinished: trials that run, wait, or were left open by a search that was killed.
        evidence: what the scorers said before the first trial, or None.
        winner: the tested winner, or None.
        run_id: its MLflow run, or None before it has one.
        test_reads: how often the test images were read.
    """

    name: str
    root: Path
    metric: str
    identity: dict[str, Any]
    trials: tuple[Trial, ...]
    unfinished: int
    evidence: Evidence | None
    winner: Winner | None
    run_id: str | None
    test_reads: int

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best score; of equals the deeper, cheaper freeze, then the earlier."""
        complete = [t for t in self.trials if t.outcome == "complete"]
        return max(complete, key=lambda t: (t.value, t.freeze_depth, -t.slot), default=None)

    @property
    def seen(self) -> dict[int, SeenDepth]:
        """Freeze depth -> what was reached there."""
        return seen_depths(finished_trials(open_study(self.root, self.name)))

    @property
    def scorecard(self) -> tuple[ScorecardRow, ...]:
        """How each scorer of the evidence did; empty without evidence."""
        return () if self.evidence is None else scorecard(self.evidence, self.seen)

    def frame(self) -> pd.DataFrame:
        """A row a finished trial, a column an attribute of `Trial` but for the curve; the index is the slot."""
        columns = [name for name in Trial.__dataclass_fields__ if name != "curve"]
        rows = [{name: getattr(trial, name) for name in columns} for trial in self.trials]
        return pd.DataFrame(rows, columns=columns).set_index("slot")

    def explain(self, image: str | Path, method: str = "layercam") -> ImageExplanation:
        """Maps of the winner's predicted class for one image file, at every block that has positions.

        Args:
            image: a file of any kind the search reads.
            method: a key of `explain.METHODS`.

        Raises:
            InputError: no winner yet, an unknown method, or no readable image.
        """
        from search.notebook import explain_image

        return explain_image(self, Path(image), method)

    def _repr_html_(self) -> str:
        from search.notebook import study_html

        return study_html(self)


def load_study(name: str, root: str | Path = "mlruns") -> Study:
    """Read a study; nothing is written, so it may be done while a search runs.

    Args:
        name: of the study, as `python -m search` prints it.
        root: `tracking.root` of the search.

    Raises:
        InputError: no such study (says which there are).

    Example:
        >>> from search import load_study
        >>> load_study("none of that name", root="no such folder")
        Traceback (most recent call last):
        ...
        lightning_modules.errors.InputError: there is no study 'none of that name' in no such folder: no studies yet; \
run python -m search first
    """
    root = Path(root)
    study = open_study(root, name)
    attrs = study.user_attrs
    all_trials = study.get_trials(deepcopy=False)
    identity = dict(attrs.get("identity", {}))
    return Study(
        name=name,
        root=root,
        metric=str(identity.get("search.metric", "score")),
        identity=identity,
        trials=tuple(_trial(t) for t in finished_trials(study)),
        unfinished=sum(t.state not in (*FINISHED, TrialState.FAIL) for t in all_trials),
        evidence=recorded_evidence(study),
        winner=recorded_winner(study),
        run_id=attrs.get("parent"),
        test_reads=int(attrs.get("test_reads", 0)),
    )


def open_study(root: Path, name: str) -> optuna.Study:
    """The Optuna study `name` under `root`, to be read only.

    Raises:
        InputError: no such study (says which there are).
    """
    folder = root / "studies"
    journals = [p for p in folder.glob("*.journal") if p.is_file()] if folder.is_dir() else []
    known = sorted(p.name.removesuffix(".journal") for p in journals)
    # Never a path made of the name: it comes from the user, and opening a journal creates it.
    if name not in known:
        there = "no studies yet; run python -m search first"
        if known:
            rest = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
            there = f"studies: {', '.join(printable(one) for one in known[:_SHOWN])}{rest}"
        raise InputError(f"there is no study {printable(name)!r} in {printable(root)}: {there}")
    try:
        return optuna.load_study(study_name=name, storage=open_storage(folder / f"{name}.journal"))
    except KeyError:
        raise InputError(f"{printable(folder / name)}.journal holds no study {printable(name)!r}") from None


def _trial(frozen: FrozenTrial) -> Trial:
    params, attrs = TrialParams(**frozen.params), frozen.user_attrs
    steps = sorted(frozen.intermediate_values)
    value = float(attrs["value"])
    return Trial(
        slot=int(attrs["slot"]),
        optimizer=params.optimizer,
        learning_rate=params.learning_rate,
        lr_factor=params.lr_factor,
        freeze_depth=params.freeze_depth,
        fostering_beta=frozen.params.get("fostering_beta"),
        value=value if math.isfinite(value) else 0.0,
        best_epoch=int(attrs["best_epoch"]),
        epochs=int(attrs["epochs"]),
        outcome=str(attrs["outcome"]),
        reason=str(attrs["reason"]),
        seconds=float(attrs["seconds"]),
        epoch_equivalents=float(attrs["epoch_equivalents"]),
        curve=tuple(float(frozen.intermediate_values[step]) for step in steps),
        run_id=str(attrs["run_id"]),
    )


def choose_winner(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best validation score; of equals the deeper, cheaper freeze, then the earlier."""
    complete = [t for t in finished_trials(study) if t.state is TrialState.COMPLETE]
    if not complete:
        return None
    return max(complete, key=lambda t: (t.values[0], t.params["freeze_depth"], -int(t.user_attrs["slot"])))
