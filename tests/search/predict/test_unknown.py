"""`unknown=` of `python -m search.predict` and of the served model: images unlike anything in training."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lightning_modules.decisions.conformal import BY_HAND, CalibrationScores
from lightning_modules.decisions.reference_images import ReferenceImages, unit_length
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from lightning_modules.networks.penultimate import answer
from search.predict.__main__ import main
from search.tracking.models import resolve_model

SIZE = (32, 32)
COLUMNS = ["unknown", "distance", "nearest"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of noise, known, and one with an edge, which is not."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(100, 130, SIZE, dtype=np.uint8)).save(root / f"{number}.png")
    edge = np.zeros(SIZE, np.uint8)
    edge[16:] = 255
    Image.fromarray(edge).save(root / "edge.png")
    return root


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = backbones.build("lenet5", classes=2, size=SIZE, weights="none", seed=3)
    made = TrainedModel(net, ModelCard("lenet5", ("a", "b"), SIZE, "stretch", 255, 10_000, 0, {}, temperature=0.1))
    names = tuple(f"{number}.png" for number in range(6))
    with torch.no_grad():
        features = answer(net.eval(), torch.cat([made.read(images / name) for name in names])).features
    near = np.full(40, 0.05, np.float32)
    reference = ReferenceImages(unit_length(features.numpy()).astype(np.float16), names, near, np.arange(40))
    scores = CalibrationScores(np.zeros(40), np.arange(40) % 2, np.arange(40))
    folder = tmp_path_factory.mktemp("unknown") / "m"
    save_model(folder, replace(made, reference=reference, calibration=replace(scores, scores=np.full(40, 0.69))))
    return folder


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_names_what_is_unlike_training(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "p.csv"
    assert main([f"images={images}", f"model={model}", f"to={to}", "unknown=0.05", "coverage=0.9", "batch_size=3"]) == 0
    rows = rows_of(to)
    assert list(rows[0])[4:9] == ["set", "decision", *COLUMNS]
    strange = [row for row in rows if row["unknown"] == "yes"]
    assert [Path(row["path"]).name for row in strange] == ["edge.png"]
    assert strange[0]["decision"] == BY_HAND and float(strange[0]["distance"]) > 0.05
    for row in rows:
        nearest = json.loads(row["nearest"])
        assert len(nearest) == 3
        assert row in strange or nearest[0] == Path(row["path"]).name
    assert ", 1 unlike anything in training" in capsys.readouterr().out


def test_the_server_answers_as_the_table(images: Path, model: Path, tmp_path: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from search.tracking.served_model import ImageClassifier, RefusedRequest

    assert main([f"images={images}", f"model={model}", f"to={tmp_path / 'p.csv'}", "unknown=0.1"]) == 0
    rows = rows_of(tmp_path / "p.csv")
    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(model)}, {}))
    asked = pd.DataFrame({"path": [row["path"] for row in rows]})
    found = served.predict(None, asked, {"unknown": 0.1}).to_dict("records")
    for row, one in zip(rows, found, strict=True):
        assert row["unknown"] == {True: "yes", False: "no"}[one["unknown"]]
        assert float(row["distance"]) == pytest.approx(one["distance"], abs=1e-5)
        assert json.loads(row["nearest"]) == one["nearest"]
    for wrong in (0.0, 0.7):
        with pytest.raises(RefusedRequest, match=r"unknown must be a number > 0 and <= 0\.5"):
            served.predict(None, asked, {"unknown": wrong})


@pytest.mark.parametrize(
    ("argument", "change", "message"),
    [
        ("unknown=0.01", {}, "unknown=0.01 needs held-out images of at least 99 groups (an image without a group is "
                             "one), the model has 40; accepted are at least 0.025"),
        ("unknown=0.05", {"reference": None}, "unknown=0.05 needs a model that knows its training images, and this one "
                                              "was made by an earlier version, or with too few validation images"),
        ("unknown=1", {}, "unknown must be a number > 0 and <= 0.5, got '1'"),
        ("unknown=often", {}, "unknown must be a number > 0 and <= 0.5, got 'often'"),
    ],
)  # fmt: skip
def test_what_cannot_be_promised_is_one_line(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str,
    change: dict[str, Any], message: str,
) -> None:  # fmt: skip
    other = tmp_path / "other"
    save_model(other, replace(load_model(model), **change))
    assert main([f"images={images}", f"model={other}", f"to={tmp_path / 'p.csv'}", argument]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "p.csv").exists()


def test_a_search_leaves_what_tells_unknown_images(finished: SimpleNamespace) -> None:
    # Searches of other tests that share the store may have registered a newer one.
    version = re.search(r"\(version (\d+)\)", finished.outcome.out)[1]  # type: ignore[index]
    found = resolve_model(f"models:/thawline/{version}", finished.root).reference
    assert found is not None
    assert len(found.names) == len(found.features) <= 24 and all(
        "/" in name and not name.startswith("/") for name in found.names
    )
    assert np.linalg.norm(found.features.astype(float), axis=1) == pytest.approx(1, abs=1e-2)
    assert 0 < len(found.distances) < 12 and (found.distances >= 0).all()
