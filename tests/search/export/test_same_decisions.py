"""A thousand images are decided alike by `search.predict`, the served model, exported files and the edge's program.

The model is a committee, as searches deliver them. Its limits come from its own answers to two hundred of the images,
so that every kind of decision is there many times, and for each limit an image that lies on it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules.decisions.conformal import BY_HAND, CalibrationScores
from lightning_modules.decisions.costs import Costs
from lightning_modules.decisions.reference_images import ReferenceImages, distances, unit_length
from lightning_modules.networks import backbones
from lightning_modules.networks.committee import committee
from lightning_modules.networks.model_card import ModelCard
from lightning_modules.networks.model_file import TrainedModel, load_model, save_model
from lightning_modules.networks.penultimate import answer
from search.export.__main__ import main as export
from search.export.formats import opened
from search.export.parity import decisions
from search.predict.__main__ import main as predict

IMAGES = 1000
SIZE = (32, 32)
CLASSES = ("가로, 줄", "b", "c")
EDGE = Path(__file__).parents[3] / "examples" / "edge" / "decide.py"

WAYS = {
    "sets and unknown": (
        ("coverage=0.8", "unknown=0.1"),
        ("coverage=0.8", "unknown=0.1"),
        {"coverage": 0.8, "unknown": 0.1},
    ),
    "costs": (("costs=model",), ("costs=true",), {"costs": True}),
}
"""Words of predict, words of export, and parameters of the served model, that ask for the same."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Grey and in colour, of several sizes and kinds of file, from dark to bright and from even to coarse."""
    root, rng = tmp_path_factory.mktemp("thousand"), np.random.default_rng(23)
    found = []
    for number in range(IMAGES):
        height, width, channels = 24 + number % 30, 24 + number % 17, 1 + 2 * (number % 2)
        coarse = rng.integers(0, 256, (2 + number % 9, 2 + number % 7, channels), dtype=np.uint8)
        mixed = rng.uniform(0.05, 1) * coarse + rng.uniform(0, 0.5) * (255 - coarse.max())
        picture = Image.fromarray(np.squeeze(mixed.clip(0, 255).astype(np.uint8)))
        path = root / f"{number:04d}{('.png', '.jpg', '.bmp')[number % 3]}"
        picture.resize((width, height), Image.Resampling.BICUBIC).save(path)
        found.append(path)
    return found


@pytest.fixture(scope="module")
def model(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated on its own answers to the first two hundred images; it knows the next hundred."""
    members = [backbones.build("lenet5", classes=3, size=SIZE, weights="none", seed=seed).eval() for seed in (3, 4)]
    card = ModelCard("lenet5", CLASSES, SIZE, "stretch", 65_535, 10_000, 0, {}, 0, 16_384)
    with torch.no_grad():
        shown = torch.cat([TrainedModel(members[0], card).read(path) for path in images[:300]])
        for member in members:  # centred and spread, so that random networks name every class, now and then surely
            last = [module for module in member.head.modules() if isinstance(module, nn.Linear)][-1]
            logits = member(shown)
            last.bias.sub_(logits.mean(0)).mul_(12 / logits.std())
            last.weight.mul_(12 / logits.std())
        net = committee(members, shared=0, weights=(0.7, 0.3)).eval()
        found = answer(net, shown)
    made = TrainedModel(net, replace(card, others=(0,), weights=(0.7, 0.3), temperature=1.5))
    own = (found.logits[:200].double() / 1.5).log_softmax(1).numpy()
    features = unit_length(found.features.numpy())
    labels = (own + np.random.default_rng(0).gumbel(size=own.shape)).argmax(1)  # as often right as it says
    reference = features[200:].astype(np.float16)
    near = distances(features[:200], reference)[0]
    folder = tmp_path_factory.mktemp("model") / "m"
    known = ReferenceImages(reference, tuple(path.name for path in images[200:300]), near, np.arange(200))
    by_hand = np.full((3, 1), 1 - np.median(np.exp(own.max(1))))
    costs = Costs(np.hstack([1 - np.eye(3), by_hand]))
    scores = CalibrationScores.of(own, labels, np.arange(200))
    save_model(folder, replace(made, calibration=scores, reference=known, costs=costs))
    return folder


@pytest.fixture(scope="module", params=WAYS)
def predicted(
    request: pytest.FixtureRequest, images: list[Path], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, str]]:
    """The way to decide, and the decision of each image by `search.predict`: all kinds of them."""
    to = tmp_path_factory.mktemp("predicted") / "p.csv"
    assert predict([f"images={images[0].parent}", f"model={model}", f"to={to}", *WAYS[request.param][0]]) == 0
    with to.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["path"]: row["decision"] for row in rows}
    counts = Counter(found.values())
    assert len(found) == IMAGES and counts[BY_HAND] >= 50
    assert sum(name != BY_HAND and count >= 50 for name, count in counts.items()) >= 2, counts
    if "unknown" in rows[0]:
        assert 10 < sum(row["unknown"] == "yes" for row in rows) < IMAGES - 10
    return request.param, found


def test_the_served_model_decides_as_predict(predicted: tuple[str, dict[str, str]], model: Path) -> None:
    """Of the images' bytes, as they come by HTTP."""
    from mlflow.pyfunc.model import PythonModelContext

    from search.tracking.served_model import ImageClassifier

    way, expected = predicted
    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(model)}, {}))
    frame = pd.DataFrame({"image": [Path(path).read_bytes() for path in expected]})
    assert served.predict(None, frame, WAYS[way][2])["decision"].tolist() == list(expected.values())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("onnx", marks=pytest.mark.slow),
        pytest.param("openvino", marks=[pytest.mark.slow, pytest.mark.long]),
        "torchscript",
    ],
)
def test_an_exported_file_decides_as_predict(
    kind: str, predicted: tuple[str, dict[str, str]], model: Path, tmp_path: Path
) -> None:
    if kind != "torchscript":
        pytest.importorskip("onnxruntime" if kind == "onnx" else kind)
    way, expected = predicted
    to = tmp_path / "to"
    words = (f"images={Path(next(iter(expected))).parent}", f"model={model}", f"to={to}", f"format={kind}")
    assert export([*words, "latency=false", *WAYS[way][1]]) == 0
    parity = json.loads((to / "parity.json").read_text("utf-8"))
    assert parity["images"] == IMAGES and parity["changed"] == []
    plain = json.loads((to / "metadata.json").read_text("utf-8"))
    file = next(path for path in to.iterdir() if path.stem == "model" and path.suffix != ".bin")
    run, _ = opened(kind, file, tuple(plain["outputs"]))
    read, found = load_model(model), []
    for start in range(0, IMAGES, 50):
        pixels = [read.read_parts(Path(path)).pixels for path in list(expected)[start : start + 50]]
        shown = np.concatenate([np.broadcast_to(one, (1, *SIZE, 3)) for one in pixels])
        found += decisions(run(shown), plain)
    assert found == list(expected.values())
    if kind == "onnx":  # which reads and decides by itself
        done = subprocess.run(
            [sys.executable, str(EDGE), str(to), *expected], capture_output=True, text=True, check=True
        )
        assert [line.split("\t")[3] for line in done.stdout.splitlines()] == list(expected.values())
