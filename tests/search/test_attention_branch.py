"""`model.head=attention_branch` from the command line: searched, kept, retrained, explained, predicted, exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lightning_modules.images.splits import make_splits
from lightning_modules.images.store import load_images
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model
from search import load_study
from search.explain.__main__ import main as explain
from search.export.__main__ import main as export
from search.predict.__main__ import main as predict
from search.settings.schema import DataSettings, ModelSettings, Settings, SpaceSettings, TrainerSettings
from search.tracking.models import resolve_model
from search.trial.result import EpochReport, TrialParams
from search.trial.space import build_space
from search.trial.task import Task, build_task
from search.trial.training import run_trial

BRANCH = {"train_branch_loss", "train_branch_accuracy"}
CLASSES = ("a", "b", "c")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def make_task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Callable[..., Task]:
    folder = tmp_path_factory.mktemp("attention")
    images = make_stripes(folder / "images", dict.fromkeys(CLASSES, 6))

    def build(*, cache: str = "cache", head: str = "attention_branch", **trainer: float) -> Task:
        settings = Settings(
            data=DataSettings(source="folder", size=(32, 32), views=1),
            model=ModelSettings(head=head),
            trainer=TrainerSettings(epochs=2, batch_size=8, accelerator="cpu", **trainer),  # type: ignore[arg-type]
        )
        found = load_images("folder", images, size=(32, 32), cache=folder / "store")
        return build_task(settings, found, make_splits(found.index), cache=folder / cache)

    return build


def _curve(reports: tuple[EpochReport, ...]) -> list[object]:
    return [(r.value, r.metrics) for r in reports]


def test_the_search_reaches_up_to_the_branch(make_task: Callable[..., Task]) -> None:
    task = make_task()
    assert (task.net.attention_block, task.net.deepest) == ("stage3", 3)
    space = build_space(SpaceSettings(), task.net)
    assert space.freeze_depth == (0, 3) and {params.freeze_depth for params in space.first} <= {0, 1, 2, 3}
    assert task.identity["model.head"] == "attention_branch"


@pytest.mark.parametrize("depth", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_trial_is_the_same_with_and_without_cache_and_after_a_wait(
    make_task: Callable[..., Task], depth: int, tmp_path: Path
) -> None:
    params, task = TrialParams("adam", 1.0, depth), make_task()
    whole = run_trial(task, params, seed=0)
    assert whole.curve[-1].metrics.keys() >= BRANCH
    without = run_trial(make_task(cache="none", cache_gigabytes=0.0), params, seed=0)
    assert _curve(without.curve) == _curve(whole.curve)
    file = tmp_path / "slot-0.pt"
    first = run_trial(task, params, seed=0, report=lambda _: "wait", checkpoint=file)
    assert first.stopped == "waiting" and len(first.curve) == 1
    assert _curve(run_trial(task, params, seed=0, checkpoint=file, reported=1).curve) == _curve(whole.curve)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with a bright square each, and their boxes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = ["path,xmin,ymin,xmax,ymax,label"]
    for number in range(6):
        pixels = rng.integers(0, 90, (64, 64), dtype=np.uint8)
        pixels[10:30, 5 * number : 5 * number + 20] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{5 * number},10,{5 * number + 20},30,{CLASSES[number % 3]}")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "branch"
    net = backbones.build("lenet5", classes=3, size=(32, 32), weights="none", attention="c1").eval()
    card = ModelCard("lenet5", CLASSES, (32, 32), "stretch", 65_535, 10**7, 0, {}, attention_block="c1")
    save_model(folder, TrainedModel(net, card))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "plain"
    net = backbones.build("lenet5", classes=3, size=(32, 32), weights="none").eval()
    save_model(folder, TrainedModel(net, ModelCard("lenet5", CLASSES, (32, 32), "stretch", 65_535, 10**7, 0, {})))
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_its_map_is_a_method_of_explain(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = explain([f"images={images}", f"model={model}", "methods=[attention,gradcam]", "figures=1",
                    f"boxes={images / 'boxes.csv'}", f"to={tmp_path / 'out'}"])  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "explain: attention is drawn at c1, where the branch stands\n" in printed.err
    predicted = _rows(tmp_path / "out" / "predictions.csv")
    assert {column.split(".")[1] for column in predicted[0] if column.startswith("attention.")} == {"c1"}
    assert all(row["attention.c1.dead"] == "0" for row in predicted)
    found = {(row["method"], row["block"]): row for row in _rows(tmp_path / "out" / "localisation.csv")}
    assert found["attention", "c1"]["energy"] and ("attention", "c3") not in {
        k for k, v in found.items() if v["energy"]
    }
    assert "attention branch behind c1" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model={plain}"], "methods=attention needs a network with an attention branch, and this one has none"),
        (["model={model}", "blocks=[c3]"], "methods=attention is drawn at c1, which blocks= leaves out"),
    ],
)
def test_where_it_cannot_be_drawn_is_one_line(
    arguments: list[str], message: str, model: Path, plain: Path, images: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [word.format(model=model, plain=plain) for word in arguments]
    assert explain([f"images={images}", "methods=[attention]", f"to={tmp_path / 'out'}", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_predictions_draw_it(
    model: Path, plain: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = f"to={tmp_path / 'p.csv'}"
    assert predict([f"images={images}", f"model={model}", "maps=true", "maps_method=attention", to]) == 0
    drawn = [Path(row["map"]) for row in _rows(tmp_path / "p.csv")]
    assert len(drawn) == 6
    other = ("maps=true", f"to={tmp_path / 'g.csv'}")
    assert predict([f"images={images}", f"model={model}", *other]) == 0
    assert drawn[0].read_bytes() != Path(_rows(tmp_path / "g.csv")[0]["map"]).read_bytes()
    capsys.readouterr()
    for words, message in (
        ((f"model={plain}", "maps=true"), "maps_method=attention needs a network with an attention branch"),
        ((f"model={model}",), "maps_method= is for maps=true alone"),
    ):
        assert predict([f"images={images}", "maps_method=attention", f"to={tmp_path / 'x.csv'}", *words]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_an_exported_file_puts_it_out(kind: str, model: Path, images: Path, tmp_path: Path) -> None:
    from search.export.formats import opened

    to = tmp_path / kind
    assert export([f"images={images}", f"model={model}", f"format={kind}", f"to={to}", "latency=false"]) == 0
    outputs = tuple(json.loads((to / "metadata.json").read_text(encoding="utf-8"))["outputs"])
    assert "attention" in outputs
    run, _ = opened(kind, next(path for path in to.iterdir() if path.name.startswith("model.")), outputs)
    net = load_model(model).net
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        expected = net.get_submodule("blocks.c3.branch")(net.prefix(shown, 1))[:, 0]
    np.testing.assert_allclose(run(pixels)["attention"], expected.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def searched(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Callable[..., SimpleNamespace]
) -> SimpleNamespace:
    """A search of four trials, of which two answer together."""
    rest = [word for word in tiny if not word.startswith("search.members=")]
    words = (*rest, "search.members=2", "search.study=branch", "model.head=attention_branch",
             "tracking.model_name=branch")  # fmt: skip
    outcome = run_search_warm(*words)
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(arguments=words, outcome=outcome, root=tracking_root)


@pytest.mark.slow
def test_a_search_keeps_a_committee_of_them(searched: SimpleNamespace, stripes: Path) -> None:
    assert "Attention branch behind stage3: freeze depths up to 3 of 8." in searched.outcome.out
    study = load_study("branch", root=searched.root)
    assert all(0 <= trial.freeze_depth <= 3 for trial in study.trials)
    model = resolve_model("models:/branch@challenger", searched.root)
    assert model.card.attention_block == "stage3" and len(model.net.others) == 1
    assert all(other.attention_block == "stage3" for other in model.net.others)
    import mlflow

    served = mlflow.pyfunc.load_model(_uri(searched.root, "branch"))
    path = str(sorted(stripes.rglob("*.png"))[0])
    row = served.predict(pd.DataFrame({"path": [path]})).iloc[0]
    expected = model.probabilities(model.read(Path(path)))[0]
    assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-5)


def _uri(root: Path, name: str) -> str:
    import mlflow

    from search.tracking.tracker import tracking_uri

    mlflow.set_tracking_uri(tracking_uri(root))
    mlflow.set_registry_uri(tracking_uri(root))
    return f"models:/{name}@challenger"


@pytest.mark.slow
def test_another_head_is_another_study(
    searched: SimpleNamespace, run_search_warm: Callable[..., SimpleNamespace]
) -> None:
    plain = [word for word in searched.arguments if not word.startswith("model.head=")]
    outcome = run_search_warm(*plain)
    assert outcome.code == 2
    assert "model.head='attention_branch', now 'plain'" in outcome.err
