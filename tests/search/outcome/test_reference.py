"""Which training images go with a model, and under which names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from search.outcome import reference


@pytest.mark.parametrize(
    ("path", "given", "shown"),
    [
        ("data/2020-01/crack/1.png", "data", "2020-01/crack/1.png"),
        ("elsewhere/of/this/machine/crack/1.png", "data", "machine/crack/1.png"),
        ("cache/of/this/machine/2020-01/crack/1.png", None, "2020-01/crack/1.png"),  # simulated
    ],
)
def test_names_tell_no_folder_of_this_machine(path: str, given: str | None, shown: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    root = None if given is None else tmp_path / given
    assert reference._name(tmp_path / path, root) == shown


def test_a_sample_leaves_no_rare_class_out() -> None:
    labels = np.repeat([0, 1, 2], [50, 4, 46])
    task = SimpleNamespace(
        images_of=lambda rows: rows, image_index=SimpleNamespace(labels=labels), settings=SimpleNamespace(seed=0)
    )
    rows = np.arange(100)
    kept = reference._sample(task, rows, 20)  # type: ignore[arg-type]
    assert np.bincount(labels[kept]).tolist() == [8, 4, 8] and (np.diff(kept) > 0).all()
    assert reference._sample(task, rows, 200).tolist() == rows.tolist()  # type: ignore[arg-type]
