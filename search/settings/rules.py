"""The rules between settings: what each needs of the others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from shlex import quote

from lightning_modules.errors import InputError, printable
from search.settings.budget import parse_budget
from search.settings.plain import flatten, shown
from search.settings.schema import RetrainSettings, SearchSettings, Settings, ThesisSettings

__all__ = ["check_rules", "check_storage", "refuse_without_effect"]

_ADDRESS = r"(ray://)?([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}"


def check_rules(settings: Settings) -> None:
    """Refuse combinations of settings that contradict each other or have no effect.

    Raises:
        InputError: one line naming both settings.
    """
    data, space, search = settings.data, settings.space, settings.search
    if data.source == "simulated" and data.path is not None:
        raise InputError(f"data.path is for data=folder and data=manifest, got {str(data.path)!r} with data=simulated")
    if data.source != "simulated":
        if data.path is None:
            raise InputError(f"data.path must name the {data.source} for data={data.source}, got null")
        if data.images is not None:
            raise InputError(f"data.images is for data=simulated only, got {data.images} with data={data.source}")
    if data.outside == "allow" and data.source == "simulated":
        raise InputError("data.outside=allow is for data=folder and data=manifest, got data=simulated")
    if data.groups == "folder" and data.source != "folder":
        raise InputError(f"data.groups=folder is for data=folder only, got data={data.source}")
    if data.size != "auto" or data.source == "simulated":
        given = f"data.size={list(data.size)}" if data.size != "auto" else "data=simulated, which is drawn at 96 x 96"
        refuse_without_effect(settings, ("data.epoch_megapixels",), given)
    if data.tile is None:
        tiled = ("data.tile_overlap", "data.tile_defect", "data.normal")
        refuse_without_effect(settings, tiled, "images that are not cut into tiles (data.tile=null)")
    elif data.source == "simulated":
        raise InputError(
            f"data.tile is for data=folder and data=manifest, got {list(data.tile)} with data=simulated, whose images "
            "are drawn at data.size"
        )
    elif data.normal is None:
        refuse_without_effect(settings, ("data.tile_defect",), "tiles without data.normal, the class of those without")
    if data.test == "rest" and data.max_train_per_class is None:
        raise InputError("data.test=rest needs data.max_train_per_class=n, got null")
    if data.validation == "newest_month" and (data.folds > 1 or data.test == "rest"):
        raise InputError("data.validation=newest_month needs data.folds=1 and a test set other than rest")
    if data.repeats > 1 and data.folds == 1:
        raise InputError(f"data.repeats needs data.folds of 2 or more, got repeats={data.repeats} with folds=1")
    if data.folds > 1 and not search.refit:
        raise InputError("search.refit=false needs data.folds=1: with folds there is no single trained winner")
    if not search.refit:
        refuse_without_effect(settings, ("search.refit_epochs", "search.refit_rate"), "search.refit=false")
    elif search.refit_epochs is None:
        refuse_without_effect(settings, ("search.refit_rate",), "search.refit_epochs=null")
    elif data.folds > 1:
        refuse_without_effect(settings, ("search.refit_epochs", "search.refit_rate"), "data.folds of 2 or more")
    if search.trust == "evidence" and (search.pruner != "halving" or not search.evidence):
        evidence = str(search.evidence).lower()
        raise InputError(
            "search.trust=evidence needs search.pruner=halving and search.evidence=true, "
            f"got search.pruner={search.pruner} and search.evidence={evidence}"
        )
    if search.pruner == "maps" and not data.flip:
        raise InputError(
            "search.pruner=maps needs data.flip=true, since it compares a picture with its mirror image, got "
            "data.flip=false"
        )
    if settings.model.several:
        _check_networks(settings)
    _check_attention(settings)
    if search.storage is not None:
        check_storage(search.storage)
    if search.budget is not None:
        parse_budget(search.budget)
    if (settings.executor.workers or 1) > 1 and settings.executor.name == "inline":
        raise InputError(
            f"executor.workers={settings.executor.workers} needs executor=local or ray, got executor=inline"
        )
    if settings.executor.name == "inline":
        refuse_without_effect(settings, ("executor.silence_seconds",), "executor=inline, which has no worker processes")
    _check_ray(settings)
    _check_retrain(settings)
    _check_thesis(settings)
    if space.first_optimizer not in space.optimizers:
        raise InputError(
            f"space.default_optimizer must be one of space.optimizers ({', '.join(space.optimizers)}), "
            f"got {space.default_optimizer!r}"
        )
    for key, (low, high) in (("lr_factor", space.lr_factor), ("freeze_depth", space.freeze_depth or (0, 0))):
        if low > high:
            raise InputError(f"space.{key} must be [low, high] with low <= high, got [{low}, {high}]")
    if not space.lr_factor[0] <= space.default_lr_factor <= space.lr_factor[1]:
        raise InputError(
            f"space.default_lr_factor must be within space.lr_factor {list(space.lr_factor)}, "
            f"got {space.default_lr_factor}"
        )
    fostering = settings.trainer.fostering
    if space.fostering is not None and fostering.beta not in space.fostering:
        raise InputError(
            f"trainer.fostering.beta must be one of space.fostering {list(space.fostering)}, for trial 0, "
            f"got {fostering.beta}"
        )
    both = search.objective != "accuracy"
    if fostering.block is not None and not fostering.beta and space.fostering is None and not both:
        raise InputError(
            "trainer.fostering.block needs trainer.fostering.beta above 0, space.fostering or "
            f"search.objective=accuracy+interpretability, got block={fostering.block} with beta=0"
        )
    if both and search.pruner != "none":
        raise InputError(
            "search.objective=accuracy+interpretability needs search.pruner=none, since a trial's maps count at its "
            f"end, got search.pruner={search.pruner} (search=interpretability sets both)"
        )
    tracking = settings.tracking
    for key, name in (
        ("search.study", search.study),
        ("tracking.model_name", tracking.model_name),
        ("tracking.experiment", tracking.experiment),
    ):
        # They become file names, or part of a query or a page; the longest file name is 255 bytes.
        plain = name is None or all(c.isalnum() or c in "._- " for c in name)
        if name is not None and not (plain and name.strip(". ") and len(name.encode()) <= 200):
            raise InputError(
                f"{key} must be letters, digits, '.', '_', '-' and spaces, 200 bytes at most, got {_shortened(name)!r}"
            )
    if tracking.uri is not None:
        _check_server(settings)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(tracking.root)):  # of ://, a path keeps one slash
        raise InputError(f"tracking.root must be a folder of this machine, no address, got {str(tracking.root)!r}")


def _check_server(settings: Settings) -> None:
    """Refuse an address that is none, and what needs the store of this machine."""
    uri = settings.tracking.uri or ""
    if uri != "environment" and not re.fullmatch(r"https?://[^\s@]+", uri):
        raise InputError(
            "tracking.uri must be http://HOST:PORT, https://HOST, environment or null, without a password (that is for "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
        )
    if settings.tracking.report:
        raise InputError(
            "tracking.report=true needs runs in tracking.root, got tracking.uri as well (tracking=server sets both)"
        )


def check_storage(url: str) -> None:
    """Refuse what is no database that a study can be kept in. The text itself is not shown: it may hold a password.

    Raises:
        InputError: it is none, or holds a password.
    """
    if not re.fullmatch(r"postgresql\+psycopg2://[^\s/@]*@?[^\s/@]*/[^\s/?]+(\?\S+)?", url):
        raise InputError(
            "search.storage must be postgresql+psycopg2://USER@HOST:PORT/DATABASE, or null for a journal file"
        )
    if re.search(r"//[^/@]*:[^/@]*@|[?&]password=", url):
        raise InputError(
            "search.storage must hold no password, since settings are logged: put it into PGPASSWORD or ~/.pgpass"
        )


def _check_ray(settings: Settings) -> None:
    """Refuse what only a Ray cluster has where there is none, and an address that is none."""
    executor = settings.executor
    if executor.name != "ray":
        keys = ("executor.address", "executor.gpus", "executor.node_cache")
        refuse_without_effect(settings, keys, f"executor={executor.name}, which uses no Ray cluster")
        return
    if executor.address not in ("auto", "local") and not re.fullmatch(_ADDRESS, executor.address):
        raise InputError(
            "executor.address must be auto, local, ray://HOST:PORT or HOST:PORT, got "
            f"{printable(_shortened(executor.address))!r}"
        )
    if executor.gpus == 0 and settings.trainer.accelerator == "gpu":
        raise InputError("executor.gpus=0 gives trials no GPU, got trainer.accelerator=gpu")


def _check_networks(settings: Settings) -> None:
    """Refuse what means one network where the search chooses among several."""
    model, block = settings.model, settings.trainer.fostering.block
    several = f"model.name={shown(list(model.names))}"
    if model.weights not in ("imagenet", "none"):
        raise InputError(
            f"model.weights must be imagenet or none with several networks, got {_shortened(model.weights)!r} with "
            f"{several}"
        )
    if block is not None:
        raise InputError(
            f"trainer.fostering.block names a block of one network, got {_shortened(block)!r} with {several}; "
            "null is the last of each"
        )
    if settings.search.trials < len(model.names):
        raise InputError(
            f"search.trials must be at least the number of networks ({len(model.names)}), which are each tried, got "
            f"{settings.search.trials} with {several}"
        )
    if settings.search.trust == "evidence":
        raise InputError(
            f"search.trust=evidence needs one network, got {several}: evidence by block is collected for the first "
            "alone"
        )


def _check_attention(settings: Settings) -> None:
    """Refuse what an attention branch cannot go with, and its block where there is none."""
    model, fostering = settings.model, settings.trainer.fostering
    if model.head == "plain":
        refuse_without_effect(settings, ("model.attention_block",), "model.head=plain, which has no attention branch")
        return
    if fostering.beta or settings.space.fostering is not None:
        key = "trainer.fostering.beta" if settings.space.fostering is None else "space.fostering"
        raise InputError(
            f"{key} needs model.head=plain: a network with an attention branch is not fostered as well, got "
            f"model.head={model.head}"
        )
    if model.several and model.attention_block is not None:
        raise InputError(
            f"model.attention_block names a block of one network, got {_shortened(model.attention_block)!r} with "
            f"model.name={shown(list(model.names))}; null chooses one in each"
        )


def _check_retrain(settings: Settings) -> None:
    retrain = settings.retrain
    if retrain.depth not in ("auto", "none", "head", "search") and not re.fullmatch("[0-9]{1,4}", retrain.depth):
        raise InputError(
            f"retrain.depth must be auto, none, head, search or a number of blocks, got {_shortened(retrain.depth)!r}"
        )
    if not re.fullmatch("all|last-[1-9][0-9]{0,3}", retrain.window):
        raise InputError(f"retrain.window must be all or last-N, as in last-3, got {_shortened(retrain.window)!r}")
    if retrain.window == "all" and retrain.replay != RetrainSettings().replay:
        raise InputError(
            f"retrain.replay={retrain.replay} has no effect with retrain.window=all, which trains on every month; "
            "leave it at its default, or give retrain.window=last-N"
        )


def _check_thesis(settings: Settings) -> None:
    thesis, protocol = settings.thesis, settings.protocol
    if (protocol == "thesis") != (thesis.part is not None):
        raise InputError(
            "protocol=thesis, which scores the test set for every configuration, is for experiment=thesis_lenet, "
            f"thesis_random, thesis_transfer, thesis_finetune and thesis_rates alone, got protocol={protocol} with "
            f"thesis.part={thesis.part or 'null'}"
        )
    for name, part in (("rates", "rates"), ("maps", "finetune")):
        if getattr(thesis, name) != getattr(ThesisSettings(), name) and thesis.part != part:
            value = getattr(thesis, name)
            raise InputError(f"thesis.{name} is for thesis.part={part} alone, got {value} with {thesis.part or 'null'}")
    if thesis.part is None:
        return
    if settings.model.several:
        raise InputError(f"thesis.part needs one network, got model.name={shown(list(settings.model.names))}")
    if settings.data.folds > 1:
        raise InputError(f"thesis.part needs data.folds=1, got {settings.data.folds}")
    idle = [f"search.{item.name}" for item in fields(SearchSettings) if item.name != "metric"]
    why = "which trains every configuration of its part once, one after the other"
    idle += ["executor.workers", "decision.costs", "tracking.uri", "model.head"]
    refuse_without_effect(settings, idle, f"protocol=thesis, {why}")


def refuse_without_effect(settings: Settings, keys: Iterable[str], on: str) -> None:
    """Refuse settings that would be ignored.

    Args:
        keys: dotted, as on the command line.
        on: what they do nothing to, and what to take instead.

    Raises:
        InputError: one of them is not at its default.
    """
    given, defaults = flatten(settings), flatten(Settings())
    for key in keys:
        if (value := given[key]) != defaults[key]:
            raise InputError(f"{key}={quote(_shortened(str(value)))} has no effect on {on}; leave it at its default")


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}… ({len(text)} characters)"
