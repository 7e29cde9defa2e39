"""What each of timm's families gives here: `python -m benchmarks.timm_families > docs/timm_families.md`.

Of each module of timm its smallest network (without timm's own toys, `test_...`) is built at the size it was made for,
then at smaller ones, and a search of two trials at two freeze depths is run with it through the command line: on twelve
made-up images, from a file of random weights. Each runs in a process of its own with a limit of seconds.
Names of modules as arguments restrict the table to them.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from explain import block_maps
from lightning_modules.errors import InputError
from lightning_modules.networks.backbones import build
from search.__main__ import main as search

__all__ = ["Family", "examine", "limited", "smallest", "write_images"]

SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384)
LIMIT = 1200.0
_TABLE = """\
# Networks of timm

`model=timm model.name=timm:NAME` takes any network of timm whose parts run one after the other. This table is made by
`python -m benchmarks.timm_families`: of each of timm's {families} families the smallest network, from random weights.
{works} can be searched; the others are refused with the sentence that stands here. "Smallest side" is of 32, 64, ...
pixels; two trials ran on twelve images; "maps" says whether Grad-CAM has a map of every block; seconds are those of
the search, on one busy core. A network of timm {version} that is not here may be told from its family.

| family | network | blocks | parameters, millions | smallest side | trials | maps | seconds |
| --- | --- | --: | --: | --: | --- | --- | --: |
"""


@dataclass(frozen=True)
class Family:
    """What one network gave.

    Attributes:
        refusal: the sentence with which it is refused; "" where it can be searched.
        code: exit code of the search; None where none was run.
        error: what went wrong that is no refusal: a traceback's last line, or the limit of seconds.
    """

    network: str
    blocks: int = 0
    millions: float = 0.0
    side: int = 0
    maps: bool = False
    seconds: float = 0.0
    refusal: str = ""
    code: int | None = None
    error: str = ""


def smallest(module: str) -> str:
    """The network with the fewest parameters of a module of timm."""
    counts = {}
    for name in timm.list_models(module=module):
        if not name.startswith("test_"):
            with torch.device("meta"):
                counts[name] = sum(p.numel() for p in timm.create_model(name, num_classes=3).parameters())
    return min(counts, key=lambda name: (counts[name], name))


def write_images(folder: Path) -> Path:
    """Two classes of six grey 32 x 32 images each."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(folder / label / f"{number}.png")
    return folder


def examine(network: str, images: Path, scratch: Path) -> Family:
    """Build the network, look at its maps, and search with it.

    Args:
        images: see `write_images`.
        scratch: folder of the store and of the weights.
    """
    torch.set_num_threads(1)
    config = timm.get_pretrained_cfg(network)
    own = max((config.input_size if config else (3, 224, 224))[1:])
    name = f"timm:{network}"
    try:
        net = build(name, classes=2, size=(own, own), weights="none")
    except InputError as refusal:
        return Family(network, refusal=str(refusal))
    side = own
    for side in (*(side for side in SIDES if side < own), own):
        try:
            net = build(name, classes=2, size=(side, side), weights="none")
        except InputError:
            continue
        break
    maps = block_maps(net.eval(), torch.rand(1, 3, side, side), [f"blocks.{b}" for b in net.block_names], 0)
    weights = scratch / f"{network}.pth"
    torch.save(timm.create_model(network, num_classes=2).state_dict(), weights)
    out, err, error, code = io.StringIO(), io.StringIO(), "", None
    start = time.perf_counter()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = search([
                "data=folder", f"data.path={images}", f"data.size=[{side},{side}]", "data.views=1", "model=timm",
                f"model.name={name}", f"model.weights={weights}", "trainer.epochs=1", "trainer.batch_size=4",
                "search.trials=2", "executor=inline", "executor.threads=1", "tracking.report=false",
                f"search.study={network}", f"tracking.root={scratch / 'mlruns'}",
            ])  # fmt: skip
        except Exception as found:  # what the table is to find
            error = f"{type(found).__name__}: {str(found).splitlines()[0] if str(found) else ''}"
    weights.unlink()
    square = all(m.shape[1] == m.shape[2] and bool(m.isfinite().all()) for m in maps.values())  # as the images are
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    seconds = time.perf_counter() - start
    refusal = err.getvalue().strip() if code else ""
    return Family(network, net.num_blocks, millions, side, square, seconds, refusal, code, error)


def limited(work: Callable[[], Family], seconds: float = LIMIT) -> Family:
    """Do the work in a fork of this process, which is ended when its seconds are over."""

    def send(end: Connection) -> None:
        try:
            end.send(work())
        except BaseException as error:  # no family may end the table
            end.send(Family("", error=f"{type(error).__name__}: {error}"))
        os._exit(0)  # libraries' threads did not come along: nothing is to wait for them

    context: Any = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(theirs,))
    process.start()
    theirs.close()
    try:
        found: Family = ours.recv() if ours.poll(seconds) else Family("", error=f"not done after {seconds:g} s")
    except EOFError:
        found = Family("", error="its process died")
    process.kill()
    process.join()
    return found


def row(family: str, found: Family) -> str:
    """A row of the table."""
    problem = found.error or found.refusal
    numbers = [str(found.blocks), f"{found.millions:.1f}", str(found.side)] if found.blocks else ["", "", ""]
    last = (
        [problem.replace("|", "/"), "", ""]
        if problem
        else ["yes", "yes" if found.maps else "no", f"{found.seconds:.0f}"]
    )
    return f"| {' | '.join([family, f'`{found.network}`', *numbers, *last])} |"


def main(chosen: list[str]) -> int:
    """Print the table; exit status 1 if anything was neither searched nor refused."""
    rows, found = [], []
    with tempfile.TemporaryDirectory() as scratch:
        images = write_images(Path(scratch) / "images")
        for module in chosen or timm.list_modules():
            network = smallest(module)
            result = limited(lambda network=network: examine(network, images, Path(scratch)))  # type: ignore[misc]
            result = result if result.network else Family(network, error=result.error)
            rows.append(row(module, result))
            found.append(result)
            print(rows[-1], file=sys.stderr, flush=True)
    works = sum(result.code == 0 for result in found)
    print(_TABLE.format(families=len(found), works=works, version=timm.__version__) + "\n".join(rows))
    return int(any(result.error for result in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
