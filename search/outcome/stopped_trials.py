"""What is said of the trials that `search.pruner=maps` stopped, as it is kept with the study's run."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

__all__ = ["STOPPED", "StoppedTrial", "read_stopped", "stopped_picture"]

STOPPED = "stopped/trials.json"
"""Artifact of the parent run: what `read_stopped` reads."""


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that was stopped at a rung.

    Attributes:
        epoch: of the rung, from 1.
        words: in which its maps are weaker than those ahead of it; empty where they are not.
        value: that number of the trial.
        others: its mean over the trials ahead.
        beside: slots of the trials in the picture, which went on.
        picture: whether there is one.
    """

    slot: int
    epoch: int
    words: str
    value: float | None
    others: float | None
    beside: tuple[int, ...]
    picture: bool = False


def stopped_picture(slot: int) -> str:
    """Artifact of the parent run with the picture of this trial."""
    return f"stopped/trial-{slot}.png"


def read_stopped(raw: bytes | None) -> tuple[StoppedTrial, ...]:
    """What `log_stopped` logged, none where it logged nothing or another version did."""
    try:
        return TypeAdapter(tuple[StoppedTrial, ...]).validate_json(raw) if raw is not None else ()
    except ValidationError:
        return ()
