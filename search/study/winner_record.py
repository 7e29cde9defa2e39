"""What a study keeps of its tested winner. Nothing here loads Lightning, so that a study can be read quickly."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

__all__ = ["PACKAGES", "Winner", "package_versions", "recorded_winner"]

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
