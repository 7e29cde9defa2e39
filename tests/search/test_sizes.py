"""`data.size=auto` and `data.fit=auto` through the command line: what is chosen, said, kept and refused."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

RunSearch = Callable[..., SimpleNamespace]
# No search is quicker; the network's weights do not matter.
QUICK = (
    "data=folder", "model.weights=none", "search.trials=1", "trainer.epochs=1", "data.views=0", "search.evidence=false",
    "search.refit=false", "tracking.report=false", "executor=inline", "executor.threads=1",
)  # fmt: skip


def make_images(root: Path, size: tuple[int, int], counts: dict[str, int]) -> Path:
    """Noise of a size (height, width); the classes differ in brightness."""
    rng = np.random.default_rng(0)
    for kind, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            grey = rng.integers(100 * kind, 100 * kind + 100, size, dtype=np.uint8)
            Image.fromarray(grey).save(root / name / f"{number}.png")
    return root


def parent_of(root: Path, study: str) -> Any:
    """The study's run in MLflow."""
    from mlflow import MlflowClient

    from search.tracking.tracker import tracking_uri

    client = MlflowClient(tracking_uri(root))
    experiment = client.get_experiment_by_name("thawline")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.study = '{study}'")
    (run,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "more", "line", "kept"),
    [
        (
            "large",
            (200, 200),
            (),
            "Size: 224 x 224; the images are 200 x 200 (median), efficientnet_lite0 is made for 224.",
            ([224, 224], "stretch"),
        ),
        (
            "dear",
            (200, 200),
            ("data.epoch_megapixels=0.2",),
            "Size: 128 x 128; 160 would train 0.3 megapixels an epoch, more than data.epoch_megapixels=0.2.",
            ([128, 128], "stretch"),
        ),
        (
            "long",
            (40, 100),
            (),
            "Size: 128 x 128; the images are 40 x 100 (median), efficientnet_lite0 is made for 224; data.fit=pad, for "
            "the images' aspect ratio is 2.5 (median), more than 1.5.",
            ([128, 128], "pad"),
        ),
        (
            "given",
            (40, 100),
            ("data.size=[64,64]",),
            "Size: 64 x 64; as given; data.fit=pad, for the images' aspect ratio is 2.5 (median), more than 1.5.",
            ([64, 64], "pad"),
        ),
        ("both", (40, 100), ("data.size=[64,64]", "data.fit=stretch"), "", ([64, 64], "stretch")),
    ],
    ids=lambda one: one if isinstance(one, str) and " " not in one else "",
)
def test_the_choice_is_said_and_kept(
    name: str,
    size: tuple[int, int],
    more: tuple[str, ...],
    line: str,
    kept: tuple[list[int], str],
    tmp_path: Path,
    tracking_root: Path,
    run_search_warm: RunSearch,
) -> None:
    images = make_images(tmp_path / "images", size, {"dark": 7, "light": 7})
    arguments = (*QUICK, f"data.path={images}", f"tracking.root={tracking_root}", f"search.study=size-{name}", *more)
    outcome = run_search_warm(*arguments, "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    said = [one for one in outcome.out.splitlines() if one.startswith("Size:")]
    assert said == [line] * bool(line)
    run = parent_of(tracking_root, f"size-{name}")
    assert (ast.literal_eval(run.data.params["data.size"]), run.data.params["data.fit"]) == kept
    assert run.data.tags.get("size", "") == line
    assert "auto" not in (run.data.params["data.size"], run.data.params["data.fit"])


@pytest.mark.slow
def test_a_study_of_another_size_is_refused_with_what_continues_it(
    tmp_path: Path, tracking_root: Path, run_search_warm: RunSearch
) -> None:
    images = make_images(tmp_path / "images", (120, 120), {"dark": 7, "light": 7})
    arguments = (*QUICK, f"data.path={images}", f"tracking.root={tracking_root}", "model=lenet5", "search.trials=1")
    before = run_search_warm(*arguments, "data.size=[40,40]", "search.study=former")
    assert before.code == 0, before.err
    now = run_search_warm(*arguments, "search.study=former")
    assert now.code == 2
    assert "was made with data.size=[40, 40], now [96, 96]; data.size=[40,40] continues it" in now.err
    again = run_search_warm(*arguments, "data.size=[40,40]", "search.study=former")
    assert again.code == 0 and "complete with 1 finished trials" in again.out


@pytest.mark.slow
@pytest.mark.long  # draws images anew
def test_simulated_images_are_drawn_at_the_smallest_size(
    tmp_path: Path, tracking_root: Path, run_search_warm: RunSearch
) -> None:
    outcome = run_search_warm(
        *QUICK[1:], "data.images=400", "model=lenet5", f"tracking.root={tracking_root}", "search.study=size-simulated"
    )
    assert outcome.code == 0, outcome.err
    assert "Size: 96 x 96; simulated images are drawn at that size unless data.size names another." in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.size=atuo"], "data.size must be a list of 2 of a whole number >= 8 and <= 2048 or auto, got 'atuo'"),
        (["data.size=AUTO"], "or auto, got 'AUTO'"),
        (["data.size=[auto,auto]"], "or auto, got ['auto', 'auto']"),
        (["data.size=[24,96]"], "efficientnet_lite0 needs images of at least 32 x 32 pixels, got 24 x 96"),
        (["data.epoch_megapixels=0"], "data.epoch_megapixels must be a number > 0 and <= 1000000000, got 0"),
        (["data.epoch_megapixels=-1"], "data.epoch_megapixels must be a number > 0 and <= 1000000000, got -1"),
        (["data.epoch_megapixels=nan"], "data.epoch_megapixels must be a number > 0 and <= 1000000000, got nan"),
        (
            ["data.size=[96,96]", "data.epoch_megapixels=20"],
            "data.epoch_megapixels=20.0 has no effect on data.size=[96, 96]",
        ),
        (["data.epoch_megapixels=20"], "no effect on data=simulated, which is drawn at 96 x 96"),
        (["data.fit=atuo"], "data.fit must be one of auto, stretch, pad, crop, got 'atuo'"),
    ],
    ids=lambda one: "" if isinstance(one, str) else one[-1],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: list[str], words: str, tmp_path: Path, run_search_warm: RunSearch
) -> None:
    outcome = run_search_warm(*arguments, cwd=tmp_path)
    assert outcome.code == 2, outcome
    assert words in outcome.err and outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_faulty_images_are_listed_at_whatever_size(tmp_path: Path, run_search_warm: RunSearch) -> None:
    images = make_images(tmp_path / "images", (300, 200), {"dark": 7, "light": 7})
    whole = (images / "dark" / "0.png").read_bytes()
    (images / "dark" / "cut.png").write_bytes(whole[:900])
    (images / "light" / "none.png").write_bytes(b"")
    (tmp_path / "work").mkdir()
    outcome = run_search_warm("data=folder", f"data.path={images}", "model=lenet5", cwd=tmp_path / "work")
    assert outcome.code == 2
    assert "cut.png" in outcome.err and "none.png" in outcome.err
    assert list((tmp_path / "work").iterdir()) == []


def test_only_training_images_decide(tmp_path: Path) -> None:
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load, resolved

    made = tmp_path / "images"
    make_images(made / "train", (100, 100), {"dark": 6, "light": 6})
    make_images(made / "test", (220, 220), {"dark": 20, "light": 20})
    root = tmp_path / "mlruns"
    settings = compose_settings(["data=folder", f"data.path={made}", f"tracking.root={root}"])
    images = load(settings, Console(quiet=True))
    assert images.pixels.shape[1:3] == resolved(settings, images).data.size == (128, 128)
    kept = sorted((root / "cache" / "images").iterdir())
    assert load(settings, Console(quiet=True)).pixels.filename == images.pixels.filename  # type: ignore[attr-defined]
    assert sorted((root / "cache" / "images").iterdir()) == kept


@pytest.mark.parametrize(("limit", "size"), [(16, 128), (0.6, 96)])
def test_of_images_in_tiles_the_tiles_count(tmp_path: Path, limit: float, size: int) -> None:
    """Nine or so training images would fit at 128; their nine tiles each do not."""
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load, resolved

    images = make_images(tmp_path / "images", (300, 300), {"dark": 7, "light": 7})
    settings = compose_settings(
        ["data=folder", f"data.path={images}", f"tracking.root={tmp_path / 'mlruns'}", "data.tile=100",
         "data.tile_overlap=0", f"data.epoch_megapixels={limit}", "trainer.accelerator=cpu"]
    )  # fmt: skip
    found = load(settings, Console(quiet=True))
    assert found.pixels.shape[:3] == (14 * 9, size, size)
    assert resolved(settings, found).data.size == (size, size)


def test_what_only_decoding_shows_counts(tmp_path: Path) -> None:
    """Two thirds of the training images are damaged behind their headers: the others are what is trained on."""
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load

    images = make_images(tmp_path / "images", (100, 100), {"dark": 9, "light": 9})
    make_images(tmp_path / "more", (210, 210), {"dark": 20, "light": 20})
    for file in (tmp_path / "more").rglob("*.png"):
        (images / file.parent.name / f"cut-{file.name}").write_bytes(file.read_bytes()[:2000])
    root = tmp_path / "mlruns"
    settings = compose_settings(
        ["data=folder", f"data.path={images}", f"tracking.root={root}", "data.on_bad=set_aside"]
    )
    found = load(settings, Console(quiet=True))
    assert len(found.index.set_aside) == 40
    assert found.pixels.shape == (18, 128, 128, 1)
    assert json.dumps(found.resolution.size if found.resolution else None) == "[128, 128]"


@pytest.mark.slow
def test_a_network_of_one_size_gets_that_size(tmp_path: Path) -> None:
    from rich.console import Console

    from search.settings.compose import compose_settings
    from search.trial.preparation import load

    images = make_images(tmp_path / "images", (100, 100), {"dark": 7, "light": 7})
    root = tmp_path / "mlruns"
    settings = compose_settings(
        ["data=folder", f"data.path={images}", f"tracking.root={root}", "model.name=timm:coatnet_pico_rw_224",
         "model.weights=none"]
    )  # fmt: skip
    found = load(settings, Console(quiet=True)).resolution
    assert found is not None and found.size == (224, 224)


def test_a_gpu_trains_more_and_says_so(tmp_path: Path) -> None:
    from lightning_modules.images.index import ImageIndex, ImageRecord
    from search.settings.schema import Settings
    from search.trial.resolution import choose_resolution

    one = ImageRecord(tmp_path, "a", None, None, None, None, "0", size=(300, 300))
    index = ImageIndex((one,) * 1380, ("a",))
    assert choose_resolution(Settings(), index, None, gpu=False).size == (96, 96)
    found = choose_resolution(Settings(), index, None, gpu=True)
    assert found.size == (224, 224)
    assert found.why.endswith("; without a GPU it would be 96 x 96.")
    many = choose_resolution(Settings(), ImageIndex((one,) * 20_000, ("a",)), None, gpu=True)
    assert "more than 32 x data.epoch_megapixels=16, the limit on a GPU; without a GPU it would be" in many.why
    folds = [np.arange(1000), np.arange(380, 1380)]
    assert "2000" not in choose_resolution(Settings(), index, folds, gpu=False).why
    assert "32.8 megapixels" in choose_resolution(Settings(), index, folds, gpu=False).why
