"""`python -m explain` from the outside: what it writes, and one clear line for whatever it cannot use."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explain.attribution import METHODS
from explain.method_names import ATTENTION, BLOCK_METHODS, CAM
from explain.subject import choose_blocks
from lightning_modules.errors import InputError, printable
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model, write_digests
from search.command_line.output_folder import new_folder
from search.explain.__main__ import main
from search.explain.arguments import parse

CLASSES = ("island", "pipe", "갈라짐 <b>")
Explain = Callable[..., subprocess.CompletedProcess[str]]


def save_tiny(folder: Path, *, size: tuple[int, int] = (64, 64), fit: str = "stretch") -> Path:
    net = backbones.build("efficientnet_lite0", classes=len(CLASSES), size=size, weights="none")
    card = ModelCard("efficientnet_lite0", CLASSES, size, fit, 65_535, 50_000_000, 0, {})
    save_model(folder, TrainedModel(net, card))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images with a bright square each, their boxes, and their masks in a hidden folder."""
    folder = tmp_path_factory.mktemp("images")
    (folder / ".masks").mkdir()
    random = np.random.default_rng(0)
    boxes, masks = ["path,label,xmin,ymin,xmax,ymax"], ["path,mask,label"]
    for number in range(5):
        pixels = random.integers(0, 90, (80, 100), dtype=np.uint8)
        mask = np.zeros_like(pixels)
        mask[20:50, 30 + number : 60 + number] = 255
        Image.fromarray(np.maximum(pixels, mask)).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / ".masks" / f"{number}.png")
        boxes.append(f"{number}.png,island,{30 + number},20,{60 + number},50")
        masks.append(f"{number}.png,.masks/{number}.png,island")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")
    (folder / "masks.csv").write_text("\n".join(masks) + "\n")
    return folder


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    (tmp_path / "work").mkdir(exist_ok=True)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "explain", *arguments]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        folder = tmp_path / "work"
        return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=one_thread, timeout=300)

    return call


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_writes_everything_and_lists_what_it_could_not_read(
    explain: Explain, model: Path, images: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in range(3):
        (mixed / f"{number}.png").write_bytes((images / f"{number}.png").read_bytes())
    (mixed / "broken.png").write_bytes((images / "0.png").read_bytes()[:200])
    (mixed / "2.png").rename(mixed / "=2\r.png")  # a row of a table all the same
    Image.new("L", (20, 40)).save(mixed / "small.png")
    blocks = ["stage3", "stage5"]
    done = explain(f"images={mixed}", f"model={model}", "methods=[layercam,gradcam]", "blocks=[stage3,stage5]",
                   "figures=1", "batch=2", "out=deep/results")  # fmt: skip
    assert done.returncode == 1, done.stderr
    out = tmp_path / "work" / "deep" / "results"
    assert "2 problems" in done.stderr
    assert f"{mixed / 'broken.png'}: " in done.stderr
    assert "20 x 40 pixels, smaller than the network's minimum of 32 x 32" in done.stderr
    rows = rows_of(out / "predictions.csv")
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "=2\r.png"]
    for row in rows:
        assert row["class"] in CLASSES
        assert 0 < float(row["margin"]) < float(row["probability"]) <= 1
        for block in blocks:
            assert 0 <= float(row[f"layercam.{block}.entropy"]) <= 1
    assert not any(name.startswith("gradcam.") for name in rows[0])
    assert len(list((out / "figures").glob("*.png"))) == 1
    assert len(list((out / "contact").glob("*.png"))) == len({row["class"] for row in rows})
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["model"]["blocks"] == blocks
    assert manifest["images"] == 3
    assert len(manifest["left_out"]) == 2
    assert not (out / "localisation.csv").exists()
    assert [path.name for path in out.parent.iterdir()] == ["results"]


@pytest.mark.slow
def test_superpixels_are_drawn_for_the_images_with_a_figure(
    explain: Explain, model: Path, images: Path, tmp_path: Path
) -> None:
    done = explain(f"images={images}", f"model={model}", "methods=[gradcam,lime]", "blocks=[stage5]", "figures=2")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "work" / "explanations" / "index.html").read_text(encoding="utf-8")
    assert page.count("<h4>lime</h4>") == 2
    assert page.count("Evidence for each class:") == 2


@pytest.mark.parametrize("table", ["boxes", "masks"])
def test_localisation_by_block_and_method_beside_controls(
    model: Path, images: Path, tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([f"images={images}", f"model={model}", f"{table}={images / table}.csv", "methods=[gradcam]",
                   "blocks=[stage2]", "target=true", "figures=0", f"out={tmp_path / 'results'}"])  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    rows = rows_of(tmp_path / "results" / "localisation.csv")
    assert [(row["block"], row["method"]) for row in rows] == [("stage2", "gradcam"), ("stage2", "activation")]
    for row in rows:
        assert int(row["images"]) == 5
        assert float(row["energy_low"]) <= float(row["energy"]) <= float(row["energy_high"])
        for column in ("energy", "random_energy", "pointing", "random_pointing"):
            assert 0 <= float(row[column]) <= 1
        # What the square covers, 900 of 8000 pixels, is chance.
        assert float(row["energy"]) - float(row["over_chance"]) == pytest.approx(900 / 8000, abs=1e-5)
    assert float(rows[1]["over_control"]) == 0
    assert "activation" in printed.out
    assert rows_of(tmp_path / "results" / "predictions.csv")[0]["label"] == "island"


BAD = {
    "nothing": ([], "images= is missing"),
    "no model": (["images={images}"], "there are no runs yet: no file mlruns/mlflow.db"),
    "unknown argument": (["images={images}", "model={model}", "metods=[lime]"], "did you mean methods?"),
    "not name=value": (["{images}"], "arguments must be name=value"),
    "twice": (["images={images}", "images={images}", "model={model}"], "images must be given once"),
    "unknown method": (["images={images}", "model={model}", "methods=[gradcam,cam2]"], "hirescam"),
    "lime alone": (["images={images}", "model={model}", "methods=[lime]"], "at least one of gradcam"),
    "figures": (["images={images}", "model={model}", "figures=-1"], "figures must be a whole number of at least 0"),
    "batch": (["images={images}", "model={model}", "batch=0"], "batch must be a whole number of at least 1, got '0'"),
    "device": (["images={images}", "model={model}", "device=tpu"], "device must be one of auto, cpu, cuda"),
    "enlarge": (["images={images}", "model={model}", "enlarge=1"], "enlarge must be one of true, false"),
    "boxes and masks": (["images={images}", "model={model}", "boxes=a", "masks=b"], "give one of them"),
    "gap_head without cam": (
        ["images={images}", "model={model}", "gap_head={images}"],
        "gap_head= is for methods=[cam] alone: name cam among the methods",
    ),
    "true without labels": (["images={images}", "model={model}", "target=true"], "target=true needs boxes= or masks="),
    "no such image": (["images=nope.png", "model={model}"], "nope.png: no such file or folder"),
    "empty glob": (["images={images}/*.tif", "model={model}"], "the pattern matches no file"),
    "no such table": (["images={images}", "model={model}", "boxes=no.csv"], "No such file"),
    "not boxes": (
        ["images={images}", "model={model}", "boxes={images}/masks.csv"],
        "has no column xmin, ymin, xmax, ymax; ",
    ),
    "out not empty": (["images={images}", "model={model}", "out={images}"], "which is not empty"),
    "out is a file": (["images={images}", "model={model}", "out={images}/0.png"], "which is a file"),
    "no runs": (["images={images}", "model=champion"], "there are no runs yet: no file mlruns/mlflow.db"),
    "no such run": (["images={images}", "model=" + "0" * 32], "there are no runs yet"),
    "no such folder": (["images={images}", "model=gone/model"], "gone/model: no such file or folder"),
}
NEEDS_MODEL = {
    "no such block": (
        ["images={images}", "model={model}", "blocks=[stage3,stage33]"],
        "blocks must be among stage1, stage2, stage3, stage4, stage5, stage6, stage7, top, got 'stage33'",
    ),
    "class out of range": (["images={images}", "model={model}", "target=3"], "class number in 0..2, got 3 (island"),
    "unknown class": (["images={images}", "model={model}", "target=star"], "predicted, true or one of island, pipe"),
    "none readable": (["images={broken}", "model={model}"], "none of the 1 images can be explained: first:"),
    "too small": (["images={small}", "model={model}"], "smaller than the network's minimum of 32 x 32"),
    "no spatial blocks": (["images={images}", "model={flat}"], "cannot be"),
}


@pytest.fixture
def places(model: Path, images: Path, tmp_path: Path) -> dict[str, Path]:
    """What the arguments of the tables name; `work` is where the command runs."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (tmp_path / "work").mkdir(exist_ok=True)
    (inputs / "broken.png").write_bytes(b"\x89PNG")
    Image.new("L", (20, 40)).save(inputs / "small.png")
    named = {"broken": inputs / "broken.png", "small": inputs / "small.png", "flat": inputs / "flat"}
    return {"images": images, "model": model, "work": tmp_path / "work", **named}


def refuses(places: dict[str, Path], code: int, out: str, error: str, expected: str) -> None:
    assert code == 2, error
    assert out == ""
    assert expected in error
    assert error.startswith("explain: ")
    assert error.count("\n") == 1
    assert list(places["work"].iterdir()) == []


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    places: dict[str, Path], case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(places["work"])
    arguments, expected = BAD[case]
    code = main([argument.format(**places) for argument in arguments])
    refuses(places, code, *capsys.readouterr(), expected)


@pytest.mark.parametrize("case", ["nothing", "empty glob", "no such run"])
def test_refused_in_processes_of_their_own(explain: Explain, places: dict[str, Path], case: str) -> None:
    arguments, expected = BAD[case]
    done = explain(*(argument.format(**places) for argument in arguments))
    refuses(places, done.returncode, done.stdout, done.stderr, expected)


@pytest.fixture
def flat(places: dict[str, Path]) -> None:
    """A model folder that promises blocks where the network, a vision transformer, has none."""
    card = save_tiny(places["flat"]) / "model.json"
    text = card.read_text(encoding="utf-8").replace('"efficientnet_lite0"', '"timm:test_vit"')
    card.write_text(text.replace("64", "160"), encoding="utf-8")
    write_digests(card.parent)


@pytest.mark.parametrize("case", NEEDS_MODEL)
@pytest.mark.usefixtures("flat")
def test_bad_input_for_a_model_is_one_line_and_writes_nothing(
    places: dict[str, Path], case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(places["work"])
    arguments, expected = NEEDS_MODEL[case]
    code = main([argument.format(**places) for argument in arguments])
    refuses(places, code, *capsys.readouterr(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(NEEDS_MODEL)[:2])  # the others differ in nothing that a process would show
@pytest.mark.usefixtures("flat")
def test_the_same_in_processes_of_their_own(explain: Explain, places: dict[str, Path], case: str) -> None:
    arguments, expected = NEEDS_MODEL[case]
    done = explain(*(argument.format(**places) for argument in arguments))
    refuses(places, done.returncode, done.stdout, done.stderr, expected)


def test_help_answers_without_torch() -> None:
    script = (
        "import sys, explain.__main__ as m; m.main(['--help']); print(sorted({'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("usage: python -m explain")
    assert done.stdout.endswith("[]\n")


def test_method_names_are_those_of_the_registry() -> None:
    assert (*METHODS, CAM, ATTENTION) == BLOCK_METHODS


def test_a_failure_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), new_folder(tmp_path / "a" / "b") as folder:
        (folder / "file").write_text("half")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_arguments_have_defaults_and_refuse_lists_that_repeat() -> None:
    assert parse(["images=a", "model=b"]).primary == "gradcam"
    assert parse(["images=a", "model=b", "methods=lime,layercam", "blocks=all"]).primary == "layercam"
    with pytest.raises(InputError, match="blocks must not name one twice"):
        parse(["images=a", "model=b", "blocks=[x,x]"])


def test_printable_keeps_scripts_and_escapes_line_breaks() -> None:
    assert printable("섬/a\nb\udcff") == "섬/a\\nb\\xff"


class Flat(torch.nn.Module):
    """A network whose one block puts out a single position."""

    def __init__(self) -> None:
        super().__init__()
        self.block = torch.nn.AdaptiveAvgPool2d(1)
        self.head = torch.nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(images).flatten(1))


def test_blocks_of_one_position_are_no_maps() -> None:
    with pytest.raises(ValueError, match=r"the model has no spatial block, .* at 8 x 8 pixels none of block"):
        choose_blocks(Flat(), {"block": "block"}, (8, 8), None)
    net = backbones.build("efficientnet_lite0", classes=2, size=(32, 32), weights="none")
    blocks = {name: f"blocks.{name}" for name in net.block_names}
    usable, left_out = choose_blocks(net, blocks, (32, 32), None)
    assert [*usable, *left_out] == list(blocks)
    assert left_out == ("stage6", "stage7", "top")
    with pytest.raises(ValueError, match="block 'top' puts out a single position at 32 x 32"):
        choose_blocks(net, blocks, (32, 32), ["top"])
