"""`thawline look`: what it says of images, what it warns of and what it loads, through the command line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.look.__main__ import main
from search.look.enough import images_needed, known_as

ROOT = Path(__file__).parents[3]
Look = Callable[..., str]


@pytest.fixture
def look(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Look:
    """`thawline look ARGUMENTS` in an empty folder; what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> str:
        assert main([str(word) for word in arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def test_classes_sizes_split_and_the_next_command(look: Look, stripes: Path, tmp_path: Path) -> None:
    said = look(stripes, f"root={tmp_path / 'runs'}")
    assert said.startswith("Images: 36 in 3 classes: 가로 줄무늬 12, 세로 12, 점 12.\n")
    assert "Sizes in pixels, height x width: 32 x 32 (36).\n" in said
    assert "  Size: 96 x 96; the images are 32 x 32 (median)" in said
    assert "to train, " in said and "drawn at random" in said
    assert "Enough to tell 95 % from 90 %: no; an accuracy of 95 % on 6 test images" in said
    assert "It takes 160 test images." in said
    lines = said.splitlines()
    steps = [shlex.split(line) for line in lines[lines.index("Next:") + 1 :] if not line.startswith("      ")]
    assert [step[-3:] for step in steps] == [
        [f"images={stripes}", f"root={tmp_path / 'runs'}", "experiment=quick"],
        ["search", f"images={stripes}", f"root={tmp_path / 'runs'}"],
    ]
    with Image.open(tmp_path / "runs" / "look" / f"{stripes.name}.png") as sheet:
        assert sheet.size == (170 + 8 * 132, 3 * 132 + 4)
        pixels = np.asarray(sheet.convert("L"))
    assert all(pixels[row : row + 128, 170:298].std() > 20 for row in (4, 136, 268))  # a picture of each class
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "look"]  # nothing else is written


def test_the_next_command_is_accepted(look: Look, stripes: Path, tmp_path: Path) -> None:
    said = look(stripes, "seed=3", f"root={tmp_path}", f"to={tmp_path / 'sheet.png'}")
    line = next(line for line in said.splitlines() if "images=" in line and "quick" not in line)
    done = subprocess.run(["bash", "-c", f"{line} --cfg job"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "source: folder" in done.stdout and "seed: 3" in done.stdout
    assert (tmp_path / "sheet.png").is_file()


def test_faulty_files_and_copies_are_listed(look: Look, make_stripes: Callable[..., Path], tmp_path: Path) -> None:
    images = make_stripes(tmp_path / "images", {"a": 12, "b": 12})
    shutil.copy(images / "a" / "00.png", images / "a" / "copy.png")
    shutil.copy(images / "a" / "01.png", images / "b" / "other label.png")
    (images / "b" / "03.png").write_bytes((images / "b" / "03.png").read_bytes()[:200])
    said = look(images)
    assert "pictures that occur more than once under one label: 1 (2 files)" in said
    assert "Cannot be used: 3, such as\n" in said
    assert "03.png" in said and "the same picture is labelled" in said
    assert said.count("data.on_bad=set_aside") == 3  # the hint, and both commands


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Validation", "Test"), ("train", "test")])
def test_folders_of_a_split_are_that_split(
    names: tuple[str, ...], look: Look, make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    for number, name in enumerate(names):
        make_stripes(tmp_path / "images" / name, {"ok": 10, "crack": 10}, seed=number)
    said = look(tmp_path / "images")
    assert f"Images: {20 * len(names)} in 2 classes: crack {10 * len(names)}, ok {10 * len(names)}." in said
    assert "Split as the folders say: 20 train, " in said
    assert "20 to test once; as the folders or the table say." in said


def test_folders_of_a_split_without_classes_are_refused(
    look: Look, make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    make_stripes(tmp_path / "images", {"train": 10, "val": 10, "test": 10})
    said = look(tmp_path / "images", code=2)
    assert said.count("\n") == 1
    assert "test, train, val: a split by the name, without class folders; make them (root/train/<class>/*" in said
    assert not (tmp_path / "mlruns").exists()


def test_shrinking_that_loses_small_defects_is_warned_of(look: Look, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (200, 1600), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    said = look("images", "data.epoch_megapixels=0.1")
    assert "Warning: that shrinks them 16.7 times: a defect of 67 pixels is left with 4." in said
    assert "Warning" not in look("images", "data.size=[200,1600]")


def test_months_groups_and_rare_classes(look: Look, make_stripes: Callable[..., Path], tmp_path: Path) -> None:
    for seed, month in enumerate(("2024-01", "2024-02")):
        make_stripes(tmp_path / "images" / month, {"a": 12, "b": 3 if seed else 12}, seed=seed)
    said = look("images")
    assert "Months: 2, 2024-01 to 2024-02.\n" in said
    assert "tested on the newest month, 2024-02." in said
    assert "Rarest in the test: b, 3; all of them right would show only that more than 29 % are." in said
    rows = [
        f"{file},{file.parts[-2]},lot {number % 4}" for number, file in enumerate(sorted(Path("images").rglob("*.png")))
    ]
    Path("list.csv").write_text("path,label,group\n" + "\n".join(rows))
    assert "Groups (coil, plate, lot): 4; no split divides one." in look("list.csv")


def test_a_set_too_large_for_the_time_is_sampled(stripes: Path) -> None:
    from search.look.lines import lines
    from search.look.survey import survey
    from search.settings.compose import compose_settings

    settings = compose_settings([f"images={stripes}"])
    found = survey(settings, seconds=0)
    assert found.decoded < found.files == 36
    text = "\n".join(lines(found, settings))
    assert f"In the time there was, {found.read} of 36 files were read and {found.decoded} decoded" in text
    assert "Images: 36 in 3 classes" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "look needs images: "),
        (["nowhere"], "images must be a folder, IMAGES/<class>/*, or a table"),
        (["{images}", "to=sheet.jpg"], "to must be a file that ends in .png, got sheet.jpg"),
        (["{images}", "data.sise=3"], "did you mean data.size?"),
        (["{images}", "images={images}"], "images= must be given once, got it again"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, look: Look, stripes: Path, tmp_path: Path) -> None:
    err = look(*(word.format(images=stripes) for word in words), code=2)
    assert err.startswith("look: ") and said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_it_loads_no_torch(stripes: Path, tmp_path: Path) -> None:
    code = (
        "import sys, search.look.__main__ as m; assert m.main(sys.argv[1:]) == 0; "
        "heavy = {'torch', 'mlflow', 'optuna', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    words = [str(stripes), f"root={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    from scipy.stats import binomtest

    for share, images in ((0.95, 72), (0.9, 200), (1.0, 3), (0.0, 5)):
        interval = binomtest(round(share * images), images).proportion_ci(0.95, "exact")
        assert known_as(share, images) == pytest.approx((interval.low, interval.high))
    needed = images_needed(0.95, 0.90)
    assert known_as(0.95, needed)[0] > 0.90 >= known_as(0.95, needed - 10)[0]


def test_sizes_known_without_torch_are_those_of_the_registry() -> None:
    from lightning_modules.networks.backbones import BACKBONES
    from lightning_modules.networks.input_sizes import INPUT_SIZES

    for name, size in INPUT_SIZES.items():
        assert (BACKBONES[name].minimum_size, BACKBONES[name].native_size) == size
