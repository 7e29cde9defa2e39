"""Every setting and every input is changed in turn: the keys that must differ do, and no other.

A setting that is new must be put into one of the tables. `LEVELS` orders them: what changes pixels changes activations,
what changes these changes the heads fitted to them, and all of it is another study and another month.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from lightning_modules.images.store import ImageSet
from lightning_modules.images.tile_rows import tile_rows
from lightning_modules.images.value_range import ValueRange
from lightning_modules.networks import backbones
from search.settings.plain import key_paths
from search.settings.schema import Settings
from search.trial.keys import activation_key, head_key, settings_digest, study_identity, trial_key
from search.trial.preparation import load, split
from search.trial.result import TrialParams

LEVELS = ("pixels", "activations", "heads", "study", "month")
"""A setting changes its level and all behind it; other keys stay."""

PIXELS = {"data.size": (40, 32), "data.fit": "pad", "data.tile": (24, 24), "data.tile_overlap": 0.5}
ACTIVATIONS = {
    "seed": 1,
    "data.test": "random",
    "data.test_months": 2,
    "data.test_fraction": 0.4,
    "data.validation": "newest_month",
    "data.validation_fraction": 0.4,
    "data.folds": 2,
    "data.repeats": 2,
    "data.max_train_per_class": 4,
    "data.views": 2,
    "data.flip": False,
    "data.shift": 0.1,
    "data.gain": 0.2,
    "data.offset": 0.1,
    "data.orientation": "any",
    "model.name": "lenet5_relu",
    "model.weights": "none",
    "model.width": 0.07,
    "model.head": "attention_branch",
    "model.attention_block": "block2",
    "trainer.batch_norm_images": 16,
    "trainer.activations": "float32",
}
HEADS = {"trainer.batch_size": 8, "trainer.class_weights": "balanced"}
STUDY = {
    "data.source": "manifest",
    "data.images": 500,
    "data.on_bad": "set_aside",
    "data.min_per_class": 3,
    "data.groups": "folder",
    "data.tile_defect": 0.2,  # these images have no masks, which would change what is trained on
    "data.normal": "a",
    "space.optimizers": ("adam",),
    "space.lr_factor": (0.5, 2.0),
    "space.freeze_depth": (0, 1),
    "space.default_optimizer": "nag",
    "space.default_lr_factor": 2.0,
    "space.default_freeze_depth": 1,
    "space.default_depths": 2,
    "space.fostering": (0.0, 1.0),
    "search.metric": "accuracy",
    "search.judge": "loss",
    "search.objective": "accuracy+interpretability",
    "search.sampler": "random",
    "search.startup_trials": 3,
    "search.prior": "static",
    "search.prior_trials": 5,
    "search.prior_floor": 0.5,
    "search.evidence": True,
    "search.pruner": "none",
    "search.pruner_startup_trials": 5,
    "search.pruner_warmup_epochs": 3,
    "search.halving_factor": 2,
    "search.trust": "evidence",
    "search.refit": False,
    "search.refit_epochs": 4,
    "search.refit_rate": 0.5,
    "trainer.epochs": 5,
    "trainer.schedule": "constant",
    "trainer.weight_decay": 1e-3,
    "trainer.label_smoothing": 0.1,
    "trainer.warmup": False,
    "trainer.precision": "float32",
    "trainer.fostering.beta": 1.0,
    "trainer.fostering.block": "block5",
    "executor.threads": 2,
    "decision.costs": Path("costs.csv"),
}
MONTH = {
    "retrain.depth": "head",
    "retrain.new_class": "extend",
    "retrain.constant_share": 0.6,
    "retrain.trials": 4,
    "retrain.epochs": 4,
    "retrain.lr_range": 2.0,
    "retrain.window": "last-3",
    "retrain.replay": 10,
    "retrain.test_fraction": 0.3,
    "retrain.regression_fraction": 0.3,
    "retrain.pool_months": 2,
    "retrain.pool_images": 50,
    "retrain.margin": 0.1,
    "retrain.guard": 0.2,
    "retrain.regression": "shrink",
}
NOTHING = {
    "protocol": "thesis",
    "data.path": Path("elsewhere"),
    "data.outside": "allow",
    "data.epoch_megapixels": 1.0,  # it decides data.size, which is in the keys
    "search.study": "another",
    "search.trials": 3,
    "search.storage": "postgresql+psycopg2://me@host/studies",
    "search.members": 2,
    "search.stop": "never",
    "search.budget": "8h",
    "search.trial_seconds": 60.0,
    "search.max_attempts": 2,
    "search.fresh": True,
    "trainer.accelerator": "cpu",
    "trainer.cache_gigabytes": 0.0,
    "tracking.root": Path("another"),
    "tracking.uri": "http://another",
    "tracking.experiment": "another",
    "tracking.model_name": "another",
    "tracking.report": False,
    "tracking.restore": True,
    "executor.name": "inline",
    "executor.workers": 2,
    "executor.checkpoint_seconds": None,
    "executor.silence_seconds": 60.0,
    "executor.address": "local",
    "executor.gpus": 0.5,
    "executor.node_cache": Path("cache"),
    "retrain.start_months": 2,
    "thesis.part": "lenet",
    "thesis.rates": (0.1,),
    "thesis.maps": 2,
}
TABLES = dict(zip((*LEVELS, "nothing"), (PIXELS, ACTIVATIONS, HEADS, STUDY, MONTH, NOTHING), strict=True))
# The one setting that a pixel store depends on and its pixels do not: what it refuses is not decoded.
APART = {"data.max_pixels": (4000, {"pixels", "study", "month"})}
FIRST = {  # what must hold for a setting to act at all
    "data.test_fraction": {"data.test": "random"},
    "data.repeats": {"data.folds": 2},
    "data.tile_overlap": {"data.tile": (24, 24)},
    "data.tile_defect": {"data.tile": (24, 24), "data.normal": "a"},
    "data.normal": {"data.tile": (24, 24)},
    "model.name": {"model.name": "lenet5", "model.weights": "none"},
    "model.width": {"model.weights": "none"},
    "model.attention_block": {"model.head": "attention_branch"},
}
UNREAD = {"data.source", "data.images", "data.groups"}  # the folder stays what it is: only the setting changes

CASES = [(key, value, set(LEVELS[LEVELS.index(level) :]) if level in LEVELS else set())
         for level, table in TABLES.items() for key, value in table.items()]  # fmt: skip
CASES += [(key, value, levels) for key, (value, levels) in APART.items()]


def changed(settings: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    return replace(settings, **{name: changed(getattr(settings, name), rest, value) if rest else value})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months of three classes, four 12-bit images each; weights.safetensors; elsewhere/, the same images."""
    folder, rng = tmp_path_factory.mktemp("keys"), np.random.default_rng(0)
    for month in ("2020-01", "2020-02", "2020-03"):
        for name in ("a", "b", "c"):
            (place := folder / "images" / month / name).mkdir(parents=True)
            for number in range(4):
                Image.fromarray(rng.integers(0, 4096, (32, 48), dtype=np.uint16)).save(place / f"{number}.png")
    shutil.copytree(folder / "images", folder / "elsewhere")
    torch.manual_seed(7)
    net = backbones._narrow_vgg16(3, 0.05)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / "weights.safetensors")
    return folder


@pytest.fixture
def base(folder: Path) -> Settings:
    settings = Settings()
    for key, value in {
        "data.source": "folder",
        "data.path": folder / "images",
        "data.size": (32, 32),
        "data.fit": "stretch",
        "data.min_per_class": 2,
        "model.name": "vgg16",
        "model.width": 0.05,
        "model.weights": str(folder / "weights.safetensors"),
        "tracking.root": folder / "mlruns",
    }.items():
        settings = changed(settings, key, value)
    return settings


network = cache(backbones.build)


@cache
def loaded(settings: Settings) -> ImageSet:
    return load(settings, Console(quiet=True))


def keys(settings: Settings, read: Settings | None = None, *, watched: int = 0, device: str = "cpu") -> dict[str, str]:
    """Level -> its key; images are read by `read`, everything else goes by `settings`."""
    read, model = read or settings, settings.model
    images = loaded(Settings(seed=read.seed, data=read.data, tracking=read.tracking))
    rows, splits = tile_rows(images, split(settings, images.index), settings.data.tile_defect)
    index = rows.index
    net = deepcopy(
        network(
            model.architecture,
            classes=3,
            size=settings.data.pixels,
            weights=model.weights,
            seed=settings.seed,
            attention=model.attention,
        )
    )
    net.mean = net.mean.to(device)
    folder = activation_key(settings, index, splits, net, np.arange(watched))
    identity = study_identity(settings, index, splits, net)
    trials = {trial_key(identity, TrialParams("sgd", 1.0, 0), seed) for seed in (0, 1)}
    assert len(trials) == 2
    return {
        "pixels": images.pixels.filename.parent.name,  # type: ignore[attr-defined]
        "activations": folder,
        "heads": f"{folder}/{head_key(settings, index, net, splits.folds[0].train, 0)}",
        "study": min(trials),
        "month": settings_digest(settings),
    }


def different(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def test_every_setting_stands_in_one_table() -> None:
    listed = [key for table in (*TABLES.values(), APART) for key in table]
    assert sorted(listed) == sorted(key_paths())
    says = {key for key, (item, _) in key_paths().items() if item.metadata["identity"]}
    assert says == {*PIXELS, *ACTIVATIONS, *HEADS, *STUDY, *APART}


@pytest.mark.parametrize(("key", "value", "levels"), CASES, ids=[key for key, *_ in CASES])
def test_a_setting_changes_the_keys_of_what_it_changes(
    key: str, value: Any, levels: set[str], base: Settings, folder: Path
) -> None:
    for other, first in FIRST.get(key, {}).items():
        base = changed(base, other, first)
    after = changed(base, key, folder / value if isinstance(value, Path) else value)
    read = base if key in UNREAD else after
    assert different(keys(base), keys(after, read)) == levels


def brighter(images: Path) -> None:
    """One image that is used needs all 16 bits."""
    Image.fromarray(np.full((32, 48), 60000, np.uint16)).save(images / "2020-01" / "a" / "0.png")


def brighter_and_set_aside(images: Path) -> None:
    (images / "2020-01" / "d").mkdir()
    Image.fromarray(np.full((32, 48), 60000, np.uint16)).save(images / "2020-01" / "d" / "0.png")


def relabelled(images: Path) -> None:
    (images / "2020-01" / "a" / "0.png").rename(images / "2020-01" / "b" / "moved.png")


def renamed(images: Path) -> None:
    (images / "2020-01" / "a" / "0.png").rename(images / "2020-01" / "a" / "moved.png")


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        (brighter, {"pixels", "activations", "heads", "study"}),
        (brighter_and_set_aside, {"pixels"}),  # another set of files has a store of its own, of the same pixels
        (relabelled, {"activations", "heads", "study"}),
        (renamed, set()),
    ],
)  # fmt: skip
def test_images_change_the_keys_of_what_they_change(
    change: Callable[[Path], None], levels: set[str], base: Settings, folder: Path, tmp_path: Path
) -> None:
    base = changed(base, "data.on_bad", "set_aside")
    shutil.copytree(folder / "images", tmp_path / "images")
    change(tmp_path / "images")
    assert different(keys(base), keys(changed(base, "data.path", tmp_path / "images"))) == levels


@pytest.mark.parametrize(
    ("tensor", "levels"),
    [
        ("features.0.weight", {"activations", "heads", "study"}),
        ("classifier.0.weight", {"heads", "study"}),
    ],
)  # fmt: skip
def test_weights_change_the_keys_of_what_they_change(
    tensor: str, levels: set[str], base: Settings, folder: Path
) -> None:
    changed_weights = load_file(folder / "weights.safetensors")
    changed_weights[tensor] += 1
    save_file(changed_weights, folder / "other.safetensors")
    before = keys(base)
    try:
        (folder / "weights.safetensors").rename(folder / "kept.safetensors")
        (folder / "other.safetensors").rename(folder / "weights.safetensors")  # the setting stays
        network.cache_clear()
        assert different(before, keys(base)) == levels
    finally:
        (folder / "kept.safetensors").rename(folder / "weights.safetensors")
        network.cache_clear()


def test_all_networks_of_a_list_are_in_the_identity(base: Settings) -> None:
    names = ("lenet5", "lenet5_relu")
    settings = changed(changed(changed(base, "model.name", names), "model.weights", "none"), "model.width", 1.0)
    index = loaded(base).index
    nets = [network(name, classes=3, size=(32, 32), weights="none") for name in names]
    both = study_identity(settings, index, split(settings, index), *nets)
    alone = [study_identity(settings, index, split(settings, index), net) for net in nets]
    assert both["model.name"] == list(names)
    assert both["weights_digest"] == " ".join(one["weights_digest"] for one in alone)
    assert len({trial_key(one, TrialParams("sgd", 1.0, 0), 0) for one in (both, *alone)}) == 3


def test_watched_images_and_the_device_are_in_the_key_of_activations(base: Settings) -> None:
    for other in (keys(base, watched=2), keys(base, device="meta")):
        assert different(keys(base), other) == {"activations", "heads"}


def test_the_range_of_values_is_in_the_keys(base: Settings) -> None:
    index = loaded(base).index
    splits, net = split(base, index), network("lenet5", classes=3, size=(32, 32), weights="none")
    found = set()
    for black, white in ((0, 65_535), (0, 4095), (7, 65_535), (7, 4095)):
        other = replace(index, value_range=ValueRange(black, white))
        activations = activation_key(base, other, splits, net, np.arange(0))
        found |= {activations, trial_key(study_identity(base, other, splits, net), TrialParams("sgd", 1.0, 0), 0)}
    assert len(found) == 8
