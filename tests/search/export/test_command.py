"""`python -m search.export`: the file answers as the model and as `search.predict`, or is not written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from explain.attribution import METHODS
from explain.signals import capture
from lightning_modules.decisions.conformal import BY_HAND, CalibrationScores
from lightning_modules.decisions.costs import Costs
from lightning_modules.decisions.reference_images import ReferenceImages, unit_length
from lightning_modules.images.tiling import Tiling
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from lightning_modules.networks.penultimate import answer
from search import load_study
from search.export.__main__ import main
from search.export.formats import opened, write
from search.export.graph import ModelGraph
from search.export.metadata import as_text, metadata
from search.export.parity import Parity
from search.predict.__main__ import main as predict

SIZE = (32, 32)
CLASSES = ("가로", "b", "c")
EDGE = Path(__file__).parents[3] / "examples" / "edge" / "decide.py"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, grey and in colour, of another size than the model's."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(40):
        shape = (40, 50) if number % 2 else (40, 50, 3)
        pixels = rng.integers(0, 6 * (number + 1), shape) if number % 3 else 128 + rng.integers(0, number + 1, shape)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:02d}.png")
    return root


def make(images: Path, architecture: str = "lenet5") -> TrainedModel:
    """A calibrated model whose reference images are the first five."""
    net = backbones.build(architecture, classes=3, size=SIZE, weights="none", seed=3).eval()
    card = ModelCard(architecture, CLASSES, SIZE, "stretch", 65_535, 10_000, 0, {}, 0, 16_384, temperature=0.2)
    made = TrainedModel(net, card)
    names = tuple(f"{number:02d}.png" for number in range(5))
    with torch.no_grad():
        features = answer(net, torch.cat([made.read(images / name) for name in names])).features
    reference = ReferenceImages(
        unit_length(features.numpy()).astype(np.float16),
        names,
        np.linspace(0, 0.8, 40, dtype=np.float32),
        np.arange(40),
    )
    scores = CalibrationScores(np.linspace(0.2, 1.4, 60), np.arange(60) % 3, np.arange(60))
    return replace(made, calibration=scores, reference=reference)


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    save_model(folder, make(images))
    return folder


@pytest.fixture(scope="module")
def exported(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with decisions at 90 % and 10 % false alarms."""
    to = tmp_path_factory.mktemp("exported") / "onnx"
    words = (f"images={images}", f"model={model}", f"to={to}", "coverage=0.9", "unknown=0.1", "latency=false")
    assert main(words) == 0
    return to


def decisions(images: Path, model: Path, to: Path) -> dict[str, dict[str, str]]:
    assert predict([f"images={images}", f"model={model}", f"to={to}", "coverage=0.9", "unknown=0.1"]) == 0
    with to.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_a_program_without_torch_decides_as_predict(
    exported: Path, images: Path, model: Path, clean: Path, tmp_path: Path
) -> None:
    expected = decisions(images, model, tmp_path / "p.csv")
    start = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(0); runpy.run_path(sys.argv[0])"
    words = [sys.executable, "-I", "-S", "-c", start, str(clean), str(EDGE), str(exported), *sorted(expected)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == sorted(expected)
    for path, name, probability, decision, nearest in rows:
        row = expected[path]
        assert (name, decision) == (row["class"], row["decision"])
        assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-5)
        assert nearest == (json.loads(row["nearest"])[0] if row["unknown"] == "yes" else "")
    found = [row["decision"] for row in expected.values()]
    assert 0 < found.count(BY_HAND) < len(found)  # both kinds were compared
    assert {row["unknown"] for row in expected.values()} == {"yes", "no"}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """What `pip install onnxruntime numpy pillow` would bring into an empty environment, and nothing else."""
    folder, wanted, found = tmp_path / "clean", ["onnxruntime", "numpy", "pillow"], set()
    folder.mkdir()
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        package = distribution(name)
        needed = [Requirement(text) for text in package.requires or ()]
        wanted += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
        for part in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / part).exists():
                (folder / part).symlink_to(Path(str(package.locate_file(part))))
    assert not {"torch", "thawline", "search"} & found
    return folder


def test_the_folder_says_what_it_holds(exported: Path, model: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "SHA256SUMS", "metadata.json", "model.onnx", "parity.json"
    ]  # fmt: skip
    found = json.loads((exported / "metadata.json").read_text("utf-8"))
    sums = (model / "SHA256SUMS").read_text("utf-8")
    assert f"{found['digest']}  model.safetensors" in sums
    assert found["classes"] == list(CLASSES) and found["temperature"] == 0.2 and found["size"] == [32, 32]
    assert found["limits"] == load_model(model).rule(0.9).limits.tolist()
    parity = json.loads((exported / "parity.json").read_text("utf-8"))
    assert parity["images"] == 40 and parity["max_probability_difference"] < 1e-5 and parity["changed"] == []


@pytest.mark.parametrize("kind", [pytest.param("openvino", marks=pytest.mark.slow), "torchscript"])
def test_other_formats_answer_alike(kind: str, images: Path, model: Path, tmp_path: Path) -> None:
    to = tmp_path / kind
    assert main([f"images={images}", f"model={model}", f"to={to}", f"format={kind}", "latency=false"]) == 0
    parity = json.loads((to / "parity.json").read_text("utf-8"))
    assert parity["max_probability_difference"] < 1e-4 and parity["changed"] == []


@pytest.mark.slow
def test_openvino_reports_to_nobody(images: Path, model: Path, tmp_path: Path) -> None:
    """Its import would ask the network and leave a folder in the home."""
    (tmp_path / "home").mkdir()
    code = (
        "import socket, sys\n"
        "def refused(*_, **__): raise AssertionError('the network was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = refused\n"
        "from search.export.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0 and sys.modules['openvino_telemetry'] is None\n"
    )
    words = (f"images={images}", f"model={model}", f"to={tmp_path / 'to'}", "format=openvino", "latency=false")
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    environment.pop("CI", None)  # where it is silent by itself
    subprocess.run([sys.executable, "-c", code, *words], env=environment, check=True, capture_output=True)
    assert list((tmp_path / "home").iterdir()) == []


def test_the_map_is_grad_cam(images: Path) -> None:
    """Of a head of pooling and one linear layer, up to the number of positions (Selvaraju et al. 2017, section 3.1)."""
    model = make(images, "timm:resnet18")
    graph = ModelGraph(model).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        found = dict(zip(graph.outputs, graph(torch.from_numpy(pixels)), strict=True))
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().mul(1 / 255)
    (signals,) = capture(model.net, inputs, [f"blocks.{model.net.block_names[-1]}"])
    expected = METHODS["gradcam"](signals)
    positions = expected[0].numel()
    assert torch.allclose(found["map"], expected * positions, rtol=1e-3, atol=1e-4)


def test_costs_decide_where_they_are_asked_to(images: Path, tmp_path: Path) -> None:
    """Looking by hand pays for half of the images: what the program without PyTorch decides is what predict does."""
    made = make(images)
    sure = [float(made.probabilities(made.read(path)).max()) for path in sorted(images.iterdir())]
    by_hand = np.full((3, 1), 1 - np.median(sure))
    whole = replace(made, costs=Costs(np.hstack([1 - np.eye(3), by_hand])))
    save_model(tmp_path / "m", whole)
    to = tmp_path / "to"
    assert main([f"images={images}", f"model={tmp_path / 'm'}", f"to={to}", "costs=true", "latency=false"]) == 0
    assert predict([f"images={images}", f"model={tmp_path / 'm'}", f"to={tmp_path / 'p.csv'}", "costs=model"]) == 0
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        expected = {row["path"]: row["decision"] for row in csv.DictReader(file)}
    done = subprocess.run([sys.executable, str(EDGE), str(to), *expected], capture_output=True, text=True, check=True)
    assert [line.split("\t")[3] for line in done.stdout.splitlines()] == list(expected.values())
    assert 0 < list(expected.values()).count(BY_HAND) < len(expected)


@pytest.mark.slow
def test_int8_is_measured(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "m", make(images, "timm:resnet18"))
    words = (f"images={images}", f"model={tmp_path / 'm'}", f"to={tmp_path / 'int8'}", "precision=int8")
    assert main((*words, f"ranges={images}", "max_changed=1", "max_difference=1")) == 0
    assert "batch of 32" in capsys.readouterr().out
    found = json.loads((tmp_path / "int8" / "parity.json").read_text("utf-8"))
    assert 0 < found["max_probability_difference"] < 1


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({}, ["format=tflite"], "format must be one of onnx, openvino, torchscript, got 'tflite'"),
        ({}, ["precision=int8"], "precision=int8 needs ranges=IMAGES"),
        ({}, ["precision=int8", "format=openvino"], "precision=int8 is for format=onnx alone, got format=openvino"),
        ({}, ["ranges=elsewhere"], "ranges= is for precision=int8 alone"),
        ({}, ["coverage=0.99"], "coverage=0.99 needs calibration images of at least 99 groups"),
        ({}, ["unknown=0.01"], "unknown=0.01 needs held-out images of at least 99 groups"),
        ({}, ["costs=true"], "costs"),
        ({}, ["costs=true", "coverage=0.9"], "coverage= and costs=true decide in different ways"),
        ({"calibration": None}, ["coverage=0.9"], "coverage=0.9 needs a calibrated model"),
        ({"reference": None}, ["unknown=0.1"], "unknown=0.1 needs a model that knows its training images"),
        ({"tiling": Tiling((16, 16), 0.25)}, [], "a model of tiles cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    change: dict[str, Any], words: list[str], message: str, images: Path, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = load_model(model)
    tiled = "tiling" in change
    other = replace(whole, card=replace(whole.card, **change)) if tiled else replace(whole, **change)
    save_model(tmp_path / "other", other)
    assert main([f"images={images}", f"model={tmp_path / 'other'}", f"to={tmp_path / 'to'}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_a_folder_that_is_not_empty_is_left_alone(
    exported: Path, images: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"images={images}", f"model={model}", f"to={exported}"]) == 2
    assert "which is not empty" in capsys.readouterr().err


def test_a_file_that_answers_otherwise_is_refused(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where an exporter gets an operator wrong: here another network is written."""
    other = ModelGraph(
        replace(make(images), net=backbones.build("lenet5", classes=3, size=SIZE, weights="none", seed=4))
    )

    def wrong(kind: str, graph: ModelGraph, *rest: Any) -> Path:
        return write(kind, other, *rest)

    monkeypatch.setattr("search.export.command.write", wrong)
    assert main([f"images={images}", f"model={model}", f"to={tmp_path / 'to'}", "format=torchscript"]) == 2
    error = capsys.readouterr().err
    assert "the file's answers differ from the model's on 40 images" in error and "became" in error
    assert "max_difference=0.001" in error and error.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_a_package_that_is_missing_is_named(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else object())
    assert main([f"images={images}", f"model={model}", f"to={tmp_path / 'to'}", "format=openvino"]) == 2
    assert capsys.readouterr().err == "export: format=openvino needs openvino: pip install 'thawline[export]'\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("version", "{folder}: format 2 of the metadata, this program reads 1: take a newer one"),
        ("fit", "{folder}: images must be brought to size by pad, this program stretches them"),
        ("metadata", "{folder}/model.onnx is not an exported model that can be read: 'thawline'"),
        ("file", "{folder}/model.onnx is not an exported model that can be read: "),
        ("absent", "{folder}/model.onnx is not an exported model that can be read: "),
        ("image", "{image} is not an image that can be read: "),
    ],
)
def test_a_program_without_torch_refuses_in_one_line(
    damage: str, message: str, exported: Path, images: Path, tmp_path: Path
) -> None:
    """Among others a file whose metadata are of another version; no image is decided on, a good one neither."""
    import onnx

    other, image = onnx.load(exported / "model.onnx"), images / "01.png"
    plain = json.loads(other.metadata_props[0].value)
    plain |= {"version": {"format": 2}, "fit": {"fit": "pad"}}.get(damage, {})
    other.metadata_props[0].value = json.dumps(plain)
    if damage == "metadata":
        del other.metadata_props[:]
    if damage != "absent":
        onnx.save(other, tmp_path / "model.onnx")
    if damage == "file":
        (tmp_path / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:1000])
    if damage == "image":
        image = tmp_path / "cut.png"
        image.write_bytes(b"no image")
    done = subprocess.run(
        [sys.executable, str(EDGE), str(tmp_path), str(images / "00.png"), str(image)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"decide.py: {message.format(folder=tmp_path, image=image)}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("changed", "refused"), [(0, True), (0.5, False)])
def test_changed_decisions_are_counted_once(changed: float, refused: bool) -> None:
    plain = {"classes": ["a", "b"], "by_hand": BY_HAND, "limits": [0.5, 0.5], "costs": None, "distance_limit": None}
    parity = Parity(plain)
    parity.add(["x", "y"], {"probabilities": np.array([[0.9, 0.1], [0.2, 0.8]])},
               {"probabilities": np.array([[0.4, 0.6], [0.2, 0.8]])})  # fmt: skip
    assert parity.changed == [("x", "a", "b")] and parity.difference == pytest.approx(0.5)
    check: Callable[[], None] = lambda: parity.refuse(max_difference=1, max_changed=changed)  # noqa: E731
    if refused:
        with pytest.raises(ValueError, match="x: a became b"):
            check()
    else:
        check()


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        "efficientnet_lite0",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("vgg16@0.1", "timm:mobilenetv3_small_050")),
    ],
)
def test_networks_of_every_kind_of_head(architecture: str, images: Path, tmp_path: Path) -> None:
    made = make(images, architecture)
    graph = ModelGraph(made).eval()
    plain = metadata(made, graph.outputs, precision="float32", coverage=None, unknown=None)
    run, text = opened("onnx", write("onnx", graph, SIZE, as_text(plain), tmp_path), graph.outputs)
    assert json.loads(text) == plain
    pixels = np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = dict(zip(graph.outputs, graph(torch.from_numpy(pixels)), strict=True))
    found = run(pixels)
    assert ("map" in found) is (architecture == "efficientnet_lite0")
    for name, one in expected.items():
        assert np.allclose(found[name], one.numpy(), atol=1e-4), name


@pytest.mark.slow
def test_without_images_it_is_compared_on_the_studys_validation_images(
    finished: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study(finished.study, finished.root)
    words = (f"model={study.run_id}", f"root={finished.root}", "latency=false")
    assert main([*words, f"to={tmp_path / 'to'}"]) == 0, capsys.readouterr().err
    parity = json.loads((tmp_path / "to" / "parity.json").read_text(encoding="utf-8"))
    assert parity["images"] == 6  # of 27, as many as are tested
    assert parity["changed"] == []


def test_a_folder_needs_images(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"model={model}", f"to={tmp_path / 'to'}", f"root={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "is a folder, whose study is not known; give images=: some hundred that the model was not trained on\n"
    )
    assert not (tmp_path / "to").exists()
