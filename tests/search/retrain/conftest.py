"""Months of tiny images, `python -m search.retrain` as a function in this process, and a store that can be put back.

A first champion takes seconds, so a worker has one, and each test begins where that one was just made: the databases
are copied back page by page, what was written beside them since is removed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from search.retrain.ledger import Ledger

CLASSES = ("left", "middle", "top")
LEARNS = ("retrain.depth=0", "retrain.epochs=20")
"""Several times what a month of other stripes takes to be learnt, whatever processor computes.

Tests may expect that such a month promotes, since `write_month` makes it separable by construction with a wide margin:
a class is a pattern of its own, 60 grey levels up or down at each of 576 pixels, with noise of 25; and the champion has
not seen the patterns of a month that drifts, or the class that is new. No test expects the accuracy itself.
"""


@dataclass(frozen=True)
class Outcome:
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


class Months:
    """A folder of months and the model that is kept current with it.

    Attributes:
        images: folder of the months.
        model: name of the registered model.
        root: of the tracking store.
        arguments: of every command.
    """

    def __init__(self, images: Path, model: str, root: Path) -> None:
        self.images, self.model, self.root = images, model, root
        self.arguments = (
            "data=folder", f"data.path={images}", "data.size=[24,24]", "model=lenet5", "data.views=0",
            "space.optimizers=[adam]", "space.default_optimizer=adam", "trainer.epochs=6", "trainer.batch_size=8",
            "search.trials=1", "search.pruner=none", "search.evidence=false", "tracking.report=false",
            "retrain.trials=1", "retrain.epochs=2", "executor=inline", "executor.threads=1",
            f"tracking.root={root}", f"tracking.model_name={model}",
        )  # fmt: skip

    def retrain(self, *arguments: str) -> Outcome:
        """`python -m search.retrain ARGUMENTS` in this process, a verb first; what is given takes the place of ours."""
        from search.retrain.__main__ import main

        given = {one.split("=")[0] for one in arguments}
        rest = [one for one in self.arguments if one.split("=")[0] not in given]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*arguments, *rest])
        return Outcome(code, out.getvalue(), err.getvalue())

    def arrives(self, month: str, **how: Any) -> None:
        """A month's images arrive; see `write_month`."""
        write_month(self.images, month, **how)

    @property
    def ledger(self) -> Ledger:
        """The ledger as it is now."""
        from search.retrain.ledger import Ledger

        return Ledger(self.root, self.model)

    @property
    def client(self) -> MlflowClient:
        """Reads the store."""
        from mlflow import MlflowClient

        from search.tracking.tracker import tracking_uri

        return MlflowClient(tracking_uri(self.root), registry_uri=tracking_uri(self.root))

    @property
    def aliases(self) -> dict[str, str]:
        """Alias -> version of the model, but for that of the last challenger."""
        found = self.client.search_registered_models(f"name = '{self.model}'")
        every = dict(found[0].aliases.items()) if found else {}
        return {str(alias): str(version) for alias, version in every.items() if alias != "challenger"}

    def model_folder(self, version: str) -> Path:
        """Where the files of a registered version lie."""
        source = str(self.client.get_model_version(self.model, version).source)
        return self.root / "artifacts" / "models" / source.removeprefix("models:/")

    def runs(self, condition: str = "") -> list[Run]:
        """The store's runs that meet a condition."""
        ids = [one.experiment_id for one in self.client.search_experiments()]
        return list(self.client.search_runs(ids, condition, max_results=1000))


class Saved:
    """Databases and passing files of a store as they were."""

    def __init__(self, root: Path, to: Path) -> None:
        self._root, self._to = root, to
        for name in ("mlflow.db", "retraining.db"):
            _copy(root / name, to / name)
        self._files = self._beside()

    def put_back(self) -> None:
        """Let the store be that again."""
        for name in ("mlflow.db", "retraining.db"):
            _copy(self._to / name, self._root / name)
        for path in self._beside() - self._files:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _beside(self) -> set[Path]:
        return {path for folder in ("studies", "retraining") for path in (self._root / folder).glob("*")}


def _copy(source: Path, to: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(to)) as other:
        one.backup(other)


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Months, Outcome]:
    """A first champion, version 1, of thirty images of 2020-01, and what the command that made it said.

    In a store of its own: what tests of other things leave open in theirs is nothing that a month must close.
    """
    folder = tmp_path_factory.mktemp("first")
    months = Months(write_month(folder / "months", "2020-01"), "sheets", folder / "mlruns")
    return months, months.retrain()


@pytest.fixture(scope="module")
def saved(first: tuple[Months, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The store as it was when the first champion had just been made."""
    return Saved(first[0].root, tmp_path_factory.mktemp("saved"))


@pytest.fixture
def months(first: tuple[Months, Outcome], saved: Saved, tmp_path: Path) -> Iterator[Months]:
    """The first champion's months, a copy that may be changed, where nothing has come after them."""
    made = first[0]
    saved.put_back()
    yield Months(Path(shutil.copytree(made.images, tmp_path / "months")), made.model, made.root)
    saved.put_back()
