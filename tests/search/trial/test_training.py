"""One trial is a function of task, parameters and seed, on a tiny task."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.networks.freezing import stored_bytes
from search.errors import TrialCancelledError
from search.trial.fitting import first_parts
from search.trial.result import EpochReport, TrialParams, TrialResult, Verdict
from search.trial.task import Task
from search.trial.training import run_trial, train_final

PARAMS = TrialParams("momentum", 1.0, 5)


def _curve(reports: tuple[EpochReport, ...]) -> list[tuple[float, ...]]:
    return [(r.fold, r.epoch, r.value, *r.metrics.values()) for r in reports]


@pytest.fixture(scope="module")
def undisturbed(make_task: Callable[..., Task]) -> Callable[..., TrialResult]:
    """A trial in one go, trained once for all tests that compare with it: `undisturbed(params, seed=3, **settings)`."""
    kept: dict[object, TrialResult] = {}

    def run(params: TrialParams, seed: int = 3, **settings: object) -> TrialResult:
        key = (params, seed, *sorted(settings.items()))
        if key not in kept:
            kept[key] = run_trial(make_task(**settings), params, seed=seed)
        return kept[key]

    return run


@pytest.mark.parametrize("depth", [5, *(pytest.param(k, marks=[pytest.mark.slow, pytest.mark.long]) for k in (0, 8))])
def test_the_same_trial_gives_the_same_curve_with_and_without_cache(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult], depth: int
) -> None:
    params = replace(PARAMS, freeze_depth=depth)
    first = undisturbed(params)
    again = run_trial(make_task(), params, seed=3)
    without = run_trial(make_task(cache="none", cache_gigabytes=0.0), params, seed=3)
    assert _curve(first.curve) == _curve(again.curve) == _curve(without.curve)
    assert (first.value, first.loss) == (first.curve[-1].value, first.curve[-1].loss)
    assert (first.metrics["val_macro_f1"], first.metrics["val_loss"]) == (first.value, first.loss)
    other = run_trial(make_task(), params, seed=4)
    assert _curve(other.curve) != _curve(first.curve)


def test_folds_are_averaged_epoch_by_epoch(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(folds=3), PARAMS, seed=0)
    assert [(r.step, r.fold, r.epoch) for r in result.curve] == [(i, i // 3, i % 3) for i in range(9)]
    by_epoch = [[r.metrics["val_macro_f1"] for r in result.curve if r.epoch == e] for e in range(3)]
    means = [sum(values) / 3 for values in by_epoch]
    assert result.value == pytest.approx(means[-1])
    assert [r.value for r in result.curve[-3:]] == pytest.approx(means)
    assert result.loss == pytest.approx(sum(r.metrics["val_loss"] for r in result.curve if r.epoch == 2) / 3)


def test_a_pruned_trial_stops_after_exactly_that_epoch(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(), PARAMS, seed=0, report=lambda r: "train" if r.step < 1 else "stop")
    assert len(result.curve) == 2
    assert result.stopped == "pruned"


def _with_waits(
    task: Task, params: TrialParams, checkpoint: Path, *, lose: bool = False
) -> tuple[TrialResult, list[int]]:
    """The trial, waiting after every epoch, and the steps it reported."""
    steps: list[int] = []

    def report(epoch: EpochReport) -> Verdict:
        steps.append(epoch.step)
        return "wait"

    while True:
        torch.manual_seed(99)  # another trial had the worker in between
        result = run_trial(task, params, seed=3, report=report, checkpoint=checkpoint, reported=len(steps))
        last = len(steps) == task.settings.trainer.epochs * len(task.splits.folds)
        if result.stopped is None or last:
            return result, steps
        assert result.stopped == "waiting" and checkpoint.exists()
        if lose:
            checkpoint.write_bytes(checkpoint.read_bytes()[:100])


@pytest.mark.parametrize(
    ("depth", "folds", "more"),
    [
        pytest.param(0, 1, {}, id="everything thawed", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param(5, 2, {"schedule": "cosine"}, id="two folds, a falling rate"),
        pytest.param(8, 1, {}, id="the head alone"),
        pytest.param(2, 1, {"model": "lenet5", "warmup": False}, id="another network"),
    ],
)
@pytest.mark.parametrize("optimizer", [pytest.param("momentum", marks=[pytest.mark.slow, pytest.mark.long]), "adam"])
def test_a_trial_that_waits_is_the_same_trial(
    make_task: Callable[..., Task],
    undisturbed: Callable[..., TrialResult],
    tmp_path: Path,
    depth: int,
    folds: int,
    more: dict[str, object],
    optimizer: str,
) -> None:
    params = TrialParams(optimizer, 1.0, 0 if "model" in more else depth)
    whole = undisturbed(params, **({"folds": folds} if folds > 1 else {}), **more)
    result, steps = _with_waits(make_task(folds=folds, **more), params, tmp_path / "slot-0.pt")
    assert _curve(result.curve) == _curve(whole.curve)
    assert steps == list(range(3 * folds))
    assert result.seconds > 0 and result.value == whole.value


def test_a_waiting_trial_whose_file_is_damaged_trains_again_and_reports_nothing_twice(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult], tmp_path: Path
) -> None:
    whole = undisturbed(PARAMS)
    result, steps = _with_waits(make_task(), PARAMS, tmp_path / "slot-0.pt", lose=True)
    assert _curve(result.curve) == _curve(whole.curve) and steps == [0, 1, 2]


class KilledError(Exception):
    """What a kill does to a trial, as far as a test in one process can tell."""


@pytest.mark.parametrize(
    ("depth", "folds", "after"),
    [
        (5, 2, 3),
        *(
            pytest.param(*one, marks=[pytest.mark.slow, pytest.mark.long])
            for one in ((0, 1, 1), (5, 2, 2), (5, 2, 4), (8, 1, 2))
        ),
    ],
)
def test_a_killed_trial_goes_on_from_its_last_epoch_and_tells_a_new_driver_of_all(
    make_task: Callable[..., Task], tmp_path: Path, depth: int, folds: int, after: int
) -> None:
    """`after` epochs were over; the next one had begun."""
    params, file = TrialParams("momentum", 1.0, depth), tmp_path / "slot-0.pt"
    batches, reported, notes = [0], [], []

    def counted() -> bool:
        batches[0] += 1
        return False

    def report(epoch: EpochReport) -> Verdict:
        reported.append(epoch)
        return "train"

    def killed() -> bool:
        if len(reported) == after:
            raise KilledError
        return False

    whole = run_trial(make_task(folds=folds), params, seed=3, cancelled=counted)
    with pytest.raises(KilledError):
        run_trial(
            make_task(folds=folds, checkpoint_seconds=0.0), params, seed=3, report=report, cancelled=killed,
            checkpoint=file, on_note=notes.append,
        )  # fmt: skip
    assert len(reported) == after and file.exists() and not notes
    reported.clear()
    in_all, batches[0] = batches[0], 0
    again = run_trial(make_task(folds=folds), params, seed=3, report=report, cancelled=counted, checkpoint=file)
    assert _curve(again.curve) == _curve(whole.curve) == _curve(reported)
    # A fold's first epoch is kept when its second one begins.
    assert batches[0] == in_all * (3 * folds - (after if after % 3 else after - 1)) // (3 * folds)


def test_a_file_of_another_trial_is_nobodys_checkpoint(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult], tmp_path: Path
) -> None:
    file = tmp_path / "slot-0.pt"
    run_trial(make_task(), PARAMS, seed=4, report=lambda _: "wait", checkpoint=file)
    whole = undisturbed(PARAMS)
    assert _curve(run_trial(make_task(), PARAMS, seed=3, checkpoint=file).curve) == _curve(whole.curve)


def test_a_reported_epoch_may_be_judged_otherwise_by_a_new_driver(
    make_task: Callable[..., Task], tmp_path: Path
) -> None:
    file = tmp_path / "slot-0.pt"
    run_trial(make_task(checkpoint_seconds=0.0), PARAMS, seed=3, checkpoint=file)
    result = run_trial(make_task(), PARAMS, 3, report=lambda r: "stop" if r.step == 1 else "train", checkpoint=file)
    assert result.stopped == "pruned" and len(result.curve) == 2


def test_a_full_disk_keeps_no_waiting_trial_and_says_so(
    make_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file\nframe 0")

    monkeypatch.setattr(torch, "save", full)
    file = tmp_path / "slot-0.pt"
    result = run_trial(make_task(), PARAMS, 0, report=lambda _: "wait", checkpoint=file, on_note=notes.append)
    assert result.stopped == "waiting" and len(result.curve) == 1
    assert notes == [
        "A trial could not be kept (PytorchStreamWriter failed writing file); "
        "it is trained again if it must go on from here."
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_trial_raises(make_task: Callable[..., Task]) -> None:
    with pytest.raises(TrialCancelledError):
        run_trial(make_task(), PARAMS, seed=0, cancelled=lambda: True)


@pytest.mark.parametrize("held", [True, False], ids=["the command waits with its own answer", "no handler before"])
def test_sigterm_during_a_fit_exits_with_143(make_task: Callable[..., Task], held: bool) -> None:
    """Lightning raises an exception without an exit code, which a scheduler took for success."""
    seen: list[int] = []

    def terminated() -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    before = signal.signal(signal.SIGTERM, (lambda number, _: seen.append(number)) if held else signal.SIG_DFL)
    try:
        task = make_task()
        with pytest.raises(SystemExit) as left:
            train_final(task, PARAMS, 0, task.splits.folds[0].train, 1, cancelled=terminated)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 143 and bool(seen) is held


def test_a_diverged_trial_has_the_worst_value(make_task: Callable[..., Task]) -> None:
    result = run_trial(make_task(), TrialParams("sgd", 1e18, 0), seed=0)
    assert result.stopped == "diverged"
    assert result.value == 0.0
    assert len(result.curve) < 3


def test_cost_is_counted_in_epochs_of_training_everything(make_task: Callable[..., Task]) -> None:
    task = make_task(epochs=2)
    full = run_trial(task, replace(PARAMS, freeze_depth=0), seed=0)
    head = run_trial(task, replace(PARAMS, freeze_depth=8), seed=0)
    assert full.epoch_equivalents == 2
    assert head.epoch_equivalents < 0.1


@pytest.mark.parametrize("trainer", [{"schedule": "constant"}, {"class_weights": "balanced"}, {"warmup": False}])
def test_every_option_of_the_trainer_changes_the_curve(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult], trainer: dict[str, object]
) -> None:
    plain = undisturbed(PARAMS, seed=0)
    changed = run_trial(make_task(**trainer), PARAMS, seed=0)
    balanced = trainer == {"class_weights": "balanced"}  # the classes of this task are equally large
    assert (_curve(plain.curve) == _curve(changed.curve)) is balanced


def test_lenet5_trains_from_random_weights_and_the_final_fit_is_deterministic(make_task: Callable[..., Task]) -> None:
    import torch

    task = make_task(model="lenet5")
    params = TrialParams("adam", 1.0, 0)
    assert len(run_trial(task, params, seed=0).curve) == 3
    rows = task.splits.folds[0].train
    one, two = (train_final(task, params, 0, rows, 2) for _ in range(2))
    assert not one.training
    for left, right in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("depth", [5, 8])
def test_the_second_trial_at_a_depth_runs_no_frozen_block(make_task: Callable[..., Task], depth: int) -> None:
    task = make_task(cache=f"counted-{depth}")
    forwards: list[str] = []
    for name, block in list(task.net.blocks.named_children())[:depth]:
        block.register_forward_hook(lambda *_, name=name: forwards.append(name))
    params = replace(PARAMS, freeze_depth=depth)
    run_trial(task, params, seed=0)
    assert set(forwards) == set(task.net.block_names[:depth])
    forwards.clear()
    run_trial(task, replace(params, optimizer="adam"), seed=1)
    assert forwards == []


def _out_of_memory_above(task: Task, images: int) -> None:
    """From now on training more than so many images at once fails as on a full GPU."""

    def refuse(block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if block.training and torch.is_grad_enabled() and len(inputs[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    task.net.blocks[-1].register_forward_pre_hook(refuse)


def test_out_of_memory_halves_the_micro_batch_and_is_recorded(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult]
) -> None:
    task = make_task()
    plain = undisturbed(PARAMS, seed=0)
    assert plain.micro_batch == 8
    _out_of_memory_above(task, 4)
    reported: list[int] = []
    small = run_trial(task, PARAMS, seed=0, report=lambda r: reported.append(r.step) or "train")
    assert small.micro_batch == 4
    assert reported == [0, 1, 2] == [r.step for r in small.curve]
    assert _curve(small.curve) != _curve(plain.curve)  # batch-norm saw other batches


def test_out_of_memory_at_the_smallest_micro_batch_is_an_error(make_task: Callable[..., Task]) -> None:
    task = make_task()
    _out_of_memory_above(task, 3)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        run_trial(task, PARAMS, seed=0)


def test_micro_batches_give_the_same_gradient(make_task: Callable[..., Task]) -> None:
    """Without batch-norm a batch in parts is the same batch."""
    params = TrialParams("sgd", 0.1, 0)
    whole = run_trial(make_task(model="lenet5"), params, seed=0)
    task = make_task(model="lenet5")
    _out_of_memory_above(task, 4)
    parts = run_trial(task, params, seed=0)
    assert parts.micro_batch == 4 < whole.micro_batch
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert one.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-4)
        assert one.metrics["val_loss"] == pytest.approx(other.metrics["val_loss"], rel=1e-4)


def test_what_is_watched_is_scored_and_changes_nothing(
    make_task: Callable[..., Task], undisturbed: Callable[..., TrialResult]
) -> None:
    task = make_task()
    plain = undisturbed(PARAMS, seed=0)
    watching = replace(task, watched=task.splits.test)
    watched = run_trial(watching, PARAMS, seed=0)
    assert [r.value for r in watched.curve] == [r.value for r in plain.curve]
    assert {"watched_macro_f1", "watched_accuracy", "watched_loss"} <= watched.metrics.keys()
    assert not any(name.startswith("watched") for name in plain.metrics)


def test_a_batch_that_would_take_too_much_memory_is_split_from_the_beginning(
    make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    each = stored_bytes(task.net, (32, 32), 0)
    assert 0 < stored_bytes(task.net, (32, 32), 8) < stored_bytes(task.net, (32, 32), 4) < each
    assert stored_bytes(task.net, (64, 64), 0) == pytest.approx(4 * each, rel=0.1)
    assert [first_parts(task, depth) for depth in (0, 4)] == [1, 1]
    monkeypatch.setattr("search.trial.fitting._MOST_BYTES", 5 * each)
    assert [first_parts(task, depth) for depth in (0, 8)] == [2, 1]
    monkeypatch.setattr("search.trial.fitting._MOST_BYTES", 1)
    assert first_parts(task, 0) == 2  # of a batch of eight: four images are the least
    assert all(parameter.requires_grad for parameter in task.net.head.parameters())
