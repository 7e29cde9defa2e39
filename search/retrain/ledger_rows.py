"""What the ledger of retraining says of a month and of a change of champion, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["MonthRow", "PromotionRow", "Role"]

Role = Literal["training", "held_out", "regression", "out"]
"""What an image is used for. `out`: tied by group or picture to both sides, so it is used for nothing."""


@dataclass(frozen=True)
class MonthRow:
    """One time a month was done, or is being done.

    Attributes:
        id: of the row.
        month: YYYY-MM.
        data_digest: of the month's images, labels and groups.
        settings_digest: of all settings that matter.
        images: of the month.
        why: why it is done: new, or what changed since it was done before.
        state: running, done or abandoned.
        outcome: bootstrap, promoted, kept or refused, once done.
        reason: of the outcome, in words with numbers.
        usable: whether later months may train on its images.
        run_id: its MLflow run.
        champion_before: version of the champion that met it.
        champion_after: version of the champion afterwards.
        challenger: version of the challenger, where there was one.
        started: time.
        finished: time.
        numbers: accuracies, cost and so on, by name.
    """

    id: int
    month: str
    data_digest: str
    settings_digest: str
    images: int
    why: str
    state: str
    outcome: str | None
    reason: str | None
    usable: bool
    run_id: str | None
    champion_before: str | None
    champion_after: str | None
    challenger: str | None
    started: str
    finished: str | None
    numbers: dict[str, Any]


@dataclass(frozen=True)
class PromotionRow:
    """One change of the champion.

    Attributes:
        id: of the row.
        kind: bootstrap, promotion or rollback.
        month: that brought it about, where one did.
        from_version: champion before, None for the first.
        to_version: champion after.
        previous_version: what the alias `previous` names after, None for nothing.
        reason: in words with numbers.
        numbers: by name.
        run_id: its MLflow run.
        state: decided (aliases may not have moved yet) or done.
        decided: time.
        finished: time.
    """

    id: int
    kind: str
    month: str | None
    from_version: str | None
    to_version: str
    previous_version: str | None
    reason: str
    numbers: dict[str, Any]
    run_id: str | None
    state: str
    decided: str
    finished: str | None
