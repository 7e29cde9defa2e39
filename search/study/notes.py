"""What the runs and models of a search are called and say of themselves in MLflow's UI: names, Markdown notes, tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.tracking.tracker import NOTE
from search.trial.result import TrialParams
from search.words import duration, epoch_count, interval_known, times

if TYPE_CHECKING:
    from lightning_modules.training.scores import TestScores
    from search.study.record import TrialRecord, Winner
    from search.trial.task import Task

__all__ = [
    "begun_note",
    "map_metrics",
    "outcome_tags",
    "run_name",
    "start_tags",
    "study_note",
    "version_note",
]


def run_name(slot: int, params: TrialParams) -> str:
    """Name of a trial's run, such as `t07 nag depth 3`; its columns say the rest."""
    network = "" if params.network is None else f"{params.network} "
    beta = "" if params.fostering_beta is None else f" beta={params.fostering_beta:g}"
    return f"t{slot:02d} {network}{params.optimizer} depth {params.freeze_depth}{beta}"


def start_tags(params: TrialParams, study: str, prior: str) -> dict[str, Any]:
    """Tags that a trial's run starts with: what to filter by, and its description.

    Args:
        prior: what its freeze depth was drawn from, uniform where that was left to the sampler.
    """
    return {
        "study": study,
        "optimizer": params.optimizer,
        "freeze_depth": params.freeze_depth,
        **({} if params.network is None else {"network": params.network}),
        "prior": prior,
        "status": "running",
        NOTE: _phrase(params),
    }


def map_metrics(maps: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a trial's maps say at a rung, as metrics of its run: by statistic and, where it has any, block."""
    return {
        "_".join(["maps", name, *([block] if block else [])]): value
        for name, by_block in maps.items()
        for block, value in by_block.items()
    }


def outcome_tags(
    params: TrialParams, metric: str, outcome: str, reason: str, numbers: Mapping[str, Any]
) -> dict[str, str]:
    """Tags of a trial that ended, failed or waits: what became of it, why, and a description with its key figures.

    Args:
        outcome: complete, pruned, diverged, waiting or failed.
        reason: why, or empty.
        numbers: of `TrialResult.summary`; empty of a trial that failed.
    """
    rows = [("outcome", f"**{outcome}**" + (f": {_line(reason)}" if reason else ""))]
    if numbers:
        rows += [
            (f"validation {metric}", f"{numbers['value']:.4f}, after the last epoch"),
            ("trained", f"{epoch_count(int(numbers['epochs']))} in {duration(float(numbers['seconds']))}"),
            ("cost", f"{numbers['epoch_equivalents']:.2f} epochs of training everything"),
        ]
    return {"status": outcome, "reason": reason, NOTE: f"{_phrase(params)}\n\n{_list(rows)}"}


def begun_note(task: Task, name: str) -> str:
    """Description of a study's run until there is a winner."""
    return (
        f"**Search {_code(name)}**: {task.settings.search.trials} trials of {_network(task)} on {_images(task)}. "
        "No winner yet.\n\n"
        "Each child run is a trial; its tag `status` says what became of it and `reason` why."
    )


def study_note(
    task: Task, name: str, winner: Winner, trials: Sequence[TrialRecord], *, prior: str, test_reads: int
) -> str:
    """Description of a study's run that has a winner: what won, how it tested, what it cost, where to look.

    Args:
        prior: of the freeze depth, in one line; empty without evidence.
    """
    params, metric = TrialParams(**winner.params), task.settings.search.metric
    outcomes = [t.outcome for t in trials]
    kinds = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(sorted(outcomes)))
    seconds = sum(t.seconds for t in trials)
    equivalents = sum(t.epoch_equivalents for t in trials)
    reads = f"read {times(test_reads)}"
    rows = [
        (f"best validation {metric}", f"{winner.value:.4f} (the best of many: too high; the test score counts)"),
        ("trials", f"{len(trials)}: {kinds}"),
        ("cost of the trials", f"{duration(seconds)}, {equivalents:.1f} epochs of training everything"),
        ("network", _network(task)),
        ("images", _images(task)),
        ("model", f"{_code(task.settings.tracking.model_name)}, version {winner.version}"),
    ]
    if prior:
        rows.append(("evidence", _line(prior)))
    return "\n\n".join(
        [
            f"**Search {_code(name)}. Winner: trial {winner.slot}**, {_phrase(params)} "
            f"{_together(len(winner.members))}Trained for "
            f"{winner.trained_for} on {winner.images[0]} images.",
            _tested(winner.test, winner.intervals, f" on {winner.images[1]} images, {reads}"),
            f"How it got there:\n\n{_list(rows)}",
            "Look at: the artifacts `report/report.html` (all on one page) and `figures/evidence.png` (why this "
            "depth); among the model metrics the images `maps/...` (what each block looks at: the step is the block, "
            "0 the images), which the winning trial's run has too. Each child run is a trial; its tag `status` says "
            "what became of it and `reason` why.",
        ]
    )


def version_note(
    params: TrialParams, scores: TestScores | None, *, network: str, trained: int, study: str, members: int = 1
) -> str:
    """Description of a version of the registered model."""
    return "\n\n".join(
        [
            f"{network}: {_phrase(params)} {_together(members)}Trained on {trained} images by the search "
            f"{_code(study)}.",
            _tested(scores.values if scores else None, scores.intervals if scores else None),
        ]
    )


def _phrase(params: TrialParams) -> str:
    beta = "" if params.fostering_beta is None else f", fostering beta {params.fostering_beta:g}"
    network = "" if params.network is None else f"{params.network}, "
    return (
        f"{network}{params.optimizer}, learning rate {_rate(params)} ({params.lr_factor:.2g} x its reference), "
        f"freeze depth {params.freeze_depth}{beta}."
    )


def _together(members: int) -> str:
    return f"It answers together with the next {members - 1} trials. " if members > 1 else ""


def _rate(params: TrialParams) -> str:
    mantissa, exponent = f"{params.learning_rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _network(task: Task) -> str:
    weights = "pre-trained" if task.net.pretrained else "random"
    nets = [one.net for one in task.all]
    if len(nets) == 1:
        branch = f", attention branch behind {task.net.attention_block}" if task.net.attention_block else ""
        return f"{task.net.architecture} ({task.net.num_blocks} blocks, {weights} weights{branch})"
    return f"{' or '.join(f'{net.architecture} ({net.num_blocks} blocks)' for net in nets)}, {weights} weights"


def _images(task: Task) -> str:
    fold, (height, width), tile = task.splits.folds[0], task.settings.data.pixels, task.settings.data.tile
    train, val, test = (len(task.image_rows(rows)) for rows in (fold.train, fold.val, task.splits.test))
    counts = f"{train} training, {val} validation and {test} test images of {len(task.classes)} classes"
    cut = "" if tile is None else f", tiles of {tile[0]} x {tile[1]} pixels at"
    return f"{counts}{cut or ','} {height} x {width} pixels"


def _tested(
    values: Mapping[str, float] | None, intervals: Mapping[str, tuple[float, float]] | None, where: str = ""
) -> str:
    if values is None or intervals is None:
        return "There are no test images, so nothing is known of it beyond validation."
    rows = []
    for name, (low, high) in intervals.items():
        known = interval_known(name, low, high)
        interval = f"{low:.3f} to {high:.3f}" if known else "interval unknown: no error to resample"
        rows.append((name.replace("_", " "), f"**{values[name]:.4f}** ({interval})"))
    return f"Test scores{where} (95 % intervals):\n\n{_list(rows)}"


def _list(rows: Sequence[tuple[str, str]]) -> str:
    # MLflow shows tables without any space between their cells.
    return "\n".join(f"- {name}: {value}" for name, value in rows)


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(name: str) -> str:
    return f"`{_line(name).replace('`', chr(39))}`"
