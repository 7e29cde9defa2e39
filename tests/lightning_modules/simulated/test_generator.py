"""The simulated set: the same from the same seed, measurable drift, whole folders, a clear command line."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_modules.images.folders import list_folder
from lightning_modules.images.listing import list_manifest
from lightning_modules.simulated.__main__ import main
from lightning_modules.simulated.defects import DEFECTS
from lightning_modules.simulated.generator import CLASSES, MONTHS, SimulatedImage, simulate, write
from lightning_modules.simulated.months import SHARES, TRENDS, class_mix, conditions, schedule
from lightning_modules.simulated.physics import CHAIN

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def many() -> list[SimulatedImage]:
    return list(simulate(1300, seed=3))


def same(a: SimulatedImage, b: SimulatedImage) -> bool:
    return (a.label, a.month, a.group) == (b.label, b.month, b.group) and bool(
        (a.pixels == b.pixels).all() and (a.mask == b.mask).all()
    )


# --- what an image is -------------------------------------------------------------------------------------------------


def test_names_are_eleven_classes_and_thirteen_months() -> None:
    assert tuple(DEFECTS) == CLASSES
    assert len(CLASSES) == 11
    assert "island" in CLASSES
    assert (MONTHS[0], MONTHS[-1]) == ("2019-01", "2020-01")
    assert len(MONTHS) == 13
    assert list(MONTHS) == sorted(MONTHS)


@pytest.mark.parametrize("size", [(16, 16), (96, 96), (50, 131), (224, 403)])
def test_images_have_the_size_and_kinds_asked_for(size: tuple[int, int]) -> None:
    for image in simulate(4, size):
        assert image.pixels.shape == image.mask.shape == size
        assert image.pixels.dtype == np.uint8
        assert image.mask.dtype == np.bool_
        assert image.mask.any()
        assert image.label in CLASSES


def test_a_seed_gives_the_same_images_and_the_first_of_more_are_the_same(many: list[SimulatedImage]) -> None:
    assert all(same(a, b) for a, b in zip(simulate(40, seed=3), many, strict=False))


def test_another_seed_gives_other_images() -> None:
    assert not any(same(a, b) for a, b in zip(simulate(13, seed=0), simulate(13, seed=1), strict=True))


def test_no_two_images_are_equal(many: list[SimulatedImage]) -> None:
    assert len({image.pixels.tobytes() for image in many}) == len(many)


def test_the_geometry_does_not_depend_on_the_size() -> None:
    for small, large in zip(simulate(26, (96, 96)), simulate(26, (192, 192)), strict=True):
        reduced = large.mask.reshape(96, 2, 96, 2).any(axis=(1, 3))
        assert (small.mask & reduced).sum() > 0.7 * reduced.sum()


def test_images_of_a_plate_share_class_and_month(many: list[SimulatedImage]) -> None:
    kinds: dict[str, set[tuple[str, str]]] = {}
    for image in many:
        kinds.setdefault(image.group, set()).add((image.label, image.month))
    assert all(len(kind) == 1 for kind in kinds.values())
    assert max(Counter(image.group for image in many).values()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, r"images must be in 1\.\.1000000, got 0"),
        ({"images": 1, "seed": -1}, "seed must be in .*, got -1"),
        ({"images": 1, "size": (8, 96)}, r"size height must be in 16\.\.1024, got 8"),
        ({"images": 1, "size": (96, 2000)}, r"size width must be in 16\.\.1024, got 2000"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(**arguments)


# --- months and classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_every_class_is_in_every_month_from_1300_images_on(seed: int) -> None:
    cells = Counter((what.label, what.month) for what in islice(schedule(seed), 1300))
    assert len(cells) == 11 * 13


@given(n=st.integers(1, 400), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_months_are_filled_evenly(n: int, seed: int) -> None:
    counts = Counter(what.month for what in islice(schedule(seed), n))
    assert max(counts.values()) - min(counts[month] for month in MONTHS) <= 1


@pytest.mark.parametrize("month", MONTHS)
def test_the_mix_of_a_month_is_a_distribution_and_is_met(month: str) -> None:
    mix = class_mix(month)
    assert math.isclose(sum(mix.values()), 1)
    drawn = Counter(what.label for what in islice(schedule(5), 13 * 400) if what.month == month)
    for label, share in mix.items():
        assert drawn[label] / 400 == pytest.approx(share, abs=0.02)


def test_the_mix_is_imbalanced_and_drifts(many: list[SimulatedImage]) -> None:
    assert math.isclose(sum(SHARES.values()), 1)
    counts = Counter(image.label for image in many)
    assert counts["centre_segregation"] > 3 * counts["star_crack"]
    early, late = class_mix(MONTHS[0]), class_mix(MONTHS[-1])
    for label, trend in TRENDS.items():
        assert math.copysign(1, late[label] / early[label] - 1) == math.copysign(1, trend)
    assert class_mix("2019-07")["hydrogen_flake"] > 3 * early["hydrogen_flake"]


def test_the_drift_of_gain_and_noise_is_in_the_pixels(many: list[SimulatedImage]) -> None:
    def level(rows: slice, month: str) -> float:
        pixels = [np.median(image.pixels[rows]) for image in many if image.month == month]
        return float(np.mean(pixels)) / 255 * CHAIN.dynamic

    gain, noise = [conditions(m).gain for m in MONTHS], [conditions(m).noise for m in MONTHS]
    # Grain noise, 6 to 12 mm down, moves with the gain; at 47 mm, below every back wall, all noise is electronic.
    grain = np.array([level(slice(12, 24), m) for m in MONTHS])
    floor = np.array([level(slice(-2, None), m) for m in MONTHS])
    # Some 40 plates a month, each its own grain and gain (1.8 dB), blur the 2.4 dB of drift.
    assert np.corrcoef(grain, gain)[0, 1] > 0.6
    assert np.corrcoef(floor - grain, noise)[0, 1] > 0.9
    assert grain[6] - grain[5] == pytest.approx(gain[6] - gain[5], abs=0.8)  # recalibrated in July
    assert floor[-1] - floor[0] == pytest.approx(noise[-1] + gain[-1], abs=1.0)


def test_masks_lie_where_the_defects_signal_is(many: list[SimulatedImage]) -> None:
    inside, outside = [], []
    for image in many:
        steel = np.zeros_like(image.mask)
        steel[12:64] = True
        if (image.mask & steel).any():
            inside.append(image.pixels[image.mask & steel].mean())
            outside.append(image.pixels[steel & ~image.mask].mean())
    assert np.mean(np.array(inside) > np.array(outside)) > 0.9


# --- folders and the command line -------------------------------------------------------------------------------------


def test_written_folders_hold_the_images_and_both_sources_read_them(tmp_path: Path) -> None:
    out = tmp_path / "강판 set"
    out.mkdir()
    write(out, images=30, size=(48, 64), seed=2)
    rows = list(csv.DictReader((out / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "label", "month", "group", "mask"]
    for row, image in zip(rows, simulate(30, (48, 64), 2), strict=True):
        assert Path(row["path"]).parts[:2] == (row["month"], row["label"]) == (image.month, image.label)
        assert row["group"] == image.group
        assert (np.asarray(Image.open(out / row["path"])) == image.pixels).all()
        assert (np.asarray(Image.open(out / row["mask"])) == 255 * image.mask).all()
    for listing in (list_folder(out), list_manifest(out / "manifest.csv")):
        assert not listing.problems
        assert len(listing.images) == 30
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "out", images=2)
    assert list(tmp_path.iterdir()) == []


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import lightning_modules.simulated.__main__ as s; "
    code += "sys.exit(s.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


BAD = [
    ([], r"exactly one OUT must be given, got 0"),
    (["a", "b"], r"exactly one OUT must be given, got 2: \['a', 'b'\]"),
    (["full"], "OUT must not exist or be an empty folder, got full"),
    (["file"], "OUT must not exist or be an empty folder, got file"),
    (["no/where"], "the folder that holds OUT must exist, got no/where"),
    (["."], "OUT must name a new folder, got ."),
    (["out", "images=0"], r"images must be in 1\.\.1000000, got 0"),
    (["out", "images=1e3"], "images must be a whole number, got '1e3'"),
    (["out", "images="], "images must be a whole number, got ''"),
    (["out", "images=" + "9" * 5000], "images must be a whole number"),
    (["out", "images=5", "images=6"], "images must be given once, got it again as '6'"),
    (["out", "image=5"], r"unknown setting 'image'; did you mean 'images'\?"),
    (["out", "sized=[9,9]"], r"unknown setting 'sized'; did you mean 'size'\?"),
    (["out", "size=96"], r"size must be two whole numbers as \[H,W\], got '96'"),
    (["out", "size=[96,96,3]"], r"size must be two whole numbers as \[H,W\], got '\[96,96,3\]'"),
    (["out", "size=[8,96]"], r"size height must be in 16\.\.1024, got 8"),
    (["out", "size=[96,2000]"], r"size width must be in 16\.\.1024, got 2000"),
    (["out", "seed=-1"], r"seed must be in 0\.\.9223372036854775807, got -1"),
    (["out", "seed=x\ny"], r"seed must be a whole number, got 'x\\ny'"),
    (["--colour", "out"], "unknown option '--colour'; accepted: --contact-sheet FILE.png, --help"),
    (["--contact-sheet"], r"exactly one FILE\.png must be given, got 0"),
    (["--contact-sheet", "sheet.jpg"], r"the contact sheet's file must end in \.png, got sheet\.jpg"),
    (["--contact-sheet", "no/sheet.png"], r"the folder that holds the contact sheet must exist, got no/sheet\.png"),
    (["--contact-sheet", "sheet.png", "images=3"], r"unknown setting 'images' \(accepted: seed=N\)"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a)[:40] or "nothing" for a, _ in BAD])
def test_bad_input_gives_one_line_and_writes_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    (tmp_path / "file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    done = command(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(f"simulated: {message}.*\n", done.stderr)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_modules.simulated", str(tmp_path / "out"), "images=14", "size=[32, 40]"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "out").glob("20*/*/*.png"))) == 14


def test_help_and_import_load_neither_numpy_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import lightning_modules.simulated.__main__ as s; s.main(['--help']); "
        "sys.exit(bool({'numpy', 'scipy', 'torch', 'PIL', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m lightning_modules.simulated OUT")


def test_the_contact_sheet_is_one_grey_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules.simulated import sheet as simulated_sheet

    monkeypatch.setattr(simulated_sheet, "simulate", lambda images, seed: simulate(40, (16, 16), seed))
    assert main(["--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "L"
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_the_parameters_classes_and_months_of_the_code() -> None:
    page = (ROOT / "docs" / "simulated.md").read_text(encoding="utf-8")
    for f in fields(CHAIN):
        m = f.metadata
        row = f"| `{f.name}` | {m['symbol']} | {f.default:g} | {m['unit']} | {m['meaning']} | {m['source']} |"
        assert row in page
    for label, share in SHARES.items():
        assert re.search(rf"\| `{label}` \| {100 * share:.0f} ", page), label
    for month in MONTHS:
        now, mix = conditions(month), class_mix(month)
        assert f"| {month} | {now.gain:+.1f} | {now.noise:+.1f} | {now.losses:.2f} |" in page, month
        assert f"{100 * mix['island']:.1f}" in page
