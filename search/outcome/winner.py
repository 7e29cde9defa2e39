"""The winner of a study: chosen, refitted, tested once, explained in numbers, registered as challenger."""

from __future__ import annotations

import json
import time
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
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from lightning_modules.training.datamodule import ActivationBatches
from lightning_modules.training.scores import TestScores, scores_with_intervals
from search.errors import RefitDivergedError
from search.outcome.decisions import Strangers, decision_facts, log_decisions, strangers
from search.outcome.figures import confusion_figure
from search.outcome.out_of_sample import OutOfSample, image_groups, out_of_sample
from search.outcome.reference import reference_images, task_features
from search.study.notes import version_note
from search.study.record import TrialRecord, Winner
from search.study.run import StudyRun
from search.study.sampler import slot_seed
from search.trial.preparation import costs_of, tiling_of
from search.trial.result import TrialParams
from search.trial.task import Task
from search.trial.training import train_final, trial_network
from search.words import times

__all__ = ["model_card", "package_versions", "refit_and_test"]

_BATCH = 128
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
    )


def refit_and_test(run: StudyRun, trial: TrialRecord) -> Winner:
    """Refit, calibrate, test once, log and register the best trial; the result is written to the study last.

    The count of test readings is raised *before* the test images are read, so that it is right even if this process
    is killed in between. Where the trial's network was kept, and is wanted as it is, it is not trained again.

    Raises:
        RefitDivergedError: an output on the images that it was trained on, or on those of the test, is not finite.
    """
    started = time.perf_counter()
    task, record, settings = run.task.of(trial.params.network), run.record, run.settings
    params, epochs, seed = trial.params, trial.best_epoch + 1, slot_seed(settings.seed, trial.slot)
    checkpoint = run.files.checkpoint(trial.slot)
    note = partial(run.console.print, highlight=False, markup=False, soft_wrap=True)
    if settings.search.refit:
        rows = task.trainable(_fold_rows(task))
        net = train_final(task, params, seed, rows, epochs, cancelled=run.stopping)
    else:
        rows = task.splits.folds[0].train
        net = trial_network(task, params, seed, epochs, checkpoint=checkpoint, cancelled=run.stopping, on_note=note)
    if not _finite_outputs(task, net, params.freeze_depth, rows):
        raise RefitDivergedError
    unseen = out_of_sample(
        task, params, seed, epochs, checkpoint=checkpoint, first=None if settings.search.refit else net,
        cancelled=run.stopping, on_note=note,
    )  # fmt: skip
    if unseen.problem:
        note(f"The winner's probabilities are not calibrated: {unseen.problem}.")
    reference = None
    if unseen.distances is not None and np.isfinite(unseen.distances).all():
        most = min(len(task.image_rows(fold.train)) for fold in task.splits.folds)
        reference = reference_images(task, net, rows, unseen.distances, unseen.groups, most=most)
    scores: TestScores | None = None
    tested: OutOfSample | None = None
    strange: tuple[Strangers, ...] = ()
    if len(task.splits.test):
        if record.test_reads:
            line = f"The test images are read again; until now they were read {times(record.test_reads)}."
            run.console.print(line, highlight=False)
        record.test_reads += 1
        judged, features = task_features(task, net, task.splits.test)
        if not judged.logits.isfinite().all():
            raise RefitDivergedError
        calibrated = judged.logits / (unseen.temperature or 1.0)
        scores = scores_with_intervals(calibrated, judged.labels, task.classes, seed=settings.seed)
        _log_test(run, scores)
        strange = () if reference is None else strangers(reference, features)
        groups = image_groups(task)[task.images_of(judged.rows)]
        tested = OutOfSample(judged.logits.double().numpy(), judged.labels.numpy(), groups)
    costs = costs_of(settings, task.classes, note)
    facts = decision_facts(unseen, tested, task.classes, costs=costs, found_strange=strange, seed=settings.seed)
    log_decisions(run, facts)
    known = record.winner
    run.tracker.forget_versions(
        run.parent, settings.tracking.model_name, "challenger", after=int(known.version) if known is not None else 0
    )
    record.winner = winner = Winner(
        slot=trial.slot,
        params=params.searched(),
        value=trial.value,
        epochs=epochs,
        refit=settings.search.refit,
        images=(len(task.image_rows(rows)), len(task.image_rows(task.splits.test))),
        test=scores.values if scores else None,
        intervals=scores.intervals if scores else None,
        version=_register(run, net, params, scores, len(task.image_rows(rows)), unseen, costs, reference),
        run_id=run.parent,
        seconds=time.perf_counter() - started,
    )
    return winner


@torch.no_grad()
def _finite_outputs(task: Task, net: BlockNet, depth: int, rows: NDArray[np.int64]) -> bool:
    net.eval()
    plain = ActivationBatches(task.cache, depth, rows, task.index.labels[rows], batch_size=_BATCH)
    return all(bool(net.suffix(activations, depth).isfinite().all()) for activations, *_ in plain)


def _log_test(run: StudyRun, scores: TestScores) -> None:
    tracker, parent, classes = run.tracker, run.parent, run.task.classes
    intervals = {f"test_{n}_{end}": i[k] for n, i in scores.intervals.items() for k, end in ((0, "low"), (1, "high"))}
    tracker.log(parent, {**{f"test_{n}": v for n, v in scores.values.items()}, **intervals})
    table = pd.DataFrame([{"class": name, **row} for name, row in scores.per_class.items()])
    tracker.log_table(parent, table, "test/per_class.json")
    confusion = pd.DataFrame(scores.confusion, columns=list(classes))
    confusion.insert(0, "true class", classes)
    tracker.log_table(parent, confusion, "test/confusion.json")
    tracker.log_figure(parent, confusion_figure(scores.confusion, classes), "figures/confusion.png")


def _register(
    run: StudyRun,
    net: BlockNet,
    params: TrialParams,
    scores: TestScores | None,
    trained: int,
    unseen: OutOfSample,
    costs: Costs | None,
    reference: ReferenceImages | None,
) -> str:
    task, study = run.task, run.record.name
    tags = {"study": study, **params.searched(), "data_digest": task.index.digest}
    card = model_card(task, net, params.freeze_depth, unseen.temperature)
    note = version_note(params, scores, network=net.architecture, trained=trained, study=study)
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
    rows = task.image_rows(_fold_rows(task))
    return frozenset(task.image_index.records[row].digest for row in rows.tolist()) | (before or frozenset())


def _fold_rows(task: Task) -> NDArray[np.int64]:
    return np.unique(np.concatenate([part for fold in task.splits.folds for part in (fold.train, fold.val)]))
