"""What the maps of a running trial say: at its rungs alone, of a few images, and without a trace in its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from explain.evidence.trial_registry import TRIAL_STATISTICS
from search.trial.map_statistics import compared_blocks, maps_file, read_maps, watched_images, watched_maps
from search.trial.result import EpochReport, TrialParams, Verdict
from search.trial.task import Task
from search.trial.training import run_trial

PARAMS = TrialParams("momentum", 1.0, 7)


def test_a_trial_says_what_its_maps_show_at_its_rungs_and_trains_as_without(
    make_task: Callable[..., Task], tmp_path: Path
) -> None:
    checkpoint, task = tmp_path / "slot-3.attempt-1.pt", make_task(pruner="maps")
    shown = min(4, len(task.splits.folds[0].val))
    found = run_trial(task, PARAMS, seed=3, checkpoint=checkpoint)
    plain = run_trial(make_task(), PARAMS, seed=3)
    assert [r.metrics for r in found.curve] == [r.metrics for r in plain.curve]
    assert [bool(r.maps) for r in found.curve] == [False, True, False]  # of three steps, four come before any rung
    assert not any(r.maps for r in plain.curve)
    report = found.curve[1]
    assert set(report.maps) == set(TRIAL_STATISTICS) and report.map_seconds > 0
    assert set(report.maps["mirrored_answers"]) == {""}
    assert all(-1 <= v <= 1 for of in report.maps.values() for v in of.values())
    kept = read_maps(maps_file(checkpoint, 2))
    assert kept is not None and maps_file(checkpoint, 2).name == "slot-3.maps-2.npz"
    assert len(kept.rows) == shown and len(kept.maps) == len(kept.mirrored) == len(kept.blocks)
    assert all(len(one) == shown for one in kept.maps)
    maps_file(checkpoint, 2).write_bytes(b"damaged")
    assert read_maps(maps_file(checkpoint, 2)) is None and read_maps(maps_file(checkpoint, 4)) is None


def test_a_trial_that_waits_says_it_once_and_its_checkpoint_keeps_it(
    make_task: Callable[..., Task], tmp_path: Path
) -> None:
    task, seen = make_task(pruner="maps"), list[EpochReport]()

    def report(epoch: EpochReport) -> Verdict:
        seen.append(epoch)
        return "wait" if epoch.step == 1 else "train"

    checkpoint = tmp_path / "slot-0.pt"
    run_trial(task, PARAMS, seed=3, report=report, checkpoint=checkpoint)
    result = run_trial(task, PARAMS, seed=3, report=report, checkpoint=checkpoint, reported=2)
    assert [r.step for r in seen] == [0, 1, 2]
    assert result.curve[1].maps == seen[1].maps != {}
    assert result.curve == tuple(seen)


def test_the_same_images_and_blocks_are_compared_at_every_freeze_depth(make_task: Callable[..., Task]) -> None:
    task = make_task(pruner="maps")
    numbers, fold = compared_blocks(task), task.splits.folds[0]
    sides = [np.prod(task.cache.shape(number + 1)[1:]) for number in numbers]
    assert len(numbers) == 2 and sides[0] > sides[1] > 0
    rows = watched_images(task, fold.train, fold.val)
    assert set(rows) <= set(fold.val) and len(rows) == min(8, len(fold.val))
    first = task.index.labels[rows[: len(task.classes)]]
    assert sorted(first) == list(range(len(task.classes)))  # as many of each class as there are
    shallow, deep = (watched_maps(task, depth, 0, None) for depth in (0, 8))
    assert shallow.at == deep.at == (2,)
    assert watched_maps(make_task(), 0, 0, None).at == ()
