"""Where the files of a study's trials lie while it runs: those that go on later, and the networks of the best."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

__all__ = ["TrialFiles", "network_file"]


class TrialFiles:
    """Files of a study's trials; gone when the study is complete.

    Args:
        folder: of the files, made with the first; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def of(cls, journal: Path) -> TrialFiles:
        """Of the study with this journal. Their paths are absolute: a worker's working folder may be another."""
        return cls(journal.absolute().with_name(f"{journal.name.removesuffix('.journal')}.waiting"))

    def checkpoint(self, slot: int, attempt: int = 0) -> Path | None:
        """File in which an attempt at the trial of a slot waits; its network lies beside it.

        A worker on a machine that could not be reached may still write while the next attempt runs elsewhere: to a file
        that nobody reads any more.
        """
        which = f".attempt-{attempt}" if attempt else ""
        return self._folder / f"slot-{slot}{which}.pt" if self._folder is not None else None

    def take_over(self, slot: int, attempt: int) -> Path | None:
        """The same, from which the attempt goes on: what the latest before it left is its own now.

        Raises:
            OSError: the folder is not writable.
        """
        own = self.checkpoint(slot, attempt)
        for earlier in (self.checkpoint(slot, before) for before in reversed(range(attempt))):
            if own is not None and earlier is not None and earlier.is_file():
                earlier.replace(own)
                break
        return own

    def settle(self, slot: int, attempt: int) -> None:
        """Let the network of a complete trial lie where it is looked for, whichever attempt it is of.

        Raises:
            OSError: the folder is not writable.
        """
        own, there = self.checkpoint(slot, attempt), self.checkpoint(slot)
        if attempt and own is not None and there is not None and network_file(own).is_file():
            network_file(own).replace(network_file(there))

    def leave(self, slot: int, *, best: Collection[int], before: Collection[int]) -> None:
        """Remove what a trial that has ended leaves, and the networks of those that were among the best before it.

        Args:
            best: slots of the trials whose networks would answer together now.
            before: the same without this one. Other networks are of trials whose end the driver does not know.

        Raises:
            OSError: the folder is not writable.
        """
        if self._folder is None or not self._folder.is_dir():
            return
        for checkpoint in (self._folder / f"slot-{slot}.pt", *self._folder.glob(f"slot-{slot}.attempt-*")):
            checkpoint.unlink(missing_ok=True)
        for other in {slot, *before} - set(best):
            network_file(self._folder / f"slot-{other}.pt").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all files, once the study is complete and reported, or begun anew."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def network_file(checkpoint: Path, fold: int | None = 0) -> Path:
    """Where the network of the trial with this checkpoint is kept.

    Args:
        fold: on whose training images it was trained; None for one that was trained on all.
    """
    which = "" if fold == 0 else ".all" if fold is None else f".fold-{fold}"
    return checkpoint.with_name(f"{checkpoint.stem}{which}.network.pt")
