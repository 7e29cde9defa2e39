"""`python -m search.predict`: the table, the maps, and what is refused."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, load_model, save_model, write_digests
from search.predict.__main__ import main

CLASSES = ("가로, 줄", "b", "c")
SIZE = (32, 32)
ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "predict.md"


def write_model(folder: Path, white_level: int = 65_535, fit: str = "stretch") -> Path:
    net = backbones.build("lenet5", classes=3, size=SIZE, weights="none", seed=3)
    save_model(folder, TrainedModel(net, ModelCard("lenet5", CLASSES, SIZE, fit, white_level, 10_000, 0, {})))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images in folders, one of a name that is not UTF-8; a hidden one and a text do not count."""
    root = tmp_path_factory.mktemp("images") / "lot 3"
    rng = np.random.default_rng(0)
    for name in (
        "b/2.png",
        "b/10.png",
        "a.jpg",
        "강판.bmp",
        "b/c/x.tif",
        ".hidden/y.png",
        "b/.z.png",
        "b/odd\udce9.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 20), dtype=np.uint8)).save(root / name)
    (root / "b" / "twice.png").symlink_to(root / "b" / "2.png")
    (root / "b" / "round").symlink_to(root)
    (root / "notes.txt").write_text("not an image")
    return root


def read(table: Path | str) -> list[dict[str, str]]:
    text = table if isinstance(table, str) else table.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def predict(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in an empty folder, with the model; `predict(*arguments)`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        given = arguments if any(a.startswith("model=") for a in arguments) else (*arguments, f"model={model}")
        return main(given)

    return run


class TestTable:
    def test_of_a_folder(
        self, predict: Callable[..., int], images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert predict(f"images={images}", "batch_size=3") == 0
        said = capsys.readouterr().out
        assert re.match(
            r"Predicted 7 images with .*: predictions\.csv\nBy class: .*\.\nDoubtful: [0-7] of 7 images, ", said
        )
        assert sum(map(int, re.findall(r"(\d+)[,.]", said.splitlines()[1]))) == 7
        rows = read(tmp_path / "predictions.csv")
        assert list(rows[0]) == ["path", "class", "probability", "margin", *(f"probability.{c}" for c in CLASSES)]
        found = [row["path"].removeprefix(f"{images}/") for row in rows]
        assert found == ["a.jpg", "b/10.png", "b/2.png", "b/c/x.tif", "b/odd\\xe9.png", "b/twice.png", "강판.bmp"]
        trained = load_model(model)
        for row in rows:
            expected = trained.probabilities(trained.read(Path(row["path"].replace("\\xe9", "\udce9"))))[0]
            values = np.array([row[f"probability.{c}"] for c in CLASSES], np.float32)
            assert np.allclose(values, expected, atol=1e-6)
            ordered = np.sort(values)
            assert row["class"] == CLASSES[int(values.argmax())]
            assert np.float32(row["probability"]) == ordered[-1]
            assert np.float32(row["margin"]) == ordered[-1] - ordered[-2]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["predictions.csv"]

    def test_numbers_read_back_as_they_were(self, predict: Callable[..., int], images: Path, model: Path) -> None:
        assert predict(f"images={images / 'a.jpg'}", "to=deep/er/one.csv") == 0
        trained = load_model(model)
        expected = trained.probabilities(trained.read(images / "a.jpg"))[0].numpy()
        (row,) = read(Path("deep/er/one.csv"))
        assert [np.float32(row[f"probability.{c}"]) for c in CLASSES] == expected.tolist()

    def test_a_table_keeps_its_order_and_its_names(
        self, predict: Callable[..., int], images: Path, tmp_path: Path
    ) -> None:
        names = ["b/2.png", "a.jpg", "b/2.png"]
        listing = images / "list.csv"
        listing.write_text("\ufeffid,path\n" + "".join(f"{k},{name}\n" for k, name in enumerate(names)))
        assert predict(f"images={listing}") == 0
        assert [row["path"] for row in read(tmp_path / "predictions.csv")] == names
        listing.unlink()

    def test_no_name_splits_a_row_or_becomes_a_formula(
        self, predict: Callable[..., int], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classes = ("=cmd|' /C calc'!A0", "-1+1", "'quoted'")
        net = backbones.build("lenet5", classes=3, size=SIZE, weights="none", seed=3)
        save_model(tmp_path / "m", TrainedModel(net, ModelCard("lenet5", classes, SIZE, "pad", 255, 10_000, 0, {})))
        names = ["+1.png", "=a\rb.png", "@c,\n.png", "\td.png", "'e.png", "f.png"]
        for name in sorted(names):
            (tmp_path / name).write_bytes((images / "b" / "2.png").read_bytes())
        (tmp_path / "-bad.png").write_bytes(b"no image")
        assert predict("images=*.png", "model=./m", "on_bad=set_aside") == 0
        table = (tmp_path / "predictions.csv").read_bytes().decode()
        cells = list(csv.reader(io.StringIO(table, newline="")))
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in cells for cell in row)
        monkeypatch.chdir(tmp_path)
        snippet = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
        found: dict[str, Any] = {}
        exec(snippet[0], found)  # noqa: S102 - as the page says to read it
        rows = found["rows"]
        assert [row["path"] for row in rows] == sorted(["-bad.png", *names])
        assert {row["class"] for row in rows if not row["error"]} <= set(classes)
        assert list(rows[0])[-3:] == [f"probability.{name}" for name in classes]

    @pytest.mark.parametrize("pattern", ["", "/**/*[.g]*"])
    def test_what_systems_put_beside_images_is_skipped_and_said(
        self,
        predict: Callable[..., int],
        images: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        pattern: str,
    ) -> None:
        picture = (images / "b" / "2.png").read_bytes()
        for name in (
            "lot/plate.7", "lot/plate.jpg", "@eaDir/plate.jpg/SYNOPHOTO_THUMB_M.jpg", "lot/#recycle/old.jpg",
            "__MACOSX/lot/._plate.jpg", ".Trash-1000/files/old.jpg", "lost+found/x.jpg", "lot/._plate.jpg", "lot/a.zip",
        ):  # fmt: skip
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(b"" if name.endswith("zip") else picture)
        on_bad = "set_aside" if pattern else "refuse"
        assert predict(f"images={tmp_path}/in{pattern}", f"on_bad={on_bad}") == 0
        found = [Path(row["path"]).name for row in read(tmp_path / "predictions.csv") if row["class"]]
        assert found == ["plate.7", "plate.jpg"]
        err = capsys.readouterr().err
        assert "hidden and system files and folders skipped (" in err and "@eaDir" in err
        assert pattern or "1 file without an image suffix (.zip; archives are not read: unpack them) skipped" in err

    def test_a_pattern(self, predict: Callable[..., int], images: Path, tmp_path: Path) -> None:
        assert predict(f"images={images}/b/[0-9]*.png") == 0
        assert [Path(row["path"]).name for row in read(tmp_path / "predictions.csv")] == ["10.png", "2.png"]

    def test_to_standard_output(
        self, predict: Callable[..., int], images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for on_bad in ("refuse", "set_aside"):
            assert predict(f"images={images}", "to=-", f"on_bad={on_bad}") == 0
            out, err = capfd.readouterr()
            assert len(read(out)) == 7
            assert "\nPredicted 7 images" in err
        assert list(tmp_path.iterdir()) == []


def test_as_the_winner_was_tested(tmp_path: Path, make_stripes: Callable[..., Path]) -> None:
    """Every kind of file gives the pixels of training, so the probabilities of the test."""
    from search.outcome.reference import task_features
    from search.settings.compose import compose_settings
    from search.trial.preparation import load, split
    from search.trial.task import build_task

    root = make_stripes(tmp_path / "images", dict.fromkeys(CLASSES, 5))
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 256, (50, 30), dtype=np.uint8)
    kinds = {
        name: root / CLASSES[0] / name for name in ("wide.png", "palette.png", "alpha.png", "turned.jpg", "float.tif")
    }
    Image.fromarray(rng.integers(0, 4000, (50, 30), dtype=np.uint16)).save(kinds["wide.png"])
    Image.fromarray(np.stack([grey, grey // 2, grey // 3], 2)).convert("P").save(kinds["palette.png"])
    Image.fromarray(np.stack([grey, 255 - grey, grey, grey], 2), "RGBA").save(kinds["alpha.png"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(kinds["turned.jpg"], exif=exif)
    Image.fromarray((grey / 255).astype(np.float32)).save(kinds["float.tif"])
    settings = compose_settings(
        ["data=folder", f"data.path={root}", "data.size=[32,32]", "data.fit=pad", "model.name=lenet5",
         "model.weights=none", f"tracking.root={tmp_path / 'mlruns'}"]
    )  # fmt: skip
    loaded = load(settings, Console(quiet=True))
    task = build_task(settings, loaded, split(settings, loaded.index), cache=tmp_path / "cache")
    rows = np.arange(len(loaded.index.records))
    expected = task_features(task, task.net, rows)[0].logits.softmax(1).numpy()
    black, white, dark = loaded.index.value_range
    assert (black, white) == (0, 4095)
    card = ModelCard("lenet5", task.classes, SIZE, "pad", white, settings.data.max_pixels, 0, {}, black, dark)
    save_model(tmp_path / "model", TrainedModel(task.net, card))
    assert main([f"images={root}", f"model={tmp_path / 'model'}", f"to={tmp_path / 'p.csv'}", "device=cpu"]) == 0
    table = {Path(row["path"]): row for row in read(tmp_path / "p.csv")}
    assert len(table) == len(rows) == 20
    trained = load_model(tmp_path / "model")
    for record, probabilities, row in zip(loaded.index.records, expected, rows, strict=True):
        assert torch.equal(trained.read(record.path)[0], task.inputs(rows[row : row + 1], np.zeros(1, np.int64))[0])
        values = [float(table[record.path][f"probability.{c}"]) for c in task.classes]
        assert values == pytest.approx(probabilities.tolist(), abs=1e-6)


class TestBadImages:
    @pytest.fixture
    def some_bad(self, images: Path, tmp_path: Path) -> Path:
        table = tmp_path / "list.csv"
        (tmp_path / "bad").mkdir()
        whole = (images / "b" / "2.png").read_bytes()
        (tmp_path / "bad" / "cut.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "bad" / "huge.png").write_bytes(b"")
        names = [images / "a.jpg", "bad/cut.png", images / "b" / "2.png", "bad/huge.png", "gone.png"]
        table.write_text("path\n" + "".join(f"{name}\n" for name in names))
        return table

    def test_refused_all_at_once(
        self, predict: Callable[..., int], some_bad: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = sorted(tmp_path.iterdir())
        for to in ("to=p.csv", "to=-"):
            assert predict(f"images={some_bad}", to, "maps=true", "maps_to=maps", "batch_size=1") == 2
            out, err = capfd.readouterr()
            assert out == ""
            lines = err.splitlines()
            assert lines[0].startswith("predict: 3 bad inputs in the images (on_bad=refuse; on_bad=set_aside ")
            assert [line.split(":")[0].strip() for line in lines[1:]] == ["bad/cut.png", "bad/huge.png", "gone.png"]
            assert "truncated" in lines[1] and "empty file" in lines[2] and "no such file" in lines[3]
        assert sorted(tmp_path.iterdir()) == before

    def test_set_aside_with_their_reasons(
        self, predict: Callable[..., int], some_bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert predict(f"images={some_bad}", "on_bad=set_aside", "maps=true", "batch_size=2") == 0
        assert "Predicted 2 images, 3 set aside (column error)" in capsys.readouterr().out
        rows = read(tmp_path / "predictions.csv")
        assert list(rows[0])[:6] == ["path", "class", "probability", "margin", "map", "error"]
        assert [bool(row["error"]) for row in rows] == [False, True, False, True, True]
        for row in rows:
            empty = [row[c] == "" for c in ("class", "probability", "margin", "map", f"probability.{CLASSES[1]}")]
            assert set(empty) == {bool(row["error"])}

    def test_none_left(self, predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "a.png").write_bytes(b"no image")
        assert predict("images=a.png", "on_bad=set_aside") == 2
        assert capsys.readouterr().err.startswith(
            "predict: none of the 1 images can be predicted; first: a.png: not an"
        )
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    def test_an_output_that_is_not_finite(
        self, predict: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        net = backbones.build("lenet5", classes=3, size=SIZE, weights="none")
        card = ModelCard("lenet5", CLASSES, SIZE, "pad", 255, 10_000, 0, {})
        save_model(tmp_path / "nan", TrainedModel(net, card))
        next(net.head.parameters()).data[:] = float("nan")
        with pytest.raises(InputError, match=r"a network that diverged is not saved: head\..* not finite"):
            save_model(tmp_path / "refused", TrainedModel(net, card))
        save_file(
            {n: t.contiguous() for n, t in net.state_dict().items()}, tmp_path / "nan" / "model.safetensors"
        )  # as earlier versions did
        write_digests(tmp_path / "nan")
        assert predict(f"images={images}", f"model={tmp_path / 'nan'}") == 2
        assert "a.jpg: the network's output is not a finite number" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["nan"]


def test_a_table_and_its_maps_keep_their_modes_and_new_ones_follow_the_umask(
    predict: Callable[..., int], images: Path, tmp_path: Path
) -> None:
    table, maps = tmp_path / "p.csv", tmp_path / "maps"
    words = (f"images={images / 'a.jpg'}", "to=p.csv", "maps=true", "maps_to=maps")
    before = os.umask(0o027)
    try:
        assert predict(*words) == 0
        assert (table.stat().st_mode & 0o777, maps.stat().st_mode & 0o777) == (0o640, 0o750)
        table.chmod(0o606)
        maps.chmod(0o705)
        assert predict(*words, "overwrite=true") == 0
    finally:
        os.umask(before)
    assert (table.stat().st_mode & 0o777, maps.stat().st_mode & 0o777) == (0o606, 0o705)


class TestMaps:
    def test_are_drawn_over_the_images(self, predict: Callable[..., int], images: Path, tmp_path: Path) -> None:
        assert predict(f"images={images}", "to=p.csv", "maps=true") == 0
        rows = read(tmp_path / "p.csv")
        assert rows[0]["map"] == "p_maps/00000001_a.png"
        assert {row["map"] for row in rows} == {f"p_maps/{p.name}" for p in (tmp_path / "p_maps").iterdir()}
        with Image.open(rows[0]["map"]) as drawn:
            assert drawn.size == (224, 224) and drawn.mode == "RGB"
            assert len(drawn.getcolors(224 * 224) or []) > 50
        assert predict(f"images={images}", "to=plain.csv") == 0
        without = [{k: v for k, v in row.items() if k != "map"} for row in rows]
        assert without == read(tmp_path / "plain.csv")

    def test_take_the_place_of_maps_alone(
        self, predict: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = (f"images={images / 'a.jpg'}", "maps=true", "maps_to=maps")
        assert predict(*words, "to=p.csv") == 0
        (tmp_path / "maps" / "00000007_old.png").write_bytes(b"")
        assert predict(*words, "to=q.csv") == 2
        assert "maps_to must be a new or an empty folder, got maps, which is not empty" in capsys.readouterr().err
        assert predict(*words, "to=p.csv", "overwrite=true") == 0
        assert [p.name for p in (tmp_path / "maps").iterdir()] == ["00000001_a.png"]
        (tmp_path / "maps" / "notes.txt").write_text("mine")
        assert predict(*words, "to=p.csv", "overwrite=true") == 2
        assert "maps_to=maps holds notes.txt, which is no map" in capsys.readouterr().err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["maps", "p.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "images= is missing: an image, a folder"),
        (["images"], "arguments must be name=value, got 'images'"),
        (["images={images}", "imags=x"], "unknown argument 'imags'; did you mean images?"),
        (["images={images}", "model=x", "model=y"], "model must be given once, got it again as 'model=y'"),
        (["images={images}/gone"], "images must name at least one image file, got .*gone: no such file or folder"),
        (["images={images}/*.xyz"], "the pattern matches no file"),
        (["images={empty}"], "the folder holds no image"),
        (["images={images}", "on_bad=skip"], "on_bad must be one of refuse, set_aside, got 'skip'"),
        (["images={images}", "batch_size=0"], "batch_size must be a whole number of at least 1, got '0'"),
        (["images={images}", "maps=yes"], "maps must be one of true, false, got 'yes'"),
        (["images={images}", "maps_to=m"], "maps_to= is for maps=true alone"),
        (["images={images}", "maps=true", "to=-"], "maps=true with to=- needs maps_to=FOLDER"),
        (["images={images}", "maps=true", "maps_to={images}/m"], "is inside images=.*: the maps would be taken for"),
        (["images={images}", "to={images}"], "to must be a CSV file, got .*, which is a folder"),
        (["images={images}", "to=/dev/null"], "to must be a regular file, got /dev/null; to=- writes to standard"),
        (["images={there}"], r"images=.*there\.csv has no column path; found name; accepted are path"),
        (["images={images}", "to={there}"], r"to=.*there\.csv exists; overwrite=true replaces it"),
        (["images={there}", "to={there}", "overwrite=true"], "is the input; name another file"),
        (["images={images}", "root=a", "tracking.root=b"], "root= and tracking.root= are the same"),
        (
            ["images={images}", "model=champion"],
            r"there are no runs yet: no file mlruns/mlflow\.db; run .* search first, or name a model",
        ),
        (["images={images}", "device=tpu"], "device must be one of auto, cpu, cuda, got 'tpu'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    predict: Callable[..., int], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("name\nx\n")
    places = {"images": images, "empty": tmp_path / "empty", "there": tmp_path / "there.csv"}
    assert predict(*(word.format(**places) for word in words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(f"^predict: .*{message}", err), err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "name\nx\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_by_alias_and_without_the_champion(
    predict: Callable[..., int], images: Path, model: Path, tracking_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from search.tracking.tracker import Tracker

    tracker = Tracker(tracking_root, "of test_predict")
    run = tracker.start_parent("study", {}, {})
    tracker.register(run, model, model_name="predicted", alias="challenger", tags={}, note="")
    words = (f"images={images}", f"tracking.root={tracking_root}")
    assert predict(*words, "model=models:/predicted@challenger", "to=a.csv") == 0
    assert predict(*words, "to=b.csv") == 0
    assert read(Path("a.csv")) == read(Path("b.csv"))
    capsys.readouterr()
    assert predict(*words, "model=models:/predicted@champion", "to=c.csv") == 2
    line = "model predicted has no alias 'champion'; aliases: challenger (version 1); versions: 1"
    assert capsys.readouterr().err == f"predict: {line}\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "images" in out and "on_bad" in out and max(map(len, out.splitlines())) <= 120


# A process of its own, and once before it is measured: pathlib interns each part of a path, and the table of interned
# texts takes 1 MB where it grows, in a process that has imported much 15 MB.
_PEAK_OF_A_LIST = """
import sys, tracemalloc
from search.predict.image_list import listed_images
def count(table):
    with listed_images(table) as listed:
        return sum(1 for _ in listed), len(listed)
assert count(sys.argv[1]) == (40_000, 40_000)
tracemalloc.start()
assert count(sys.argv[1]) == (40_000, 40_000)
print(tracemalloc.get_traced_memory()[1])
"""


def test_a_million_names_are_not_held(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path\n" + "".join(f"{'folder/' * 8}{number}.png\n" for number in range(40_000)))
    words = [sys.executable, "-c", _PEAK_OF_A_LIST, str(table)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1.5e6  # the names alone are 4.5 MB


@pytest.mark.slow
class TestProcess:
    def _start(self, images: Path, model: Path, tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "search.predict", f"images={images}", f"model={model}", *arguments]
        return subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @pytest.mark.parametrize(
        ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long), (signal.SIGINT, 130)]
    )
    def test_stopped_half_way_it_leaves_nothing(
        self, images: Path, model: Path, tmp_path: Path, number: int, code: int
    ) -> None:
        table = tmp_path / "list.csv"
        table.write_text("path\n" + f"{images / 'a.jpg'}\n" * 200_000)
        process = self._start(table, model, tmp_path, "maps=true")
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".predictions_maps.*/*.png")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(tmp_path.iterdir())) == 3  # the list, the table and the maps as they grow
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=300)
        assert process.returncode == code and b"Traceback" not in err
        assert [p.name for p in tmp_path.iterdir()] == ["list.csv"]

    def test_a_reader_that_has_enough(self, images: Path, model: Path, tmp_path: Path) -> None:
        table = tmp_path / "list.csv"
        table.write_text("path\n" + f"{images / 'a.jpg'}\n" * 20_000)
        process = self._start(table, model, tmp_path, "to=-", "on_bad=set_aside")
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"path,class,probability,margin,error,")
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=300) == 0 and error == b""
