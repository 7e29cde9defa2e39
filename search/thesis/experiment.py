"""The thesis's experiments: every configuration is trained to its end and *scored on the test images*, as there.

That is the thesis's own protocol and only here: comparing configurations on the test set makes the best of them look
better than it is. Everything logged says `protocol=thesis`. `python -m search experiment=thesis_lenet` and so on;
docs/experiments.md. The same command again continues where it stopped.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.model_file import TrainedModel, save_model
from lightning_modules.training.optimizers import OPTIMIZERS
from lightning_modules.training.scores import scores
from search.outcome.figures import histogram_figure
from search.outcome.log import split_counts
from search.outcome.reference import task_features
from search.outcome.winner import model_card, package_versions
from search.settings.plain import flatten
from search.settings.schema import ModelSettings, Settings
from search.study.ownership import owned
from search.thesis.runs import ArmRun, PartRun, find_part, read_parts
from search.tracking.store import check_unopened
from search.tracking.tracker import Tracker
from search.trial.keys import digest
from search.trial.preparation import default_name, describe_data, load, prepare_process, resolved, split
from search.trial.resolution import largest_size
from search.trial.result import TrialParams
from search.trial.task import Task, build_task
from search.trial.training import train_in_full

__all__ = ["SUBSTITUTE", "WARNING", "Arm", "arms", "available_model", "frozen_name", "run_thesis"]

WARNING = (
    "protocol=thesis: every configuration is scored on the test images, so the best of them looks better than it is"
)

SUBSTITUTE = "efficientnet_lite0"
"""Takes VGG-16's place where its ImageNet weights are not on this machine: its own come with a package."""


@dataclass(frozen=True)
class Arm:
    """One configuration.

    Attributes:
        name: unique in its experiment; the same call again takes it up by this name.
    """

    name: str
    model: ModelSettings
    params: TrialParams


def available_model(model: ModelSettings) -> tuple[ModelSettings, str | None]:
    """The network to transfer from, and why it is not the one asked for; None where it is.

    Raises:
        InputError: random weights, or pre-trained weights that cannot be had, of another network than VGG-16.
    """
    if model.weights == "none":
        raise InputError(
            "this experiment transfers pre-trained weights, got model.weights=none; for random weights take "
            "experiment=thesis_random"
        )
    try:
        net = backbones.build(model.architecture, classes=2, size=(64, 64), weights=model.weights)
    except InputError as error:
        if model.name != "vgg16" or model.weights != "imagenet":
            raise
        return replace(model, name=SUBSTITUTE, width=1.0), str(error)
    return replace(model, name=net.architecture.partition("@")[0]), None


def frozen_name(blocks: tuple[str, ...], freeze_depth: int) -> str:
    """How a freeze depth is called: after the last frozen block."""
    if freeze_depth == 0:
        return "all trained"
    return "fixed features" if freeze_depth == len(blocks) else f"frozen to {blocks[freeze_depth - 1]}"


def arms(settings: Settings, model: ModelSettings, blocks: tuple[str, ...]) -> Iterator[Arm]:
    """The configurations of `thesis.part` but for finetune, which depends on the results of transfer.

    Args:
        model: the network of transfer and rates, see `available_model`.
    """
    space, factor = settings.space, settings.space.default_lr_factor
    part = settings.thesis.part
    if part == "lenet":
        tanh = replace(settings.model, name="lenet5")
        yield Arm("tanh, sgd", tanh, TrialParams("sgd", factor, 0))
        yield Arm("ReLU, adam", replace(tanh, name="lenet5_relu"), TrialParams("adam", factor, 0))
    elif part == "random":
        models = [settings.model]
        if settings.model.name == "vgg16":  # beside what it is compared with where VGG-16 cannot be transferred
            models.append(ModelSettings(SUBSTITUTE, "none"))
        for one in models:
            for optimizer in space.optimizers:
                yield Arm(f"{one.architecture}, {optimizer}", one, TrialParams(optimizer, factor, 0))
    elif part == "transfer":
        low, high = space.freeze_depth or (0, len(blocks))
        for freeze_depth in range(high, low - 1, -1):  # the cheap ones first
            for optimizer in space.optimizers:
                name = f"{frozen_name(blocks, freeze_depth)}, {optimizer}"
                yield Arm(name, model, TrialParams(optimizer, factor, freeze_depth))
    elif part == "rates":
        freeze_depth = len(blocks) // 2 if space.default_freeze_depth is None else space.default_freeze_depth
        for rate in settings.thesis.rates:
            for optimizer in space.optimizers:
                factor = rate / OPTIMIZERS[optimizer].reference_rate
                yield Arm(f"{optimizer} at {rate:g}", model, TrialParams(optimizer, factor, freeze_depth))


@dataclass(frozen=True, eq=False)
class _Session:
    """What all configurations of one call share."""

    task: Task  # of the network that the settings name
    tracker: Tracker
    parent: str
    key: str

    @property
    def settings(self) -> Settings:
        return self.task.settings


def run_thesis(settings: Settings, console: Console) -> PartRun:
    """Run one experiment (`thesis.part`) on the images that the settings name; returns its runs.

    Raises:
        InputError: bad input, found before anything is trained; no test images; nothing to fine-tune from.
    """
    prepare_process(settings)
    check_unopened(settings.tracking.root)
    model, missing = settings.model, None
    if settings.thesis.part in ("transfer", "finetune", "rates"):
        model, missing = available_model(settings.model)
    with_model = replace(settings, model=model)
    size = largest_size(with_model)
    backbones.build(model.architecture, classes=2, size=size, weights=model.weights)  # refuses early
    images = load(with_model, console)
    settings = resolved(settings, images)
    splits = split(settings, images.index)
    describe_data(console, images, splits)
    if not len(splits.test):
        raise InputError("protocol=thesis scores every configuration on test images, and these splits leave none")
    if missing is not None:
        console.print(
            f"No ImageNet weights of VGG-16 here ({missing}); {model.name} takes its place.",
            highlight=False, markup=False, style="yellow",
        )  # fmt: skip
    console.print(WARNING, style="yellow", highlight=False)
    with_model = replace(settings, model=model)
    first = build_task(with_model, images, splits, cache=settings.tracking.root / "cache")
    base = _base(first)
    made_of = {**base, "part": settings.thesis.part, "epochs": settings.trainer.epochs}
    if settings.space.default_lr_factor != 1:
        made_of["factor"] = settings.space.default_lr_factor
    if settings.thesis.part == "rates" and settings.space.default_freeze_depth is not None:
        made_of["depth"] = settings.space.default_freeze_depth
    if settings.thesis.maps:
        made_of["maps"] = settings.thesis.maps
    key = digest(made_of, 8)
    name = f"thesis-{settings.thesis.part}-{default_name(with_model, base)}"
    if settings.thesis.part == "finetune":
        _best_transfer(with_model, digest(base, 8), first.net.num_blocks)  # refuses before anything is written
    with owned(settings.tracking.root / "studies", name):
        tracker = Tracker.of(settings.tracking)
        parent = _parent(first, tracker, name, key, digest(base, 8), asked=settings.model.names[0])
        session = _Session(first, tracker, parent, key)
        status = "KILLED"
        try:
            if settings.thesis.part == "finetune":
                _finetune(session, digest(base, 8), console)
            else:
                _run_arms(session, console)
            status = "FINISHED"
        finally:
            tracker.kill_open_runs(parent)
            tracker.finish(parent, status)
    found = find_part(settings.tracking.root, settings.tracking.experiment, key)
    if found is None:
        raise InputError(f"the runs of {name} are no longer in {settings.tracking.root}")
    _print(found, console)
    return found


def _base(task: Task) -> dict[str, Any]:
    """What two experiments on the same images and the same network have in common."""
    ignored = ("search.", "space.", "trainer.epochs", "thesis.")
    return {k: v for k, v in task.identity.items() if not k.startswith(ignored)}


def _parent(task: Task, tracker: Tracker, name: str, key: str, base: str, *, asked: str) -> str:
    """The parent run of an earlier call, resumed, or a new one."""
    settings = task.settings
    earlier = find_part(settings.tracking.root, settings.tracking.experiment, key)
    if earlier is not None:
        tracker.resume(earlier.run_id)
        tracker.kill_open_runs(earlier.run_id)
        return earlier.run_id
    counts = split_counts(task)
    path = settings.data.path
    tags = {
        "protocol": "thesis",
        "protocol.warning": WARNING,
        "thesis_part": settings.thesis.part,
        "thesis_key": key,
        "thesis_task": base,
        "data": "simulated" if path is None else (path.parent if path.suffix else path).resolve().name,
        "data_digest": task.index.digest,
        "blocks": json.dumps(task.net.block_names),
        **({"instead_of": asked} if asked != settings.model.name else {}),
        **{f"{split}_images": sum(by_class.values()) for split, by_class in counts.items()},
        **{f"version.{package}": found for package, found in package_versions().items()},
    }
    parent = tracker.start_parent(name, flatten(settings), tags)
    tracker.log_text(parent, json.dumps(counts, indent=1, ensure_ascii=False), "classes.json")
    tracker.log_figure(parent, histogram_figure(counts), "figures/classes.png")
    return parent


def _run_arms(session: _Session, console: Console) -> None:
    settings = session.settings
    planned = list(arms(settings, settings.model, session.task.net.block_names))
    done = _done(session)
    tasks = {settings.model: session.task}
    for number, arm in enumerate(planned):
        if arm.name in done:
            continue
        if arm.model not in tasks:
            tasks = {arm.model: _task(session, arm.model)}  # one network at a time in memory
        with console.status(f"{number + 1} of {len(planned)}: {arm.name}"):
            _train_and_test(session, tasks[arm.model], arm)


def _done(session: _Session) -> dict[str, ArmRun]:
    tracking = session.settings.tracking
    found = find_part(tracking.root, tracking.experiment, session.key)
    return {run.arm: run for run in found.arms} if found else {}


def _task(session: _Session, model: ModelSettings, start: Path | None = None) -> Task:
    settings, task = replace(session.settings, model=model), session.task
    return build_task(settings, task.images, task.splits, cache=settings.tracking.root / "cache", start=start)


def _train_and_test(
    session: _Session, task: Task, arm: Arm, *, before_the_end: Callable[[BlockNet], None] = lambda _: None
) -> None:
    """Train one configuration, score it on the test images and log both as a child run.

    Args:
        before_the_end: does with the network what belongs to the arm: only then is it done, for a later call.
    """
    settings, tracker, params = task.settings, session.tracker, arm.params
    run = tracker.start_trial(
        session.parent,
        f"thesis: {arm.name}",
        {
            "network": arm.model.architecture,
            "weights": arm.model.weights,
            "optimizer": params.optimizer,
            "learning_rate": params.learning_rate,
            "lr_factor": params.lr_factor,
            "freeze_depth": params.freeze_depth,
            "epochs": settings.trainer.epochs,
        },
        {"protocol": "thesis", "thesis_part": settings.thesis.part, "arm": arm.name},
    )
    started = time.perf_counter()
    before = task.start_net(task.splits.folds[0].train, params.freeze_depth)
    curve, stopped, net = train_in_full(task, params, settings.seed)
    for report in curve:
        tracker.log(run, {**report.metrics, "epoch_seconds": report.seconds}, step=report.epoch + 1)
    last = curve[-1].metrics
    found = {f"final_{name}": value for name, value in last.items()}
    if (change := _weight_change(before, net, params.freeze_depth)) is not None:
        found["weight_change"] = change
    rows = task.splits.test
    judged, _ = task_features(task, net, rows)
    if not judged.logits.isfinite().all():
        stopped = "diverged"
    if stopped is None:
        found |= {f"test_{n}": v for n, v in scores(judged.logits, judged.labels).items()}
        found["test_images"] = len(judged.rows)
    found["seconds"] = time.perf_counter() - started
    tracker.log(run, found, step=len(curve), tags={"status": stopped or "complete"})
    before_the_end(net)
    tracker.finish(run, "FINISHED")


@torch.no_grad()
def _weight_change(before: BlockNet, after: BlockNet, freeze_depth: int) -> float | None:
    """|after - before| / |before| over the thawed blocks' weights (not the head's); None where all are frozen."""
    pairs = [
        (old.double(), new.double())
        for old, new in zip(
            before.blocks[freeze_depth:].parameters(), after.blocks[freeze_depth:].parameters(), strict=True
        )
    ]
    if not pairs:
        return None
    moved = sum(float((new - old).square().sum()) for old, new in pairs)
    size = sum(float(old.square().sum()) for old, _ in pairs)
    return float(np.sqrt(moved / size)) if size > 0 and np.isfinite(moved) else None


def _finetune(session: _Session, key: str, console: Console) -> None:
    """Train the best partly frozen model of thesis_transfer again, save it, and all of it on from there."""
    settings, task = session.settings, session.task
    best, epochs = _best_transfer(settings, key, task.net.num_blocks)
    optimizer = settings.space.optimizers[0]
    params = TrialParams(optimizer, settings.space.default_lr_factor, 0)
    arm = Arm(f"from {best.arm}: {optimizer} at {params.learning_rate:g}", settings.model, params)
    if arm.name in _done(session):
        return
    chosen = TrialParams(best.params["optimizer"], float(best.params["lr_factor"]), best.freeze_depth)
    folder = Path(tempfile.mkdtemp(prefix="thawline-"))
    try:
        with console.status(f"Training {best.arm} again"):
            longer = replace(settings, trainer=replace(settings.trainer, epochs=epochs))
            _, _, net = train_in_full(replace(task, settings=longer), chosen, settings.seed)
        save_model(folder / "model", TrainedModel(net, model_card(task, net, chosen.freeze_depth)))
        start = _task(session, settings.model, folder / "model")
        with console.status(f"{arm.name}, LIME, CAM and Grad-CAM" if settings.thesis.maps else arm.name):
            _train_and_test(session, start, arm, before_the_end=partial(_draw_maps, session, start))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw_maps(session: _Session, task: Task, net: BlockNet) -> None:
    """Figures 17 to 19 by the fine-tuned network, where maps are asked for."""
    if session.settings.thesis.maps:
        from search.thesis.maps import maps_figures

        for name, figure in maps_figures(task, net, session.settings.thesis.maps).items():
            session.tracker.log_figure(session.parent, figure, f"figures/{name}.png")


def _best_transfer(settings: Settings, key: str, num_blocks: int) -> tuple[ArmRun, int]:
    """The transfer run with the best validation accuracy among those with some blocks frozen and some trained."""
    tracking = settings.tracking
    parts = [p for p in read_parts(tracking.root, tracking.experiment)
             if p.part == "transfer" and p.tags.get("thesis_task") == key]  # fmt: skip
    runs = [run for run in parts[-1].arms if 0 < run.freeze_depth < num_blocks and not run.diverged] if parts else []
    if not runs:
        raise InputError("there is nothing to fine-tune: run experiment=thesis_transfer on the same images first")
    best = max(runs, key=lambda run: (run.metrics["final_val_accuracy"], run.freeze_depth))
    return best, int(best.params["epochs"])


def _print(found: PartRun, console: Console) -> None:
    table = Table(title=f"protocol=thesis, {found.part}, {found.data}: last epoch", title_style="")
    for column in ("configuration", "network", "train", "validation", "test", "weighted F1"):
        table.add_column(column, justify="left" if column in ("configuration", "network") else "right")
    for run in found.arms:
        cells = ["diverged" if run.diverged else "-", "-", "-", "-"]
        if not run.diverged:
            names = ("final_train_accuracy", "final_val_accuracy", "test_accuracy", "test_weighted_f1")
            cells = [f"{run.metrics[name]:.3f}" for name in names]
        table.add_row(run.arm, f"{run.params['network']}, {run.params['weights']}", *cells)
    console.print(table)
    console.print(f"{len(found.arms)} configurations; run {found.run_id}.", highlight=False)
