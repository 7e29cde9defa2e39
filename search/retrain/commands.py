"""What `python -m search.retrain` does, by its first word: the months that are due, `rollback`, `history`."""

from __future__ import annotations

from contextlib import closing
from textwrap import wrap

from rich.console import Console

from lightning_modules.errors import InputError, printable
from search.command_line.exits import until_interrupted
from search.command_line.plain_line import print_line
from search.invocation import typed
from search.retrain.champion import known_versions, line_of_champions, load_version, settle
from search.retrain.ledger import Ledger, PromotionRow, ledger_path
from search.settings.schema import Settings
from search.tracking.store import readable
from search.tracking.tracker import Tracker

__all__ = ["history", "retrain", "rollback"]


def retrain(settings: Settings, console: Console, *, month: str | None, command: str) -> int:
    """Do the months that are due; returns the exit code."""
    from search.retrain.driver import run_months

    def work() -> int:
        outcomes = run_months(settings, console, month=month, command=command)
        return int(any(outcome.outcome == "refused" for outcome in outcomes))

    return until_interrupted("retrain", work)


def rollback(settings: Settings, console: Console, *, reason: str, to: str | None = None) -> int:
    """Put the previous champion back, or the former one `to`; returns the exit code."""
    root = settings.tracking.root
    if not ledger_path(root).is_file():
        raise InputError(
            f"nothing to roll back: no file {printable(ledger_path(root))}; run {typed('retrain', root=root)}"
        )
    from search.retrain.driver import owned_model

    name, tracker = settings.tracking.model_name, Tracker.of(settings.tracking)
    with owned_model(settings), closing(Ledger(root, name)) as ledger:
        done = _roll_back(settings, ledger, tracker, reason, to)
    console.print(
        f"Champion: version {done.to_version}, rolled back from version {done.from_version}.", highlight=False
    )
    return 0


def _roll_back(settings: Settings, ledger: Ledger, tracker: Tracker, reason: str, to: str | None) -> PromotionRow:
    """Make the champion before this one champion again, or the former one `to`; the other becomes `previous`.

    A rollback that was killed before the aliases moved is finished by the next call, which then does no other. Nothing
    is written before the version that is put back has been loaded.

    Raises:
        InputError: there is no champion, none before it, or it cannot be loaded.
    """
    name, decided = settings.tracking.model_name, ledger.promotions()
    gone = bool(decided) and decided[-1].to_version not in known_versions(ledger, tracker, name)
    last = decided[-1] if gone else settle(ledger, tracker, name)
    if last is None:
        raise InputError(
            f"model {name} has no champion yet, so there is nothing to roll back; run "
            + typed("retrain", root=settings.tracking.root)
        )
    if last.kind == "rollback" and last.state != "done" and not gone and to in (None, last.to_version):
        return ledger.promotions()[-1]
    former = list(dict.fromkeys(row.to_version for row in decided))
    target = to or next(iter(line_of_champions(decided)[-2::-1]), None)
    if target is None:
        later = [version for version in former if version != last.to_version]
        way = f"; rollback to={later[-1]} reason=TEXT puts a later one back" if later else ""
        raise InputError(
            f"version {last.to_version} is the first champion of model {name}, so there is none before it{way}"
        )
    if target not in former or target == last.to_version:
        others = ", ".join(version for version in former if version != last.to_version) or "none"
        raise InputError(
            f"to must be a version that was champion before, got {target!r}; those of model {name}: {others}"
        )
    load_version(settings.tracking.root, ledger, tracker, name, target)
    key = f"rollback of {name}"
    tracker.kill_open_study(key)  # of a call that was killed before it decided
    run_id = tracker.start_parent(
        f"{name} rollback",
        {"from_version": last.to_version, "to_version": target},
        {"study": key, "kind": "rollback", "model_name": name, "decision": reason},
    )
    tracker.finish(run_id, "FINISHED")
    ledger.decide(
        kind="rollback",
        from_version=last.to_version,
        to_version=target,
        previous_version=None if gone else last.to_version,
        reason=reason,
        run_id=run_id,
    )
    settle(ledger, tracker, name)
    return ledger.promotions()[-1]


def history(settings: Settings, console: Console) -> int:
    """Print every change of champion; returns the exit code."""
    name = settings.tracking.model_name
    with readable(ledger_path(settings.tracking.root)) as file, closing(Ledger(file.parent, name)) as ledger:
        _print_history(console, ledger, name)
    return 0


def _print_history(console: Console, ledger: Ledger, model_name: str) -> None:
    """Every change of champion: when, from, to, numbers, why; then the months that changed nothing."""
    rows = ledger.promotions()
    if not rows:
        console.print(f"Model {model_name} has had no champion yet.", highlight=False, markup=False)
        return
    console.print(f"Champions of model {model_name}", highlight=False, markup=False)
    for row in rows:
        what = f"{row.kind} {row.month}" if row.month and row.kind != "bootstrap" else row.kind
        change = f"version {row.to_version}" if row.from_version is None else f"{row.from_version} -> {row.to_version}"
        numbers = "" if (accuracy := _accuracies(row)) == "-" else f"  accuracy {accuracy}"
        console.print(f"{row.decided[:10]}  {what:<18}  {change:<12}{numbers}", highlight=False, markup=False)
        for line in wrap(row.reason, max(40, min(console.width, 100) - 4), break_on_hyphens=False):
            console.print(f"    {line}", highlight=False, markup=False)
    done = [one for one in ledger.latest().values() if one.outcome in ("kept", "not needed", "refused")]
    for one in sorted(done, key=lambda one: one.month):
        said = f"refused: {one.reason}" if one.outcome == "refused" else one.reason
        print_line(console, f"{one.month}: {said}")


def _accuracies(row: PromotionRow) -> str:
    """Of the champion before and after, on the newest held-out images."""
    before, after = row.numbers.get("accuracy_before"), row.numbers.get("accuracy_after")
    if before is None or after is None:
        first = row.numbers.get("regression_after")
        return "-" if first is None else f"{first:.3f}"
    return f"{before:.3f}->{after:.3f}"
