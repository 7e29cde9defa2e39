"""Images in tiles through the command line: searched, predicted, served, explained and retrained, and what is refused.

The images are 150 x 100 pixels of noise; in those of class `spot` one square of 24 pixels is bright, and a mask
says so: a network that sees tiles of 50 pixels can tell them apart.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from lightning_modules.errors import InputError
from lightning_modules.networks.model_file import load_model
from lightning_modules.training.scores import scores
from search.settings.compose import compose_settings
from search.trial.preparation import load, split
from search.trial.result import TrialParams
from search.trial.task import build_task
from search.trial.training import train_in_full
from tests.search.conftest import RunSearch

SIDES = (100, 150)
SPOT = 24
TILES = ("data.tile=50", "data.normal=free", "data.size=[32,32]")


def write_images(folder: Path, each: int, months: tuple[str, ...] = ("",), *, masks: bool = True) -> Path:
    """The manifest of so many images of each class and month; the place of a spot is part of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for month in months:
        for label in ("free", "spot"):
            for number in range(each):
                pixels = rng.normal(100, 10, SIDES)
                top, left = (int(rng.integers(0, side - SPOT + 1)) for side in SIDES)
                name, mask = f"{label}{month}-{number}-{top}-{left}", ""
                if label == "spot":
                    pixels[top : top + SPOT, left : left + SPOT] = 250
                    defect = np.zeros(SIDES, np.uint8)
                    defect[top : top + SPOT, left : left + SPOT] = 255
                    mask = f"{name}-mask.png" if masks else ""
                    if masks:
                        Image.fromarray(defect).save(folder / mask)
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{name}.png")
                rows.append((f"{name}.png", label, month, mask))
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "month", "mask"), *rows])
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("tiles") / "images", 12)


@pytest.fixture(scope="module")
def searched(manifest: Path, tracking_root: Path, run_search_warm: RunSearch) -> SimpleNamespace:
    """A finished search on tiles, with its report: `outcome`, `winner`, `model` (a folder)."""
    from search import load_study
    from search.tracking.tracker import tracking_uri

    outcome = run_search_warm(
        "data=manifest", f"data.path={manifest}", *TILES, "search.trials=1", "trainer.epochs=2", "data.views=1",
        "search.evidence=false", "space.freeze_depth=[6,8]", "space.default_freeze_depth=8", "executor=inline",
        "executor.threads=1", f"tracking.root={tracking_root}", "tracking.model_name=tiles", "search.study=tiles",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    winner = load_study("tiles", tracking_root).winner
    assert winner is not None
    from mlflow import MlflowClient

    uri = tracking_uri(tracking_root)
    source = str(MlflowClient(uri, registry_uri=uri).get_model_version("tiles", winner.version).source)
    model = next(tracking_root.glob(f"artifacts/models/{source.removeprefix('models:/')}/**/model.json")).parent
    return SimpleNamespace(outcome=outcome, winner=winner, model=model, root=tracking_root)


def settings_of(manifest: Path, root: Path, *more: str) -> Any:
    return compose_settings(["data=manifest", f"data.path={manifest}", *TILES, f"tracking.root={root}", *more])


def test_splits_counts_and_labels_are_of_images_and_rows_of_tiles(manifest: Path, tmp_path: Path) -> None:
    settings = settings_of(manifest, tmp_path, "data.max_train_per_class=5", "model=lenet5", "data.tile_defect=0.1")
    images = load(settings, Console(quiet=True))
    splits = split(settings, images.index)
    task = build_task(settings, images, splits, cache=tmp_path / "cache")
    assert images.index.class_counts() == {"free": 12, "spot": 12}
    assert len(images.pixels) == len(task.index.records) == 24 * 12
    tiles = task.index.tiles
    assert tiles is not None and tiles.normal == 0
    fold, own = task.splits.folds[0], splits.folds[0]
    parts = [(fold.train, own.train), (fold.val, own.val), (task.splits.test, splits.test)]
    for rows, of in parts:
        assert task.image_rows(rows).tolist() == of.tolist()
    assert [len(rows) for rows, _ in parts[1:]] == [12 * len(own.val), 12 * len(splits.test)]
    assert np.bincount(images.index.labels[own.train]).tolist() == [5, 5]
    seen = 0
    for row in range(len(tiles.image)):
        record = images.index.records[tiles.image[row]]
        top, left, height, width = tiles.boxes[row].tolist()
        mask = np.zeros(SIDES, bool) if record.mask is None else np.asarray(Image.open(record.mask)) > 0
        pixels = int(mask[top : top + height, left : left + width].sum())
        assert task.index.records[row].label == ("spot" if pixels else "free")
        most = record.defect is not None and pixels == max(record.defect)
        assert tiles.trainable[row] == (pixels == 0 or pixels >= 250 or most)
        seen += not tiles.trainable[row]
    assert seen and tiles.trainable[fold.train].all()
    assert len({record.digest for record in task.index.records}) == len(task.index.records)


def test_the_size_of_tiles_is_chosen_and_the_reason_kept(manifest: Path, tmp_path: Path) -> None:
    settings = settings_of(manifest, tmp_path, "data.size=auto", "model=lenet5")
    images = load(settings, Console(quiet=True))
    task = build_task(settings, images, split(settings, images.index), cache=tmp_path / "cache")
    assert task.settings.data.pixels == images.pixels.shape[1:3] == (96, 96)
    assert task.images.resolution == images.resolution
    why = images.resolution.why if images.resolution else ""
    assert why.startswith("Size: 96 x 96; the tiles are 50 x 50 (median), lenet5 is made for ")


def test_masks_are_in_the_keys_of_what_is_trained(manifest: Path, tmp_path: Path) -> None:
    """The same images with other masks, another share or no normal class are another study with other activations."""
    other = write_images(tmp_path / "images", 12)
    mask = next(other.parent.glob("spot-0-*-mask.png"))
    defect = np.asarray(Image.open(mask)).copy()
    defect[0, 0] = 255
    keys = set()
    for table, *more in (
        (manifest,), (manifest, "data.tile_defect=0.1"), (manifest, "data.tile_overlap=0.5"), (other,),
    ):  # fmt: skip
        if table is other:
            Image.fromarray(defect).save(mask)
        settings = settings_of(table, tmp_path, "model=lenet5", *more)
        images = load(settings, Console(quiet=True))
        task = build_task(settings, images, split(settings, images.index), cache=tmp_path / "cache")
        keys.add((task.index.digest, task.splits.digest, task.cache._folder.name))
    assert [len(set(part)) for part in zip(*keys, strict=True)] == [4, 4, 4]


def test_without_masks_tiles_have_the_class_of_their_image(tmp_path: Path) -> None:
    table = write_images(tmp_path / "images", 6, masks=False)
    settings = settings_of(table, tmp_path, "model=lenet5")
    images = load(settings, Console(quiet=True))
    task = build_task(settings, images, split(settings, images.index), cache=tmp_path / "cache")
    tiles = task.index.tiles
    assert tiles is not None and tiles.trainable.all()
    np.testing.assert_array_equal(task.index.labels, images.index.labels[tiles.image])


@pytest.mark.parametrize("normal", ["free", "null"])
def test_the_score_of_an_epoch_is_of_images(normal: str, manifest: Path, tmp_path: Path) -> None:
    more = ("model=lenet5", "data.views=0", "trainer.epochs=1", f"data.normal={normal}")
    settings = settings_of(manifest, tmp_path, *more)
    images = load(settings, Console(quiet=True))
    task = build_task(settings, images, split(settings, images.index), cache=tmp_path / "cache")
    curve, _, net = train_in_full(task, TrialParams("sgd", 1.0, 0), 0)
    val = task.splits.folds[0].val
    with torch.no_grad():
        logits = net.eval()(task.inputs(val, np.zeros_like(val)))
    log_p = logits.double().log_softmax(1).reshape(4, 12, 2)  # four images of twelve tiles
    expected = log_p[range(4), log_p[:, :, 0].argmin(1)] if normal == "free" else log_p.mean(1)
    labels = torch.from_numpy(images.index.labels[task.image_rows(val)])
    for name, value in scores(expected, labels).items():
        assert curve[-1].metrics[f"val_{name}"] == pytest.approx(value, abs=1e-5)


@pytest.mark.slow
def test_a_search_tests_and_reports_images(searched: SimpleNamespace, manifest: Path) -> None:
    assert "16 train, 4 validation, 4 test" in searched.outcome.out
    assert "Tiles: 288, " in searched.outcome.out
    assert searched.winner.images == (20, 4)
    assert searched.winner.test["accuracy"] == 1.0  # separable
    card = json.loads((searched.model / "model.json").read_text(encoding="utf-8"))
    assert card["tiling"] == {
        "side": [50, 50], "overlap": 0.25, "normal": "free", "rule": "smallest probability of normal",
    }  # fmt: skip
    trained_on = load_model(searched.model).trained_on
    assert trained_on is not None and len(trained_on) == 20
    report = next(searched.root.glob(f"artifacts/**/{searched.winner.run_id}/**/report/report.json"))
    found = json.loads(report.read_text(encoding="utf-8"))["findings"]
    assert found["judged"] == 4 and found["training_images"] == 16


@pytest.mark.slow
def test_predictions_and_the_server_answer_by_image(
    searched: SimpleNamespace, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from search.predict.__main__ import main
    from search.tracking.served_model import ImageClassifier

    monkeypatch.chdir(tmp_path)
    assert main([f"images={manifest}", f"model={searched.model}", "batch_size=5", "maps=true"]) == 0
    with Path("predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and len(list(Path("predictions_maps").iterdir())) == 24
    where = [f"tile.{name}" for name in ("top", "left", "height", "width")]
    assert list(rows[0])[4:9] == [*where, "map"]
    for row in rows:
        label, _, top, left = Path(row["path"]).stem.split("-")
        assert row["class"] == label
        tile = [int(row[name]) for name in where]
        assert tile[2:] == [50, 50]
        if label == "spot":  # the tile that decided shows it
            assert tile[0] - SPOT < int(top) < tile[0] + 50 and tile[1] - SPOT < int(left) < tile[1] + 50
    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(searched.model)}, {}))
    answers = served.predict(
        None, pd.DataFrame({"path": [str(manifest.parent / row["path"]) for row in rows]})
    ).to_dict("records")
    for answer, row in zip(answers, rows, strict=True):
        assert answer["class"] == row["class"]
        assert answer["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
        assert [str(value) for value in answer["tile"].values()] == [row[name] for name in where]


@pytest.mark.slow
def test_what_is_smaller_than_a_tile_is_no_image_for_the_model(
    searched: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.predict.__main__ import main

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((60, 40), np.uint8)).save("small.png")
    assert main(["images=small.png", f"model={searched.model}"]) == 2
    assert "small.png: 40 x 60 pixels, smaller than a tile of 50 x 50" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]


@pytest.mark.slow
def test_the_deciding_tile_is_explained_and_whole_masks_are_refused(
    searched: SimpleNamespace,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from search.explain.__main__ import main

    monkeypatch.chdir(tmp_path)
    image = next(manifest.parent.glob("spot-0-*[0-9].png"))
    given = [f"images={image}", f"model={searched.model}", "methods=[layercam]"]
    assert main([*given, f"masks={manifest}"]) == 2
    assert "boxes= and masks= measure maps of whole images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*given, "figures=1"]) == 0
    assert "of each image the tile that decides is explained" in capsys.readouterr().err
    with Path("explanations/predictions.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    model = load_model(searched.model)
    expected = model.answers([model.read_parts(image)]).probabilities[0].max()
    assert float(row["probability"]) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.slow
@pytest.mark.long  # a search of tiles stands for it
def test_a_month_of_tiles_is_compared_by_image(tmp_path: Path) -> None:
    import contextlib
    import io

    from search.retrain.__main__ import main

    table = write_images(tmp_path / "images", 16, ("2024-01", "2024-02"))
    arguments = [
        "data=manifest", f"data.path={table}", "data.tile=50", "data.normal=free", "data.size=[32,32]", "data.views=0",
        "space.freeze_depth=[8,8]", "space.default_freeze_depth=8", "trainer.epochs=1", "search.trials=1",
        "search.evidence=false", "tracking.report=false", "retrain.trials=1", "retrain.epochs=1", "retrain.depth=head",
        "executor=inline", "executor.threads=1", f"tracking.root={tmp_path / 'mlruns'}",
    ]  # fmt: skip
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(arguments) == 0
    page = next((tmp_path / "mlruns").glob("artifacts/**/month.json"))
    month = json.loads(page.read_text(encoding="utf-8"))
    assert month["month"] == "2024-02" and month["images"]["month"] == 32
    assert month["newest"]["n"] == month["images"]["compared on"] < 32
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        assert main([*arguments, "month=2024-02", "data.tile_overlap=0.5"]) == 2
    assert "data.tile_overlap=0.5 is not that of the champion" in err.getvalue()


REFUSED = {
    "tiles of simulated images": (["data.tile=50"], "data.tile is for data=folder and data=manifest, got [50, 50]"),
    "overlap out of range": (
        ["data.tile=50", "data.tile_overlap=1"],
        "data.tile_overlap must be a number >= 0 and <= 0.9",
    ),
    "tile too small": (["data.tile=4"], "data.tile must be a whole number or a list of 2 of a whole number >= 8"),
    "overlap without tiles": (
        ["data.tile_overlap=0.5"],
        "data.tile_overlap=0.5 has no effect on images that are not cut",
    ),
    "normal class without tiles": (["data.normal=free"], "data.normal=free has no effect on images that are not cut"),
    "share without a normal class": (
        ["data=manifest", "data.path=x", "data.tile=50", "data.tile_defect=0.1"],
        "data.tile_defect=0.1 has no effect on tiles without data.normal",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_do_not_fit_are_refused(name: str) -> None:
    words, message = REFUSED[name]
    with pytest.raises(InputError) as error:
        compose_settings(words)
    assert message in str(error.value)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images a class without masks, of which one is small."""
    table = write_images(tmp_path_factory.mktemp("odd") / "images", 6, masks=False)
    Image.fromarray(np.zeros((100, 49), np.uint8)).save(next(table.parent.glob("free-3-*.png")))
    return table


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (TILES, ["free-3-", ": 49 x 100 pixels, smaller than a tile of 50 x 50 (data.tile)"]),
        (
            ("data.tile=[8,8]", "data.tile_overlap=0.9", "data.normal=free"),
            ["13299 tiles of 150 x 100 pixels; data.tile accepts 4096 an image"],
        ),
        (
            ("data.tile=40", "data.normal=fre"),
            ["data.normal=fre is no class of these images; they are free, spot"],
        ),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused_before_anything_is_written(
    odd: Path, words: tuple[str, ...], messages: list[str], tmp_path: Path, run_search_warm: RunSearch
) -> None:
    outcome = run_search_warm("data=manifest", f"data.path={odd}", *words, f"tracking.root={tmp_path / 'mlruns'}")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1 or "bad inputs" in outcome.err
    for message in messages:
        assert message in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_small_image_can_be_set_aside(odd: Path, tmp_path: Path) -> None:
    settings = settings_of(odd, tmp_path, "data.on_bad=set_aside")
    for _ in range(2):  # decoded, then from what was kept
        images = load(settings, Console(quiet=True))
        assert images.index.class_counts() == {"free": 5, "spot": 6}
        assert len(images.pixels) == 11 * 12
        assert "smaller than a tile" in images.index.set_aside[0].reason


MASKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "of another size": (
        lambda path: Image.fromarray(np.full((50, 50), 255, np.uint8)).save(path),
        "is 50 x 50 pixels, the image 150 x 100",
    ),
    "without a pixel": (
        lambda path: Image.fromarray(np.zeros(SIDES, np.uint8)).save(path),
        "marks no pixel of an image labelled 'spot'",
    ),
    "that is no image": (lambda path: path.write_bytes(b"no"), "not an image of an accepted format"),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_masks_that_cannot_be_used_are_refused(name: str, tmp_path: Path) -> None:
    write, message = MASKS[name]
    table = write_images(tmp_path / "images", 5)
    write(next(table.parent.glob("spot-2-*-mask.png")))
    with pytest.raises(InputError) as error:
        load(settings_of(table, tmp_path / "mlruns"), Console(quiet=True))
    assert "spot-2-" in str(error.value) and message in str(error.value)
    assert not (tmp_path / "mlruns").exists()
    aside = settings_of(table, tmp_path / "mlruns", "data.on_bad=set_aside", "data.min_per_class=4")
    for _ in range(2):  # decoded, then from what was kept
        images = load(aside, Console(quiet=True))
        assert images.index.class_counts() == {"free": 5, "spot": 4} and len(images.pixels) == 9 * 12
        tops = images.starts[:-1][images.index.labels == 1]
        assert all(images.pixels[top : top + 12].max() > 200 for top in tops)
