"""Months of tiny images, and `python -m search.retrain` as a function in this process."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("left", "middle", "top")


@dataclass(frozen=True)
class Told:
    """What a command left."""

    code: int
    out: str
    err: str


def write_month(
    root: Path,
    month: str,
    *,
    images: int = 10,
    classes: tuple[str, ...] = CLASSES,
    drift: bool = False,
    labels: str = "true",
    seed: int = 0,
    side: int = 24,
) -> Path:
    """Grey PNG files root/month/class/*.png, each class bright elsewhere; with drift, striped another way.

    labels: "noise" deals classes at random, "black" shows nothing.
    """
    rng = np.random.default_rng([seed, int(month[:4]), int(month[5:])])
    y, x = np.mgrid[:side, :side] / side - 0.5
    shapes = (x < 0, np.hypot(x, y) < 0.3, y < 0, (np.abs(x) > 0.25) & (np.abs(y) > 0.25))
    if drift:
        shapes = (np.sin(40 * x) > 0, np.sin(40 * y) > 0, np.sin(40 * x) * np.sin(40 * y) > 0, np.sin(20 * y) > 0)
    for kind, name in enumerate(classes):
        for number in range(images):
            grey = 128 + 60 * np.where(shapes[kind], 1, -1) + rng.normal(0, 25, (side, side))
            if labels == "black":
                grey = np.zeros((side, side))
                grey[0] = rng.integers(0, 2, side)  # no two alike: they would be copies under other labels
            folder = root / month / (str(rng.choice(classes)) if labels == "noise" else name)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / f"{kind}-{number:03d}-{seed}.png")
    return root


@pytest.fixture(scope="session")
def retrain() -> Callable[..., Told]:
    """`python -m search.retrain ARGUMENTS` in this process."""
    from search.retrain import main

    def run(*arguments: str) -> Told:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        return Told(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_months(tracking_root: Path) -> Callable[[Path, str], tuple[str, ...]]:
    """`tiny_months(images, model)`: arguments of a retraining that takes seconds, with a model of its own."""

    def arguments(images: Path, model: str) -> tuple[str, ...]:
        return (
            "data=folder", f"data.path={images}", "data.size=[24,24]", "model=lenet5", "data.views=0",
            "space.optimizers=[adam]", "space.default_optimizer=adam", "trainer.epochs=6", "trainer.batch_size=8",
            "search.trials=1", "search.pruner=none", "search.evidence=false", "tracking.report=false",
            "retrain.trials=1", "retrain.epochs=2", "executor=inline", "executor.threads=1",
            f"tracking.root={tracking_root}", f"tracking.model_name={model}",
        )  # fmt: skip

    return arguments


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a folder of months that a test may change."""

    def copy(source: Path) -> Path:
        return Path(shutil.copytree(source, tmp_path / "months"))

    return copy
