"""The model as MLflow serves it: in this process, and behind a real server on loopback."""

from __future__ import annotations

import base64
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_modules.decisions.conformal import CalibrationScores
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from search.tracking import served_model
from search.tracking.served_model import CODE_FOLDERS

CLASSES = ("가", "b", "c")
SIZE = (32, 32)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    net = backbones.build("lenet5", classes=3, size=SIZE, weights="none", seed=3)
    card = ModelCard("lenet5", CLASSES, SIZE, "pad", 4095, 10_000, 0, {}, temperature=0.15)
    places = np.arange(60)
    calibration = CalibrationScores(np.linspace(0, 2, 60), places % 3, places)
    save_model(folder / "model", TrainedModel(net, card, calibration=calibration))
    return folder / "model"


@pytest.fixture(scope="module")
def images(folder: Path) -> list[Path]:
    """Five images of three formats, one of 12 bits."""
    rng = np.random.default_rng(0)
    found = []
    for number, name in enumerate(("0.png", "1.jpg", "2.tif", "3.png", "4.png")):
        top, kind = (4000, np.uint16) if number == 3 else (256, np.uint8)
        Image.fromarray(rng.integers(0, top, (40, 20)).astype(kind)).save(folder / name)
        found.append(folder / name)
    return found


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def served(model: Path) -> Any:
    from mlflow.pyfunc.model import PythonModelContext

    from search.tracking.served_model import ImageClassifier

    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(model)}, {}))
    return served


class TestModel:
    def test_paths_and_bytes_give_one_answer(self, served: Any, model: Path, images: list[Path]) -> None:
        answers = [
            served.predict(None, pd.DataFrame(frame))
            for frame in (
                {"path": [str(path) for path in images]},
                {"image": [path.read_bytes() for path in images]},
                {"image": [encoded(path) for path in images]},
                {"image": [encoded(path).encode() for path in images]},  # `inputs` and `instances` arrive like this
                {"path": [str(path) if k % 2 else None for k, path in enumerate(images)],
                 "image": [None if k % 2 else path.read_bytes() for k, path in enumerate(images)]},
            )
        ]  # fmt: skip
        for answer in answers[1:]:
            pd.testing.assert_frame_equal(answer, answers[0])
        trained = load_model(model)
        for path, row in zip(images, answers[0].to_dict("records"), strict=True):
            expected = trained.probabilities(trained.read(path))[0].tolist()
            assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
            assert tuple(row["probabilities"]) == CLASSES
            assert row["class"] == CLASSES[int(np.argmax(expected))]
            assert row["margin"] == pytest.approx(sorted(expected)[2] - sorted(expected)[1], abs=1e-6)

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            ({"image": [b"no image"]}, "row 0: not an image of an accepted format"),
            ({"image": ["?"]}, "row 0: image must be the bytes of an image file in base64"),
            ({"image": [None]}, "row 0: neither a path nor image bytes"),
            ({"path": ["gone.png"]}, "row 0: gone.png: no such file"),
            ({"picture": [b""]}, "one of the columns path and image is needed"),
        ],
    )
    def test_what_cannot_be_answered(self, served: Any, frame: dict[str, list[Any]], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            served.predict(None, pd.DataFrame(frame))
        assert caught.value.get_http_status_code() == 400  # type: ignore[attr-defined]

    def test_the_row_is_named(self, served: Any, images: list[Path]) -> None:
        paths = [str(images[0])] * 40 + ["gone.png"]
        with pytest.raises(ValueError, match=r"row 40: gone\.png"):
            served.predict(None, pd.DataFrame({"path": paths}))

    def test_no_rows(self, served: Any) -> None:
        assert len(served.predict(None, pd.DataFrame({"image": []}))) == 0

    @pytest.mark.slow
    def test_it_needs_nothing_but_the_code_it_carries(self, model: Path, images: list[Path]) -> None:
        script = _CARRIED.format(
            carried=CODE_FOLDERS, served=served_model.__file__, model=str(model), image=str(images[0])
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] in CLASSES


_CARRIED = """
import runpy, sys
import pandas as pd
from mlflow.pyfunc.model import PythonModelContext
for package in {{"explain", "lightning_modules", "search"}} - set({carried!r}):
    sys.modules[package] = None  # importing it raises ModuleNotFoundError
served = runpy.run_path({served!r})["ImageClassifier"]()
served.load_context(PythonModelContext({{"model": {model!r}}}, {{}}))
sys.stdout.reconfigure(encoding="utf-8")
print(served.predict(None, pd.DataFrame({{"path": [{image!r}]}}))["class"][0])
"""


@pytest.fixture(scope="module")
def root(folder: Path, model: Path) -> Path:
    from search.tracking.tracker import Tracker

    tracker = Tracker(folder / "mlruns", "thawline")
    run = tracker.start_parent("study", {}, {})
    tracker.register(run, model, model_name="thawline", alias="champion", tags={}, note="")
    return folder / "mlruns"


@pytest.fixture(scope="module")
def server(root: Path, folder: Path) -> Iterator[str]:
    """Address of `mlflow models serve`, started as docs/predict.md says, with no way out of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nowhere = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")}
    environment = {
        **os.environ,
        **nowhere,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where uvicorn is
        "NO_PROXY": "",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "",
    }
    words = ["models", "serve", "--env-manager", "local", "-m", "models:/thawline@champion", "-p", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1"],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not _pings(address):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=300)
        for _ in range(100):
            if not _alive(process.pid):
                break
            time.sleep(0.1)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError("the server outlived SIGTERM")


@pytest.mark.slow
class TestServer:
    def test_answers_as_predict_does(
        self, server: str, root: Path, images: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from search.predict.__main__ import main

        table = tmp_path / "list.csv"
        table.write_text("path\n" + "".join(f"{path}\n" for path in images))
        words = [f"images={table}", f"to={tmp_path / 'p.csv'}", f"root={root}", "device=cpu", "coverage=0.75"]
        assert main(words) == 0
        with (tmp_path / "p.csv").open(encoding="utf-8") as file:
            expected = list(csv.DictReader(file))
        content = [encoded(path) for path in images]
        for request in (
            {"dataframe_split": {"columns": ["image"], "data": [[one] for one in content]}},
            {"dataframe_records": [{"image": one} for one in content]},
            {"inputs": {"image": content}},
            {"instances": [{"image": one} for one in content]},
            {"dataframe_split": {"columns": ["path"], "data": [[str(path)] for path in images]}},
            {"inputs": {"image": content}, "params": {"coverage": 0.75}},
        ):
            status, answer = _post(server, json.dumps(request).encode())
            assert status == 200, answer
            for row, wanted in zip(json.loads(answer)["predictions"], expected, strict=True):
                assert row["class"] == wanted["class"]
                assert row["probability"] == pytest.approx(float(wanted["probability"]), abs=1e-6)
                assert row["margin"] == pytest.approx(float(wanted["margin"]), abs=1e-6)
                assert row["probabilities"] == {
                    name: pytest.approx(float(wanted[f"probability.{name}"]), abs=1e-6) for name in CLASSES
                }
                decision = (json.loads(wanted["set"]), wanted["decision"]) if "params" in request else (None, None)
                assert (row.get("set"), row.get("decision")) == decision

    def test_malformed_requests_are_refused_and_the_server_lives_on(self, server: str, images: list[Path]) -> None:
        no_image = base64.b64encode(b"no image").decode()
        for body, message in (
            (b"{", "valid JSON"),
            (b'{"images": []}', "exactly one of the input fields"),
            (_split("image", "!!!not base64"), "base64"),
            (_split("image", 5), "Failed to convert column image"),
            (_split("image", no_image), "row 0: not an image of an accepted format"),
            (_split("path", "gone.png"), "row 0: gone.png: no such file"),
            (_split("picture", no_image), "one of the columns path and image is needed"),
            (_coverage(0.99), "coverage=0.99 needs calibration images of at least 99 groups"),
            (_coverage(2), "coverage must be a number > 0 and <= 0.999, got 2.0"),
        ):
            status, answer = _post(server, body)
            assert status == 400 and message in json.loads(answer)["message"], answer
        assert _post(server, b"", content_type="image/png")[0] == 415
        status, answer = _post(server, _split("image", encoded(images[0])))
        assert status == 200 and len(json.loads(answer)["predictions"]) == 1

    def test_the_example_of_the_docs(self, server: str, images: list[Path]) -> None:
        text = (Path(__file__).parents[3] / "docs" / "predict.md").read_text(encoding="utf-8")
        (command,) = [block for block in text.split("```") if block.startswith("sh\nprintf")]
        command = (
            command.removeprefix("sh\n").replace("http://127.0.0.1:5001", server).replace("plate.png", images[0].name)
        )
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=images[0].parent, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["predictions"][0]["class"] in CLASSES


def _split(column: str, value: Any) -> bytes:
    return json.dumps({"dataframe_split": {"columns": [column], "data": [[value]]}}).encode()


def _coverage(value: float) -> bytes:
    return json.dumps({"inputs": {"image": []}, "params": {"coverage": value}}).encode()


def _post(server: str, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": content_type})  # noqa: S310 (ours)
    try:
        with _OPENER.open(request, timeout=300) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _pings(server: str) -> bool:
    try:
        with _OPENER.open(f"{server}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
