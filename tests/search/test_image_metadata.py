"""Images whose metadata changes what their samples mean, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from tests.tiff_writer import tiff


def test_the_same_picture_however_it_is_written(
    run_search_warm: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    """Class a holds PNG files, class b the same pictures as TIFF: each must be known as the one in the other class."""
    random = np.random.default_rng(0)
    images = tmp_path / "images"
    for name in "ab":
        (images / name).mkdir(parents=True)
    written = {
        "white_is_zero": lambda p: tiff(65535 - p, 16, photometric=0),
        "big_endian": lambda p: tiff(65535 - p, 16, photometric=0, order=">"),
        "compressed": lambda p: tiff(p, 16, order=">", compression=8, predictor=2),
        "bits_12": lambda p: tiff(p, 12),
        "bits_12_white": lambda p: tiff(4095 - p, 12, photometric=0),
    }
    for name, write in written.items():
        pixels = random.integers(0, 4096, (40, 40), dtype=np.uint16)
        Image.fromarray(pixels).save(images / "a" / f"{name}.png")
        (images / "b" / f"{name}.tif").write_bytes(write(pixels))
    (images / "b" / "signed.tif").write_bytes(tiff(np.ones((40, 40), np.int8)))
    before = set(tmp_path.rglob("*"))
    outcome = run_search_warm("model=lenet5", "data=folder", f"data.path={images}", cwd=tmp_path)
    assert outcome.code == 2
    _, *lines = outcome.err.splitlines()
    for name in written:
        assert any(f"{name}.tif: labelled 'b', but the same picture is labelled 'a'" in line for line in lines), name
    assert any("signed.tif: signed 8-bit samples (SampleFormat); convert to unsigned" in line for line in lines)
    assert len(lines) == 2 * len(written) + 1
    assert set(tmp_path.rglob("*")) == before
