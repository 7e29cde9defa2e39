"""The command line as a function, tiny images that an ImageNet network can tell apart, and one MLflow store.

A fresh MLflow store takes 6 to 9 seconds to create and holds absolute paths, so it is neither made for every test nor
copied: all tests of a session share one, each with studies of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from search.trial.task import Task

REPOSITORY = Path(__file__).parents[2]
CLASSES = ("가로 줄무늬", "세로", "점")


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


RunSearch = Callable[..., Outcome]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"}


@pytest.fixture(scope="session")
def run_search(tmp_path_factory: pytest.TempPathFactory) -> RunSearch:
    """`python -m search ARGUMENTS` in a process of its own: `run_search(*arguments, cwd=None, timeout=500)`."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str, cwd: Path | None = None, timeout: float = 500) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "search", *arguments],
            cwd=cwd or elsewhere,
            env=_environment(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        streams = (stream.decode("utf-8", "backslashreplace") for stream in (done.stdout, done.stderr))
        return Outcome(done.returncode, *streams)

    return run


@pytest.fixture(scope="session")
def run_search_warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunSearch]:
    """The same in a fork of a process that has imported everything (see `command_server.py`)."""
    folder = tmp_path_factory.mktemp("warm")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_server.py")), "search.__main__", "search.pipeline"],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None
    assert server.stdout.readline() == "0\n", "the command server died"
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: str, cwd: Path | None = None) -> Outcome:
        streams = {"out": str(folder / "out"), "err": str(folder / "err")}
        request = {"arguments": arguments, "cwd": str(cwd or elsewhere), **streams}
        print(json.dumps(request), file=server.stdin, flush=True)
        _pid, answer = (server.stdout.readline() for _ in range(2))
        assert answer, "the command server died"
        texts = (Path(file).read_bytes().decode("utf-8", "backslashreplace") for file in streams.values())
        return Outcome(int(answer), *texts)

    try:
        yield run
    finally:
        server.stdin.close()
        server.wait(timeout=300)
        server.stdout.close()


def write_stripes(root: Path, counts: dict[str, int], *, side: int = 32, seed: int = 0) -> Path:
    """Grey PNG files root/<class>/*.png: each class another texture (up to three), each image another phase."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    for kind, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            phase = rng.uniform(0, 6)
            textures = (np.sin(y + phase), np.sin(x + phase), np.sin(0.6 * x + phase) * np.sin(0.6 * y + phase))
            wave = textures[kind % 3]
            grey = np.clip(128 + 90 * wave + rng.normal(0, 10, wave.shape), 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(root / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def make_stripes() -> Callable[..., Path]:
    """`make_stripes(root, {class: images}, side=32, seed=0)`; see `write_stripes`."""
    return write_stripes


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve 32 x 32 images; Hangul and spaces in the names, and one file name that is not UTF-8."""
    root = write_stripes(tmp_path_factory.mktemp("images") / "강판 lot 3", dict.fromkeys(CLASSES, 12))
    (root / CLASSES[1] / "00.png").rename(root / CLASSES[1] / os.fsdecode(b"caf\xe9 1.png"))
    return root


@pytest.fixture(scope="session")
def tracking_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's one MLflow store."""
    from search.tracking.tracker import Tracker

    root = tmp_path_factory.mktemp("tracking") / "mlruns"
    Tracker(root, "thawline")
    return root


@pytest.fixture(scope="session")
def tiny(stripes: Path, tracking_root: Path) -> tuple[str, ...]:
    """Arguments of a search that takes seconds: four trials of two epochs on `stripes`."""
    return (
        "data=folder",
        f"data.path={stripes}",
        "data.size=[32,32]",
        "trainer.epochs=2",
        "search.trials=4",
        "search.startup_trials=2",
        "search.members=1",
        "search.stop=never",
        "space.default_depths=1",
        "executor=inline",
        "executor.threads=1",
        "tracking.report=false",
        f"tracking.root={tracking_root}",
    )


@pytest.fixture(scope="session")
def finished(tiny: tuple[str, ...], tracking_root: Path, run_search_warm: RunSearch) -> SimpleNamespace:
    """A finished search: `arguments`, `study`, `root`, and the command's `outcome`."""
    arguments = (*tiny, "search.evidence=true", "search.study=tiny")
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(arguments=arguments, study="tiny", root=tracking_root, outcome=outcome)


@pytest.fixture(scope="module")
def make_task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Callable[..., Task]:
    """A task on 24 tiny images, with these settings."""
    from lightning_modules.images.splits import make_splits
    from lightning_modules.images.store import load_images
    from search.settings.schema import (
        DataSettings,
        ExecutorSettings,
        ModelSettings,
        SearchSettings,
        Settings,
        TrainerSettings,
    )
    from search.trial.task import build_task

    folder = tmp_path_factory.mktemp("trial")
    images = make_stripes(folder / "images", {"a": 8, "b": 8, "c": 8})

    def build(
        *,
        folds: int = 1,
        cache: str = "cache",
        epochs: int = 3,
        model: str = "efficientnet_lite0",
        checkpoint_seconds: float | None = None,
        pruner: str = "halving",
        **trainer: object,
    ) -> Task:
        settings = Settings(
            data=DataSettings(source="folder", size=(32, 32), folds=folds, views=2),
            model=ModelSettings(model, "none" if model == "lenet5" else "imagenet"),
            search=SearchSettings(pruner=pruner),
            executor=ExecutorSettings(checkpoint_seconds=checkpoint_seconds),
            trainer=TrainerSettings(epochs=epochs, batch_size=8, accelerator="cpu", **trainer),  # type: ignore[arg-type]
        )
        found = load_images("folder", images, size=(32, 32), cache=folder / "store")
        return build_task(settings, found, make_splits(found.index, folds=folds), cache=folder / cache)

    return build
