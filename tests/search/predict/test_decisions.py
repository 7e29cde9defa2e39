"""`coverage=` of `python -m search.predict` and of the served model: sets, decisions, and what cannot be promised."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_modules.decisions.conformal import BY_HAND, CalibrationScores
from lightning_modules.decisions.costs import read_costs
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from search.predict.__main__ import main

CLASSES = ("가로, 줄", "b", "c")
SIZE = (32, 32)
COLUMNS = ["path", "class", "probability", "margin", "set", "decision"]


def calibrated(classes: tuple[str, ...] = CLASSES, images: int = 60, temperature: float | None = 0.15) -> TrainedModel:
    """A network whose calibration has as many images of each class, with scores from 0 to 2."""
    net = backbones.build("lenet5", classes=len(classes), size=SIZE, weights="none", seed=3)
    card = ModelCard("lenet5", classes, SIZE, "stretch", 255, 10_000, 0, {}, temperature=temperature)
    places = np.arange(images)
    scores = CalibrationScores(np.linspace(0, 2, images), places % len(classes), places)
    return TrainedModel(net, card, calibration=scores if images else None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decisions") / "m"
    save_model(folder, calibrated())
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 32 * (number + 1), (32, 32), dtype=np.uint8)).save(root / f"{number}.png")
    return root


@pytest.fixture
def predict(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        return main(arguments if any(a.startswith("model=") for a in arguments) else (*arguments, f"model={model}"))

    return run


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_sets_and_decisions_are_in_the_table(
    predict: Callable[..., int], images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bad.png").write_bytes(b"no image")
    assert predict(f"images={images}", "coverage=0.75", "on_bad=set_aside", "batch_size=3") == 0
    (images / "bad.png").unlink()
    found = rows(tmp_path / "predictions.csv")
    assert list(found[0]) == [*COLUMNS, "error", *(f"probability.{name}" for name in CLASSES)]
    limits = load_model(model).rule(0.75).limits
    assert [row["decision"] for row in found if row["error"]] == [""]
    for row in (row for row in found if not row["error"]):
        logs = -np.log([float(row[f"probability.{name}"]) for name in CLASSES])
        inside = [name for name, score, limit in zip(CLASSES, logs, limits, strict=True) if score <= limit]
        assert json.loads(row["set"]) == inside
        assert row["decision"] == (inside[0] if len(inside) == 1 else BY_HAND)
    by_hand = sum(row["decision"] == BY_HAND for row in found)
    assert 0 < by_hand < 8, "the images are to show both"
    said = capsys.readouterr().out
    assert f"Predicted 8 images, {by_hand} by hand, 1 set aside" in said
    assert f"By hand: {by_hand} of 8 images (column decision)." in said


def test_the_temperature_is_in_the_probabilities(model: Path, images: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "plain", calibrated(temperature=None, images=0))
    one, plain = load_model(model), load_model(tmp_path / "plain")
    image = one.read(images / "0.png")
    expected = (plain.probabilities(image).double().log() / 0.15).softmax(1)
    assert np.allclose(one.probabilities(image), expected, atol=1e-5)
    assert np.allclose(one.answers([one.read_parts(images / "0.png")]).probabilities, expected, atol=1e-5)


def test_the_server_decides_alike(model: Path, images: Path, predict: Callable[..., int], tmp_path: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from search.tracking.served_model import ImageClassifier, signature

    assert signature().params.params[0].name == "coverage"
    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(model)}, {}))
    assert predict(f"images={images}", "coverage=0.75") == 0
    table = rows(tmp_path / "predictions.csv")
    answer = served.predict(None, pd.DataFrame({"path": [row["path"] for row in table]}), {"coverage": 0.75})
    assert answer["set"].tolist() == [json.loads(row["set"]) for row in table]
    assert answer["decision"].tolist() == [row["decision"] for row in table]
    for params in (None, {"coverage": None}):
        assert "set" not in served.predict(None, pd.DataFrame({"path": [table[0]["path"]]}), params)
    for coverage, message in ((0.99, "needs calibration images"), (1.0, "coverage must be a number > 0 and <= 0.999")):
        with pytest.raises(ValueError, match=message) as caught:
            served.predict(None, pd.DataFrame({"path": []}), {"coverage": coverage})
        assert caught.value.get_http_status_code() == 400  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("made", "coverage", "message"),
    [
        ({}, "0.99", "coverage=0.99 needs calibration images of at least 99 groups (an image without a group is one), "
                     "the model has 60; 60 allow at most 0.983"),
        ({"images": 0, "temperature": None}, "0.9", "coverage=0.9 needs a calibrated model, and this one is not"),
        ({"classes": ("a", BY_HAND)}, "0.9", "a class of the model is called 'by hand', which is a decision"),
        ({}, "1", "coverage must be a number > 0 and <= 0.999, got '1'"),
        ({}, "0", "coverage must be a number > 0 and <= 0.999, got '0'"),
        ({}, "most", "coverage must be a number > 0 and <= 0.999, got 'most'"),
    ],
)  # fmt: skip
def test_what_cannot_be_promised(
    predict: Callable[..., int],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    made: dict[str, Any],
    coverage: str,
    message: str,
) -> None:
    save_model(tmp_path / "m", calibrated(**made))
    assert predict(f"images={images}", "model=./m", f"coverage={coverage}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "predictions.csv").exists()


COSTS = "true,decided,cost\n" + "".join(
    f'"{true}","{decided}",{3.8 if decided == BY_HAND else 10}\n'
    for true in CLASSES
    for decided in (*CLASSES, BY_HAND)
    if decided != true
)
"""The most probable class, at probabilities from 0.60 to 0.68, may be expected to cost from 4.0 to 3.2."""


@pytest.mark.parametrize("kept", [False, True])
def test_the_cheapest_decision(
    predict: Callable[..., int], images: Path, tmp_path: Path, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "costs.csv").write_text(COSTS, encoding="utf-8")
    costs = read_costs(tmp_path / "costs.csv", CLASSES, on_note=print)
    save_model(tmp_path / "m", replace(calibrated(), costs=costs if kept else None))
    assert predict(f"images={images}", "model=./m", "costs=model" if kept else "costs=costs.csv") == 0
    found = rows(tmp_path / "predictions.csv")
    assert list(found[0])[4:6] == ["decision", "cost"]
    probabilities = np.array([[float(row[f"probability.{name}"]) for name in CLASSES] for row in found])
    expected = costs.expected(probabilities)
    assert [float(row["cost"]) for row in found] == pytest.approx(expected.min(1).tolist(), abs=1e-4)
    assert [row["decision"] for row in found] == [(*CLASSES, BY_HAND)[k] for k in expected.argmin(1)]
    assert len({row["decision"] for row in found}) == 2, "the images are to show both"
    if kept:
        from mlflow.pyfunc.model import PythonModelContext

        from search.tracking.served_model import ImageClassifier

        served = ImageClassifier()
        served.load_context(PythonModelContext({"model": str(tmp_path / "m")}, {}))
        frame = pd.DataFrame({"path": [row["path"] for row in found]})
        assert served.predict(None, frame, {"costs": True})["decision"].tolist() == [row["decision"] for row in found]
        assert "decision" not in served.predict(None, frame, {"costs": False})
        with pytest.raises(ValueError, match="params coverage and costs decide in different ways"):
            served.predict(None, frame, {"costs": True, "coverage": 0.5})


@pytest.mark.parametrize(
    ("made", "words", "message"),
    [
        ({}, ("costs=model",), "the model keeps no costs: it was searched without decision.costs"),
        ({"temperature": None}, ("costs=costs.csv",), "costs= needs a calibrated model, and this one is not"),
        ({"classes": ("a", "b")}, ("costs=costs.csv",), "has no cost of 'a' decided as 'b'"),
        ({}, ("costs=gone.csv",), "costs gone.csv cannot be read: No such file or directory"),
        ({}, ("costs=costs.csv", "coverage=0.5"), "coverage= and costs= decide in different ways: give one of them"),
    ],
)
def test_costs_that_cannot_be_used(
    predict: Callable[..., int],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    made: dict[str, Any],
    words: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "costs.csv").write_text(COSTS, encoding="utf-8")
    save_model(tmp_path / "m", calibrated(**made))
    assert predict(f"images={images}", "model=./m", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "predictions.csv").exists()


def test_a_calibration_that_is_gone_or_changed_is_refused(
    predict: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m", calibrated())
    scores = tmp_path / "m" / "calibration.json"
    text = scores.read_text()
    for change in (lambda: scores.write_text(text + " "), scores.unlink):
        change()
        assert predict(f"images={images}", "model=./m") == 2
        assert "calibration.json is missing or changed since it was written" in capsys.readouterr().err


def test_a_wider_model_promises_nothing() -> None:
    from search.retrain.champion import widened

    model = replace(calibrated(), trained_on=frozenset())
    assert widened(model, ("a new one", *CLASSES)).calibration is None
    assert widened(model, CLASSES).calibration is model.calibration
