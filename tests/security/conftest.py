"""The commands, run in this process as a user would run them, with the network cut."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security.malicious_files import ESCAPE, SCRIPT, Malice, write_images, write_malice
from tests.security.network import asked_for, cut_network

KEPT = "s3cret-of-the-environment"


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[[str, Sequence[str]], Outcome]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`command(program, arguments)` in an empty folder, with every way to another machine cut."""
    import torch

    threads = torch.get_num_threads()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    cut_network(monkeypatch)

    def run(program: str, arguments: Sequence[str]) -> Outcome:
        code = _main(program)(list(arguments))
        return Outcome(code, *capfd.readouterr())

    capfd.readouterr()
    yield run
    torch.set_num_threads(threads)
    assert not asked_for


def _main(program: str) -> Callable[[list[str]], int]:
    if program == "explain":
        from search.explain.__main__ import main
    elif program == "ui":
        from search.ui import main
    elif program == "predict":
        from search.predict.__main__ import main
    else:
        from search.__main__ import main
    return main


@dataclass(frozen=True)
class Searched:
    """A finished search of images from a stranger.

    Attributes:
        arguments: of the search.
        images: folder of the images.
        root: of the store.
        out: what the search printed.
        asked_for: addresses that anything asked the network for meanwhile.
        secret: value of variables of the environment.
    """

    arguments: tuple[str, ...]
    images: Path
    root: Path
    out: str
    asked_for: tuple[str, ...]
    secret: str


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """A search with the network cut, a secret in the environment, and a label and a file name full of code."""
    import torch

    from search.__main__ import main

    base = tmp_path_factory.mktemp("searched")
    images = write_images(base / "images", side=32)
    (images / "a" / "00.png").rename(images / "a" / f"{ESCAPE}[bold]x.png")
    labels = {path.relative_to(images): path.parent.name.replace("b", SCRIPT) for path in sorted(images.rglob("*.png"))}
    rows = "".join(f"{path},{label}\n" for path, label in labels.items())
    (images / "manifest.csv").write_text(f"path,label\n{rows}", encoding="utf-8")
    arguments = (
        "data=manifest", f"data.path={images / 'manifest.csv'}", "data.size=[32,32]",
        "model=timm", "model.name=timm:test_resnet", "model.weights=none",
        "space.freeze_depth=[0,0]", "search.trials=2", "trainer.epochs=1", "executor=inline",
        "executor.threads=1", "search.study=tiny", f"tracking.root={base / 'mlruns'}",
    )  # fmt: skip
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setenv("TOKEN", KEPT)
        patch.setenv("AWS_SECRET_ACCESS_KEY", KEPT)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", KEPT)
        patch.chdir(base)
        cut_network(patch)
        assert main(arguments) == 0
        tried = tuple(asked_for)
    torch.set_num_threads(threads)
    yield Searched(arguments, images, base / "mlruns", out.getvalue(), tried, KEPT)


@pytest.fixture(scope="session")
def malice(tmp_path_factory: pytest.TempPathFactory) -> Malice:
    """Everything malicious, made once."""
    return write_malice(tmp_path_factory.mktemp("malice"))
