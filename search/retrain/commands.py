"""What `python -m search.retrain` does, by its first word."""

from __future__ import annotations

from rich.console import Console

from lightning_modules.errors import InputError, printable
from search.command_line.exits import until_interrupted
from search.retrain.history import print_history, roll_back
from search.retrain.ledger import Ledger, ledger_path
from search.settings.schema import Settings

__all__ = ["history", "retrain", "rollback"]


def retrain(settings: Settings, console: Console, *, month: str | None, command: str) -> int:
    """Do the months that are due; returns the exit code."""
    from search.retrain.driver import run_months

    def work() -> int:
        outcomes = run_months(settings, console, month=month, command=command)
        return int(any(outcome.outcome == "refused" for outcome in outcomes))

    return until_interrupted("retrain", work)


def rollback(settings: Settings, console: Console, *, reason: str) -> int:
    """Put the previous champion back; returns the exit code."""
    root = settings.tracking.root
    if not ledger_path(root).is_file():
        raise InputError(f"nothing to roll back: no file {printable(ledger_path(root))}; run python -m search.retrain")
    from search.retrain.driver import owned_model
    from search.tracking.tracker import Tracker

    with owned_model(settings):
        ledger = Ledger(root, settings.tracking.model_name)
        try:
            done = roll_back(settings, ledger, Tracker(root, settings.tracking.experiment), reason=reason)
        finally:
            ledger.close()
    console.print(
        f"Champion: version {done.to_version}, rolled back from version {done.from_version}.", highlight=False
    )
    return 0


def history(settings: Settings, console: Console) -> int:
    """Print every change of champion; returns the exit code."""
    ledger = Ledger(settings.tracking.root, settings.tracking.model_name)
    try:
        print_history(console, ledger, settings.tracking.model_name)
    finally:
        ledger.close()
    return 0
