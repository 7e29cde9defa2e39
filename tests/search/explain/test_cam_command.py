"""CAM through `python -m explain`: from the network's own head, or from heads trained on labelled images."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model
from search.explain.__main__ import main

CLASSES = ("island", "pipe", "각도")


def save_network(folder: Path, architecture: str) -> Path:
    net = backbones.build(architecture, classes=len(CLASSES), size=(64, 64), weights="none")
    save_model(folder, TrainedModel(net, ModelCard(architecture, CLASSES, (64, 64), "stretch", 65_535, 10**7, 0, {})))
    return folder


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose last block is followed by pooling and one linear layer."""
    return save_network(tmp_path_factory.mktemp("models") / "pooled", "efficientnet_lite0")


@pytest.fixture(scope="module")
def flattened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with two linear layers after flattening, as VGG-16 has three."""
    return save_network(tmp_path_factory.mktemp("models") / "flattened", "lenet5")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each class, told apart by where the stripes run, below months; a table of the same images."""
    root = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    rows = ["path,label,split"]
    for k, name in enumerate(CLASSES):
        # Names of folders come decomposed from some file systems.
        folder = root / "2019-05" / unicodedata.normalize("NFD", name)
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 60, (64, 64), dtype=np.uint8)
            pixels[8 : 8 + 16 * (k + 1) : 4] = 220
            Image.fromarray(pixels).save(folder / f"{number}.png")
            rows.append(f"{(folder / f'{number}.png').relative_to(root)},{name},train")
    rows.append("2019-05/gone.png,pipe,test")
    (root / "train.csv").write_text("\n".join(rows), encoding="utf-8")
    boxes = ["path,xmin,ymin,xmax,ymax,label"]
    boxes += [f"2019-05/island/{number}.png,0,8,64,24,island" for number in range(4)]
    (root / "boxes.csv").write_text("\n".join(boxes), encoding="utf-8")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_pooled_network_needs_no_training_and_cam_is_its_gradcam(
    pooled: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = f"images={labelled / '2019-05' / 'pipe'}"
    for method in ("cam", "gradcam"):
        code = main([images, f"model={pooled}", f"methods=[{method}]", "figures=1", f"out={tmp_path / method}"])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert ("explain: cam is drawn at top; gap_head= draws it everywhere\n" in printed.err) == (method == "cam")
    cams, gradcams = (rows_of(tmp_path / method / "predictions.csv") for method in ("cam", "gradcam"))
    assert {column.split(".")[1] for column in cams[0] if column.startswith("cam.")} == {"top"}
    assert len([column for column in gradcams[0] if column.startswith("gradcam.")]) == 40
    for one, other in zip(cams, gradcams, strict=True):
        assert float(one["cam.top.dead"]) == float(other["gradcam.top.dead"])
        for measure in ("entropy", "area", "dispersion"):
            values = [row[f"{method}.top.{measure}"] for row, method in ((one, "cam"), (other, "gradcam"))]
            assert values[0] == values[1] == "" or float(values[0]) == pytest.approx(float(values[1]), rel=1e-3)
    page = (tmp_path / "cam" / "index.html").read_text(encoding="utf-8")
    assert page.count("<h4>cam</h4>") == 1
    assert "the network&#x27;s own head at top" in page
    manifest = json.loads((tmp_path / "cam" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["cam"] == {"own": ["top"], "trained": {}, "trained_on": 0}


@pytest.mark.parametrize("source", ["", "train.csv"])
def test_heads_are_trained_for_every_block_of_a_network_without(
    flattened: Path, labelled: Path, tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on = labelled / source
    if not source:  # what stands in a folder test is left out, and what systems add is skipped
        trained_on = shutil.copytree(labelled, tmp_path / "train", ignore=shutil.ignore_patterns("*.csv"))
        for folder in ("test", "@eaDir"):
            shutil.copytree(labelled / "2019-05", trained_on / folder)
    code = main([f"images={labelled / '2019-05' / 'island'}", f"model={flattened}", "methods=[gradcam,cam]", "batch=5",
                 f"gap_head={trained_on}", f"boxes={labelled / 'boxes.csv'}", "target=true", "figures=1",
                 f"out={tmp_path / 'out'}"])  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "CAM: heads trained on 12 images, right on these: c1 " in printed.out
    cam = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["cam"]
    assert cam["own"] == []
    assert cam["trained_on"] == 12
    # The stripes take up another share of each image, so brightness alone tells the classes apart; a third by chance.
    assert list(cam["trained"]) == ["c1", "c3", "c5"] and all(0.5 < share <= 1 for share in cam["trained"].values())
    drawn = [(row["block"], row["method"]) for row in rows_of(tmp_path / "out" / "localisation.csv")]
    assert drawn == [(b, m) for b in ("c1", "c3", "c5") for m in ("gradcam", "cam", "activation")]


@pytest.mark.slow
def test_own_and_trained_heads_go_together_and_what_cannot_be_read_is_listed(
    pooled: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "train.csv"
    rows = [f"{path},{label}" for label in CLASSES
            for path in (labelled / "2019-05" / unicodedata.normalize("NFD", label)).iterdir()]  # fmt: skip
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    table.write_text("\n".join(["path,label", *rows, "broken.png,pipe"]), encoding="utf-8")
    arguments = [f"images={labelled / '2019-05' / 'pipe'}", f"model={pooled}", "methods=[cam]", "blocks=[stage2,top]"]
    assert main([*arguments, f"gap_head={table}", "figures=0", f"out={tmp_path / 'out'}"]) == 1
    printed = capsys.readouterr()
    assert "1 problems" in printed.err
    assert f"{tmp_path / 'broken.png'}: gap_head: " in printed.err
    assert "CAM: the network's own head at top; heads trained on 12 images, right on these: stage2 " in printed.out
    columns = rows_of(tmp_path / "out" / "predictions.csv")[0]
    assert {column.split(".")[1] for column in columns if column.startswith("cam.")} == {"stage2", "top"}


BAD = {
    "needed and absent": (["model={flattened}"], "the network has none after c1, c3, c5: train heads with gap_head="),
    "no own head there": (["model={pooled}", "blocks=[stage3]"], "the network has none after stage3: train heads"),
    "given and not needed": (
        ["model={pooled}", "blocks=[top]", "gap_head={labelled}"],
        "gap_head= is not needed: top has a head for CAM of its own",
    ),
    "no such file": (
        ["model={flattened}", "gap_head=gone"],
        "must name a folder or a table, got gone: no such file",
    ),
    "no class folders": (
        ["model={flattened}", "gap_head={loose}"],
        "must hold a folder for each class (island, pipe, 각도), got a.png",
    ),
    "a class without images": (
        ["model={flattened}", "gap_head={labelled}/2019-05/pipe.csv"],
        "must hold images of every class of the model, it has none of island, 각도",
    ),
    "no labels": (["model={flattened}", "gap_head={loose}/paths.csv"], "has no column label; found path; accepted are"),
    "unknown label": (
        ["model={flattened}", "gap_head={loose}/labels.csv"],
        "labels.csv row 3: label must be a class of the model (island, pipe, 각도), got 'star'",
    ),
    "two labels": (["model={flattened}", "gap_head={loose}/twice.csv"], "twice.csv row 3: a.png is pipe here and"),
    "none readable": (
        ["model={flattened}", "gap_head={loose}/unreadable.csv"],
        "none of island can be read: first: ",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    pooled: Path, flattened: Path, labelled: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    loose, work = tmp_path / "loose", tmp_path / "work"
    loose.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    Image.new("L", (64, 64)).save(loose / "a.png")
    (loose / "b.png").write_bytes(b"\x89PNG")
    tables = {
        "paths.csv": "path\na.png",
        "labels.csv": "path,label\na.png,pipe\na.png,star",
        "twice.csv": "path,label\na.png,island\na.png,pipe\nb.png,각도",
        "unreadable.csv": "path,label\nb.png,island\na.png,pipe\nc.png,각도",
    }
    for name, text in tables.items():
        (loose / name).write_text(text, encoding="utf-8")
    (labelled / "2019-05" / "pipe.csv").write_text("path,label\npipe/0.png,pipe\n", encoding="utf-8")
    places = {"pooled": pooled, "flattened": flattened, "labelled": labelled, "loose": loose}
    arguments, expected = BAD[case]
    words = [f"images={labelled / '2019-05' / 'pipe'}", "methods=[cam]", *(a.format(**places) for a in arguments)]
    code = main(words)
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert printed.out == ""
    assert printed.err.startswith("explain: ")
    assert printed.err.count("\n") == 1
    assert expected in printed.err
    assert list(work.iterdir()) == []
