"""The winner of a study: chosen, refitted, tested once, explained in numbers, registered as challenger."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lightning_modules.decisions.costs import Costs
from lightning_modules.decisions.reference_images import ReferenceImages
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import alone, committee
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from lightning_modules.training.datamodule import ActivationBatches
from lightning_modules.training.scores import TestScores, scores_with_intervals
from search.errors import RefitDivergedError
from search.executor.registry import Workers
from search.outcome.decisions import Strangers, decision_facts, log_decisions, strangers
from search.outcome.figures import confusion_figure
from search.outcome.out_of_sample import OutOfSample, image_groups, out_of_sample
from search.outcome.reference import reference_images, task_features
from search.outcome.side_by_side import train_side_by_side
from search.outcome.test_predictions import TestPredictions, log_test_predictions
from search.study.bought import DEFAULT_SLOT, Bought, bought
from search.study.notes import version_note
from search.study.record import TrialRecord, Winner
from search.study.run import StudyRun
from search.study.sampler import slot_seed
from search.trial.preparation import costs_of, tiling_of
from search.trial.task import Task
from search.trial.training import more_epochs, trial_network
from search.words import times

__all__ = ["model_card", "package_versions", "refit_and_test"]

_PACKAGES = ("thawline", "torch", "torchvision", "pytorch-lightning", "timm", "optuna", "mlflow", "numpy")


def package_versions() -> dict[str, str]:
    """Package -> installed version, of what decides a result."""
    return {name: version(name) for name in _PACKAGES}


def model_card(task: Task, net: BlockNet, freeze_depth: int, temperature: float | None = None) -> ModelCard:
    """What a network that was trained on the task's images must know to be used.

    Args:
        temperature: see `ModelCard`.
    """
    data, (black, white, dark) = task.settings.data, task.index.value_range
    return ModelCard(
        architecture=net.architecture,
        classes=task.classes,
        size=data.pixels,
        fit=data.fit,
        max_pixels=data.max_pixels,
        freeze_depth=freeze_depth,
        versions=package_versions(),
        black_level=black,
        white_level=white,
        dark_level=dark,
        tiling=tiling_of(task.settings),
        temperature=temperature,
        attention_block=net.attention_block,
    )


def refit_and_test(run: StudyRun, members: Sequence[TrialRecord], workers: Workers) -> Winner:
    """Refit, calibrate, test once, log and register the best trials; the result is written to the study last.

    The count of test readings is raised *before* the test images are read, so that it is right even if this process
    is killed in between. Where a trial's network was kept, and is wanted as it is, it is not trained again. The default
    trial is refitted too, and answers the test images in the same reading.

    Args:
        members: whose networks answer together, the best first, all of one network.
        workers: train the networks side by side; closed afterwards.

    Raises:
        RefitDivergedError: an output on the images that a member was trained on, or on those of the test, is not
            finite.
    """
    started = time.perf_counter()
    trial, record, settings = members[0], run.record, run.settings
    task = run.task.of(trial.params.network)
    rows = task.rows(_delivered(run))
    train_side_by_side(run, workers, _wanted(run, members))
    nets = {member.slot: _refitted(run, member) for member in members}
    run.now("Testing the winner")
    unseen = out_of_sample(task, partial(_of_fold, run, members, nets))
    net = committee(list(nets.values()), weights=unseen.weights)
    if unseen.problem:
        run.say(f"The winner's probabilities are not calibrated: {unseen.problem}.")
    reference = None
    if unseen.distances is not None and np.isfinite(unseen.distances).all():
        most = min(len(task.image_rows(fold.train)) for fold in task.splits.folds)
        reference = reference_images(task, net, rows, unseen.distances, unseen.groups, most=most)
    scores: TestScores | None = None
    found: Bought | None = None
    tested: OutOfSample | None = None
    answers: TestPredictions | None = None
    strange: tuple[Strangers, ...] = ()
    if len(task.splits.test):
        default = _default_net(run, nets)
        if record.test_reads:
            line = f"The test images are read again; until now they were read {times(record.test_reads)}."
            run.say(line)
        record.test_reads += 1
        judged, features = task_features(task, net, task.splits.test)
        if not judged.logits.isfinite().all():
            raise RefitDivergedError(_diverged(task, nets))
        calibrated = judged.logits / (unseen.temperature or 1.0)
        scores = scores_with_intervals(calibrated, judged.labels, task.classes, seed=settings.seed)
        before = None if default is None else task_features(run.task, default, task.splits.test)[0]
        if before is not None and before.logits.isfinite().all():
            found = bought(before.labels, before.logits, judged.logits, len(task.classes), settings.seed)
        _log_test(run, scores, found)
        strange = () if reference is None else strangers(reference, features)
        groups = image_groups(task)[task.images_of(judged.rows)]
        tested = OutOfSample(judged.logits.double().numpy(), judged.labels.numpy(), groups)
        probabilities = (judged.logits.double() / (unseen.temperature or 1.0)).softmax(1)
        answers = TestPredictions(judged.rows, judged.labels.numpy(), probabilities.numpy())
    costs = costs_of(settings, task.classes, run.say)
    facts = decision_facts(unseen, tested, task.classes, costs=costs, found_strange=strange, seed=settings.seed)
    log_decisions(run, facts)
    known = record.winner
    run.tracker.forget_versions(
        run.parent, settings.tracking.model_name, "challenger", after=int(known.version) if known is not None else 0
    )
    version = _register(run, net, members, scores, len(task.image_rows(rows)), unseen, costs, reference)
    if answers is not None:
        log_test_predictions(run.tracker, run.parent, task, version, answers)
    record.winner = winner = Winner(
        slot=trial.slot,
        params=trial.params.searched(),
        value=trial.value,
        epochs=settings.trainer.epochs,
        refit=settings.search.refit,
        images=(len(task.image_rows(rows)), len(task.image_rows(task.splits.test))),
        test=scores.values if scores else None,
        intervals=scores.intervals if scores else None,
        version=version,
        run_id=run.parent,
        seconds=time.perf_counter() - started,
        members=tuple(nets),
        bought=found,
        more_epochs=more_epochs(task, trial.params.freeze_depth) if settings.search.refit else None,
    )
    return winner


def _network(run: StudyRun, trial: TrialRecord, fold: int | None) -> BlockNet:
    """A trial's network, trained as the trial was.

    Args:
        fold: on whose training images; None takes all that are trained on.
    """
    task, settings = run.task.of(trial.params.network), run.settings
    params, epochs, seed = trial.params, settings.trainer.epochs, slot_seed(settings.seed, trial.slot)
    checkpoint = run.files.checkpoint(trial.slot)
    return trial_network(
        task, params, seed, epochs, fold=fold, checkpoint=checkpoint, cancelled=run.stopping, on_note=run.say
    )


def _wanted(run: StudyRun, members: Sequence[TrialRecord]) -> list[tuple[TrialRecord, int | None]]:
    """Trial and fold of every network that `refit_and_test` will ask for."""
    folds = range(run.settings.data.folds)
    asked = [(member, fold) for member in members for fold in (_delivered(run), *folds)]
    if len(run.task.splits.test) and (default := _default(run)) is not None:
        asked.append((default, _delivered(run)))
    return list({(trial.slot, fold): (trial, fold) for trial, fold in asked}.values())


def _refitted(run: StudyRun, trial: TrialRecord) -> BlockNet:
    """A trial's network as it is delivered.

    Raises:
        RefitDivergedError: an output on these images is not finite.
    """
    task = run.task.of(trial.params.network)
    net = _network(run, trial, _delivered(run))
    if not _finite_outputs(task, net, trial.params.freeze_depth, task.rows(_delivered(run))):
        raise RefitDivergedError(trial.slot)
    return net


def _diverged(task: Task, nets: Mapping[int, BlockNet]) -> int:
    """The slot of the member whose answers on the test images are not finite."""
    answers = {slot: task_features(task, alone(net), task.splits.test)[0] for slot, net in nets.items()}
    return next((slot for slot, found in answers.items() if not found.logits.isfinite().all()), next(iter(nets)))


def _default(run: StudyRun) -> TrialRecord | None:
    """The default trial, where it is complete."""
    return next((t for t in run.record.finished() if t.slot == DEFAULT_SLOT and t.outcome == "complete"), None)


def _default_net(run: StudyRun, nets: Mapping[int, BlockNet]) -> BlockNet | None:
    """The default trial's network, refitted as the members are; None where that trial is not complete or diverged."""
    default = _default(run)
    if default is None:
        return None
    if DEFAULT_SLOT in nets:
        return alone(nets[DEFAULT_SLOT])
    try:
        return _refitted(run, default)
    except RefitDivergedError:
        return None


@torch.no_grad()
def _finite_outputs(task: Task, net: BlockNet, depth: int, rows: NDArray[np.int64]) -> bool:
    net.eval()
    plain = ActivationBatches(task.cache, depth, rows, task.index.labels[rows], batch_size=task.images_at_once)
    return all(bool(net.suffix(activations, depth).isfinite().all()) for activations, *_ in plain)


def _of_fold(
    run: StudyRun, members: Sequence[TrialRecord], nets: Mapping[int, BlockNet], number: int
) -> list[BlockNet]:
    """The members, trained on the training images of one fold alone.

    Args:
        nets: the members that are delivered, by slot; without a refit they are those of the first fold.
    """
    if number == 0 and not run.settings.search.refit:
        return list(nets.values())
    return [_network(run, member, number) for member in members]


def _log_test(run: StudyRun, scores: TestScores, found: Bought | None) -> None:
    tracker, parent, classes = run.tracker, run.parent, run.task.classes
    intervals = {f"test_{n}_{end}": i[k] for n, i in scores.intervals.items() for k, end in ((0, "low"), (1, "high"))}
    tracker.log(parent, {**{f"test_{n}": v for n, v in scores.values.items()}, **intervals})
    tracker.log(parent, {} if found is None else found.metrics())
    table = pd.DataFrame([{"class": name, **row} for name, row in scores.per_class.items()])
    tracker.log_table(parent, table, "test/per_class.json")
    confusion = pd.DataFrame(scores.confusion, columns=list(classes))
    confusion.insert(0, "true class", classes)
    tracker.log_table(parent, confusion, "test/confusion.json")
    tracker.log_figure(parent, confusion_figure(scores.confusion, classes), "figures/confusion.png")


def _register(
    run: StudyRun,
    net: BlockNet,
    members: Sequence[TrialRecord],
    scores: TestScores | None,
    trained: int,
    unseen: OutOfSample,
    costs: Costs | None,
    reference: ReferenceImages | None,
) -> str:
    task, study, params = run.task, run.record.name, members[0].params
    tags = {"study": study, **params.searched(), "data_digest": task.index.digest}
    if len(members) > 1:
        tags["members"] = ", ".join(f"trial {member.slot}" for member in members)
    if net.weights:
        tags["weights"] = ", ".join(f"{weight:.2f}" for weight in net.weights)
    others = tuple(member.freeze_depth for member in members[1:])
    card = model_card(task, net, params.freeze_depth, unseen.temperature)
    card = replace(card, others=others, shared=net.shared, weights=net.weights)
    note = version_note(params, scores, network=net.architecture, trained=trained, study=study, members=len(members))
    with TemporaryDirectory(prefix="thawline-", ignore_cleanup_errors=True) as folder:
        model = TrainedModel(net, card, _trained_on(task), unseen.scores, costs, reference)
        save_model(Path(folder) / "model", model)
        return run.tracker.register(
            run.parent,
            Path(folder) / "model",
            model_name=run.settings.tracking.model_name,
            alias="challenger",
            tags={k: json.dumps(v) if isinstance(v, dict) else v for k, v in tags.items()},
            note=note,
        )


def _trained_on(task: Task) -> frozenset[str]:
    """Digests of the images that trained or chose the version, or the model that it starts from."""
    before = None if task.start is None else load_model(task.start).trained_on
    rows = task.image_rows(task.searched_rows)
    return frozenset(task.image_index.records[row].digest for row in rows.tolist()) | (before or frozenset())


def _delivered(run: StudyRun) -> int | None:
    """The fold on whose training images what is delivered is trained, None for all."""
    return None if run.settings.search.refit else 0
