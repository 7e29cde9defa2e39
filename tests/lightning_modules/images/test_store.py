"""Images loaded once and kept by content."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.errors import BadImages, InputError
from lightning_modules.images import decoding
from lightning_modules.images import store as image_store
from lightning_modules.images.reading import decode_image, fit_image, read_image
from lightning_modules.images.store import load_images
from lightning_modules.images.value_range import ValueRange, scale_to_uint8, white_level_for, wide_values
from tests.lightning_modules.small_folder import SIZE, files_of, load_folder

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.mark.parametrize("colour", [False, True])
def test_rows_are_the_records_pixels(make_folder, cache: Path, colour: bool) -> None:
    root = make_folder({"a": 3, "b": 4})
    if colour:
        make_folder({"b": 5}, root=root, colour=True)
    seen: list[tuple[int, int]] = []
    images = load_folder(root, cache, on_progress=lambda *now: seen.append(now))
    count, channels = (8, 3) if colour else (7, 1)
    assert images.pixels.shape == (count, *SIZE, channels)
    assert images.pixels.dtype == np.uint8
    assert isinstance(images.pixels, np.memmap) and not images.pixels.flags.writeable
    for record, row in zip(images.index.records, images.pixels, strict=True):
        expected = fit_image(read_image(record.path), SIZE)
        np.testing.assert_array_equal(row, np.broadcast_to(expected, row.shape))
    assert seen == [(number + 1, count) for number in range(count)]


def test_a_second_call_decodes_nothing(make_folder, cache: Path, decodes: list[int]) -> None:
    root = make_folder({"a": 3, "b": 3})
    first = load_folder(root, cache)
    assert len(decodes) == 6
    stored = files_of(cache)
    seen: list[tuple[int, int]] = []
    second = load_folder(root, cache, on_progress=lambda *now: seen.append(now))
    assert len(decodes) == 6 and seen == [(6, 6)] and files_of(cache) == stored
    assert second.index == first.index
    np.testing.assert_array_equal(second.pixels, first.pixels)


def test_other_labels_names_and_months_reuse_the_pixels(make_folder, cache: Path, decodes: list[int]) -> None:
    root = make_folder({"2019-01/a": 3, "2019-01/b": 3})
    first = load_folder(root, cache)
    (root / "2019-02" / "a").mkdir(parents=True)
    (root / "2019-01" / "b" / "000.png").rename(root / "2019-02" / "a" / "moved.png")
    root = root.rename(root.with_name("elsewhere"))
    second = load_folder(root, cache)
    assert len(decodes) == 6
    assert second.index.digest != first.index.digest and second.index.months == ("2019-01", "2019-02")
    np.testing.assert_array_equal(second.pixels, first.pixels)


@pytest.mark.parametrize("options", [{"size": (8, 11)}, {"fit": "pad"}, {"max_pixels": 10_000}])
def test_other_options_have_another_key(make_folder, cache: Path, decodes: list[int], options: Any) -> None:
    root = make_folder({"a": 2, "b": 2})
    load_folder(root, cache)
    load_folder(root, cache, **options)
    assert len(decodes) == 8
    assert len(list((cache / "images").glob("*/store.json"))) == 2


def test_a_changed_file_has_another_key(make_folder, picture, encode, cache: Path, decodes: list[int]) -> None:
    root = make_folder({"a": 2, "b": 2})
    first = load_folder(root, cache)
    (root / "a" / "000.png").write_bytes(encode(picture(99)))
    second = load_folder(root, cache)
    assert len(decodes) == 8
    assert second.index.digest != first.index.digest


def test_a_file_that_changes_meanwhile_is_refused(make_folder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 2, "b": 2})
    read = decoding.read_bytes
    monkeypatch.setattr(decoding, "read_bytes", lambda path, **options: read(path, **options) + b"more")
    with pytest.raises(InputError, match="changed while it was being read; run again"):
        load_folder(root, cache)
    assert not cache.exists()


def test_the_same_picture_in_two_formats_is_found(make_folder, picture, encode, cache: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "x.png").write_bytes(encode(picture(50)))
    (root / "a" / "y.bmp").write_bytes(encode(picture(50), "BMP"))
    images = load_folder(root, cache)
    assert len(images.index.records) == len(images.pixels) == 6
    assert "more than once under one label: 1 (2 files)" in images.index.notes[0]
    rows = [row for row, record in enumerate(images.index.records) if record.path.stem in "xy"]
    np.testing.assert_array_equal(images.pixels[rows[0]], images.pixels[rows[1]])
    (root / "b" / "z.tif").write_bytes(encode(picture(50), "TIFF"))
    with pytest.raises(BadImages, match=r"3 bad inputs in .*the same picture is labelled 'b' in"):
        load_folder(root, cache)


def test_byte_copies_are_decoded_once(make_folder, cache: Path, decodes: list[int]) -> None:
    root = make_folder({"a": 2, "b": 2})
    (root / "a" / "copy.png").write_bytes((root / "a" / "000.png").read_bytes())
    assert len(load_folder(root, cache).pixels) == 5
    assert len(decodes) == 4


@pytest.mark.parametrize("on_bad", ["refuse", "set_aside"])
def test_bad_images_are_refused_or_set_aside(make_folder, encode, cache: Path, decodes: list[int], on_bad: str) -> None:
    root = make_folder({"a": 3, "b": 3, "c": 2})
    (root / "a" / "000.png").write_bytes(b"")
    (root / "b" / "001.png").write_bytes(b"text")
    (root / "c" / "001.png").write_bytes((root / "c" / "000.png").read_bytes()[:60])
    before = set(cache.parent.parent.rglob("*"))
    if on_bad == "refuse":
        with pytest.raises(
            BadImages, match=r"4 bad inputs in .*images \(data\.on_bad=refuse\): first: .*000.png: empty"
        ):
            load_folder(root, cache)
        assert set(cache.parent.parent.rglob("*")) == before
        return
    for _ in range(2):
        images = load_folder(root, cache, on_bad="set_aside")
        assert images.index.class_counts() == {"a": 2, "b": 2}
        assert [problem.reason.split(" ")[0] for problem in images.index.set_aside] == [
            "empty",
            "not",
            "truncated",
            "class",
        ]
        for record, row in zip(images.index.records, images.pixels, strict=True):
            np.testing.assert_array_equal(row, fit_image(read_image(record.path), SIZE))
        assert isinstance(images.pixels, np.memmap)
    assert len(decodes) == 7


@pytest.mark.parametrize(
    "kill",
    ["missing", "one class", "too few", "two labels"],
)
def test_refused_input_leaves_nothing(make_folder, tmp_path: Path, cache: Path, kill: str) -> None:
    root = make_folder({"a": 3, "b": 3})
    if kill == "missing":
        root = root / "none"
    elif kill == "one class":
        (root / "b").rename(tmp_path / "b")
    elif kill == "too few":
        make_folder({"c": 1}, root=root)
    else:
        (root / "b" / "000.png").write_bytes((root / "a" / "000.png").read_bytes())
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        load_folder(root, cache)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("top", [200, 1000, 4000, 16000, 60000])
@pytest.mark.parametrize("bottom", [0, 50])
def test_one_range_for_the_whole_set(
    make_folder, picture, encode, cache: Path, top: int, bottom: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever images are read first, also where a model's range is asked for in between."""
    monkeypatch.setattr(decoding, "_workers", lambda: 1)
    root = make_folder({"a": 2, "b": 2})
    for number in range(12):
        bright = picture(number).astype(np.uint16) % 256 if number < 4 else picture(number) / 255 * top
        (root / "ab"[number % 2] / f"wide{number}.png").write_bytes(encode((bright + bottom).astype(np.uint16)))
    found = []
    for asked in (None, ValueRange(7, 9000, 3), None):
        images = load_folder(root, cache, value_range=asked)
        assert asked is None or images.index.value_range == asked
        found.append(images.index.value_range)
        for record, row in zip(images.index.records, images.pixels, strict=True):
            pixels = decode_image(record.path.read_bytes())
            np.testing.assert_array_equal(row, fit_image(scale_to_uint8(pixels, found[-1]), SIZE))
            assert record.values == wide_values(pixels, found[-1])
            assert record.grey_levels == len(np.unique(row))
    assert found[0] == found[2] and found[0].black == 0 and found[0].white == white_level_for(max(top, 255) + bottom)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"source": "zip"}, "data.source='zip'; accepted are folder, manifest, simulated"),
        ({"fit": "squash"}, "data.fit='squash'; accepted are stretch, pad, crop"),
        ({"on_bad": "ignore"}, "data.on_bad='ignore'; accepted are refuse, set_aside"),
        ({"groups": "coil"}, "data.groups='coil'; accepted are none, folder"),
        ({"size": (0, 10)}, r"data.size must be \[height,width\]"),
        ({"size": (10,)}, r"data.size must be \[height,width\]"),
        ({"size": (10.0, 10)}, r"data.size must be \[height,width\]"),
        ({"min_per_class": 0}, "data.min_per_class must be a whole number of at least 1, got 0"),
        ({"max_pixels": True}, "data.max_pixels must be a whole number of at least 1, got True"),
        ({"path": None}, "data=folder needs data.path"),
        ({"source": "simulated"}, "data=simulated has none"),
        ({"images": 300}, "data.images=300 acts on data=simulated only"),
        ({"source": "manifest", "groups": "folder"}, "data.groups=folder acts on data=folder only"),
        ({"source": "manifest"}, "is not a file; data=manifest reads"),
        ({"source": "simulated", "path": None, "size": (8, 8)}, "data=simulated: size height must be in 16"),
        ({"source": "simulated", "path": None, "images": -1, "size": (16, 16)}, "data=simulated: images must be in 1"),
    ],
)
def test_bad_arguments_leave_nothing(make_folder, cache: Path, arguments: Any, reason: str) -> None:
    arguments = {"source": "folder", "path": make_folder({"a": 2, "b": 2}), "size": SIZE, "cache": cache} | arguments
    with pytest.raises(InputError, match=reason):
        load_images(**arguments)
    assert not cache.exists()


def test_the_simulated_set_is_written_once(cache: Path, decodes: list[int]) -> None:
    options: Any = {"size": (16, 16), "images": 60, "min_per_class": 1, "cache": cache}
    images = load_images("simulated", None, **options)
    assert len(images.pixels) == 60 and images.index.has_months and images.index.has_groups
    assert all(record.mask is not None and record.mask.is_file() for record in images.index.records)
    written = {path: path.stat().st_mtime_ns for path in (cache / "simulated").rglob("*.png")}
    again = load_images("simulated", None, **options)
    assert again.index == images.index and len(decodes) == 60
    assert written == {path: path.stat().st_mtime_ns for path in (cache / "simulated").rglob("*.png")}
    assert load_images("simulated", None, **options, seed=1).index.digest != images.index.digest


@pytest.mark.parametrize("damage", ["image", "manifest", "digests", "image gone"])
def test_a_damaged_simulated_set_is_simulated_again(cache: Path, damage: str) -> None:
    notes: list[str] = []
    options: dict[str, Any] = {
        "size": (16, 16),
        "cache": cache,
        "images": 33,
        "min_per_class": 1,
        "on_note": notes.append,
    }
    before = load_images("simulated", None, **options).index.digest
    names = {"manifest": "manifest.csv", "digests": "digests.txt"}
    file = next((cache / "simulated").rglob(names.get(damage, "*.png")))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink() if damage == "image gone" else file.write_bytes(content)
    assert load_images("simulated", None, **options).index.digest == before
    assert [note for note in notes if note.endswith("older version wrote it; it is simulated again.")] == notes != []
    assert load_images("simulated", None, **options).index.digest == before and len(notes) == 1


@pytest.mark.parametrize("kept_before", [False, True])
def test_a_refused_simulated_set_leaves_nothing(cache: Path, tmp_path: Path, kept_before: bool) -> None:
    options: Any = {"size": (16, 16), "images": 60, "cache": cache}
    if kept_before:
        load_images("simulated", None, **options, seed=1, min_per_class=1)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BadImages, match=r"usable images, fewer than data\.min_per_class=20"):
        load_images("simulated", None, **options, min_per_class=20)
    assert set(tmp_path.rglob("*")) == before


def test_the_caller_may_refuse_an_index(make_folder, cache: Path) -> None:
    def refuse(index: Any) -> None:
        raise InputError(f"{len(index.records)} images are not what I want")

    root = make_folder({"a": 2, "b": 2})
    with pytest.raises(InputError, match="4 images are not what I want"):
        load_folder(root, cache, accept=refuse)
    assert not cache.exists()
    load_folder(root, cache)
    with pytest.raises(InputError, match="4 images are not what I want"):
        load_folder(root, cache, accept=refuse)


def test_importing_loads_neither_torch_nor_pandas() -> None:
    code = "import lightning_modules.images.store, lightning_modules.images.splits, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "sklearn", "scipy", "pyarrow", "mlflow"} & set(loaded)


def test_the_sidecar_is_plain(make_folder, cache: Path) -> None:
    load_folder(make_folder({"a": 2, "b": 2}), cache)
    sidecar = json.loads(next((cache / "images").glob("*/store.json")).read_text().splitlines()[0])
    assert sidecar["shape"] == [4, *SIZE, 1] and len(sidecar["files"]) == 4
    assert image_store.__all__ == ["ImageSet", "Source", "load_images"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "count", "classes", "months", "groups"),
    [("neu", 1800, 6, 13, False), ("magnetic_tile", 1344, 6, 0, True)],
)
def test_real_data(
    cache: Path, decodes: list[int], name: str, count: int, classes: int, months: int, groups: bool
) -> None:
    path = DATA / name / "manifest.csv"
    images = load_images("manifest", path, size=(96, 96), cache=cache)
    assert images.pixels.shape == (count, 96, 96, 1)
    assert len(images.index.classes) == classes
    assert len(images.index.months) == months and images.index.has_groups is groups
    decoded = len(decodes)
    assert count - 5 <= decoded <= count
    again = load_images("manifest", path, size=(96, 96), cache=cache)
    assert len(decodes) == decoded and again.index.digest == images.index.digest
    assert 20 < float(images.pixels.mean()) < 230
