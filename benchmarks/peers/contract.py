"""What a rival is given and what it answers, as JSON files. Standard library alone: every environment reads this.

A rival is a module of `benchmarks.peers.rivals` that is run as `python -m MODULE JOB`, JOB being a `Job` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["File", "Job", "Lists", "answer"]

File = tuple[str, int]
"""Path of an image, number of its class."""


@dataclass(frozen=True)
class Lists:
    """One split of one task, the same for every peer.

    Attributes:
        size: (height, width) in pixels to which images are brought.
        fit: how another aspect ratio is brought to it: stretch, or pad (edge pixels are repeated).
        classes: names; a label is a place in them.
        train, val, test: image files with their labels.
    """

    task: str
    seed: int
    size: tuple[int, int]
    fit: str
    classes: tuple[str, ...]
    train: tuple[File, ...]
    val: tuple[File, ...]
    test: tuple[File, ...]

    @property
    def labelled(self) -> tuple[File, ...]:
        """Training and validation images together: what a recipe that tunes nothing trains on."""
        return self.train + self.val

    def write(self, file: Path) -> None:
        """Write them as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Lists:
        """What `write` wrote."""
        found = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: tuple((path, label) for path, label in found[part]) for part in ("train", "val", "test")}
        height, width = found["size"]
        return cls(found["task"], found["seed"], (height, width), found["fit"], tuple(found["classes"]), **parts)


@dataclass(frozen=True)
class Job:
    """What a rival shall do.

    Attributes:
        lists: file of the `Lists`.
        weights: file of the pre-trained weights, a safetensors of timm's tf_efficientnet_lite0.
        folder: empty, the rival's own; whatever it keeps goes there.
        seed: of everything random.
        threads: it may use.
        options: of the rival, such as epochs, trials or size.
    """

    lists: str
    weights: str
    folder: str
    seed: int
    threads: int
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_command_line(cls) -> Job:
        """The job whose file is the one argument."""
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def answer(
    job: Job, *, trained_at: float, predicted: Sequence[int], settings: dict[str, Any], packages: Sequence[str]
) -> None:
    """Write what the rival has reached.

    Args:
        job: it was given.
        trained_at: `time.time()` when the model to be tested was ready.
        predicted: class numbers of the test images, in their order.
        settings: what describes the rival's recipe or what it chose.
        packages: whose versions are noted.
    """
    found = {
        "trained_at": trained_at,
        "answered_at": time.time(),
        "predicted": [int(label) for label in predicted],
        "settings": settings,
        "versions": {name: version(name) for name in packages},
    }
    (Path(job.folder) / "answer.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
