"""Who takes part, and one run of one of them: a process of its own, two threads, timed, tested once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.contract import Job, Lists
from benchmarks.peers.environment import FOLDER, interpreter
from benchmarks.peers.lists import prepared, weights_file, write_manifest

__all__ = ["PEERS", "THREADS", "UNIT", "Peer", "compete"]

THREADS = 2
UNIT = "timm"
"""The peer whose seconds are the unit of time."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """One way from labelled images to a model.

    Attributes:
        about: for readers.
        rival: module of `benchmarks.peers.rivals`; empty is Thawline's own command.
        environment: where it runs: "" is the project's.
        options: of the rival's `Job`.
        settings: of Thawline's command.
    """

    about: str
    rival: str = ""
    environment: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()


def _budget(minutes: int) -> Peer:
    return Peer(f"Thawline, {minutes} min", settings=(f"search.budget={minutes}min", "search.trials=10000"))


PEERS: dict[str, Peer] = {
    "neighbours": Peer("kNN on frozen features", "frozen_features", options={"classifier": "neighbours"}),
    "logistic": Peer("linear probe", "frozen_features", options={"classifier": "logistic"}),
    UNIT: Peer("timm fine-tuning", "timm_cosine"),
    "timm_224": Peer("timm fine-tuning, 224 px", "timm_cosine", options={"side": 224}),
    "fastai": Peer("fastai fine_tune", "fastai_fine_tune", "fastai"),
    "autogluon": Peer("AutoGluon multimodal", "autogluon_multimodal", "autogluon"),
    "optuna": Peer("Optuna's Lightning example", "optuna_lightning"),
    "thawline": Peer("Thawline, default command"),
    "thawline_1min": _budget(1),
    "thawline_3min": _budget(3),
    "thawline_10min": _budget(10),
    "thawline_30min": _budget(30),
}
"""Name -> peer. One with a budget goes on searching until its time is over, however few trials the default asks for."""

_SHORT = {
    "timm_cosine": {"epochs": 3},
    "fastai_fine_tune": {"epochs": 1},
    "autogluon_multimodal": {"epochs": 1},
    "optuna_lightning": {"epochs": 1, "trials": 2},
    "frozen_features": {},
}
_SHORT_SEARCH = ("search.trials=2", "trainer.epochs=2")


def compete(name: str, task: str, seed: int, *, short: bool = False) -> dict[str, Any]:
    """Run one peer on one split; its row, which says `failed` and why where it did not reach an answer.

    Args:
        name: of `PEERS`.
        task: of `benchmarks.peers.lists.TASKS`.
        seed: of the split and of everything random.
        short: an epoch or a trial or two with one thread, some sixty test images, to see that it runs.
    """
    peer = PEERS[name]
    lists_file, manifest = prepared(task, seed, FOLDER / "lists")
    lists = Lists.read(lists_file)
    if short:
        lists = replace(lists, test=lists.test[:: max(1, len(lists.test) // 60)])
        lists_file, manifest = lists_file.with_suffix(".short.json"), manifest.with_suffix(".short.csv")
        lists.write(lists_file)
        write_manifest(lists, manifest)
    row: dict[str, Any] = {"peer": name, "about": peer.about, "task": task, "seed": seed}
    row |= {"train": len(lists.train), "validation": len(lists.val), "test": len(lists.test)}
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f"{name}-") as folder:
        try:
            if peer.rival:
                row |= _rival(peer, lists, lists_file, Path(folder), seed, short=short)
            else:
                row |= _thawline(peer, lists, manifest, Path(folder), seed, short=short)
        except _NoAnswerError as failed:
            row["failed"] = str(failed)
            if (log := Path(folder) / "log.txt").exists():
                log.replace(FOLDER / f"{name}-{task}-{seed}.log")
    return row


class _NoAnswerError(Exception):
    """A peer that reached no answer, with its last words."""


def _rival(peer: Peer, lists: Lists, lists_file: Path, folder: Path, seed: int, *, short: bool) -> dict[str, Any]:
    python = interpreter(peer.environment)
    if not python.exists():
        raise _NoAnswerError(f"{peer.environment} is not installed here: python -m benchmarks.peers environment")
    options = {**peer.options, **(_SHORT[peer.rival] if short else {})}
    threads = 1 if short else THREADS
    job = Job(str(lists_file), str(weights_file(FOLDER / "weights")), str(folder), seed, threads, options)
    job.write(folder / "job.json")
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    module = f"benchmarks.peers.rivals.{peer.rival}"
    started = _run([str(python), "-W", "ignore", "-m", module, str(folder / "job.json")], folder, limits)
    found = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return {
        **_scores(lists, found["predicted"]),
        "seconds": round(found["trained_at"] - started, 1),
        "test_seconds": round(found["answered_at"] - found["trained_at"], 1),
        "settings": found["settings"],
        "versions": found["versions"],
    }


def _scores(lists: Lists, predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy and macro F1 as Thawline computes them of its own winner."""
    import torch
    from torch.nn import functional as F

    from lightning_modules.training.scores import scores

    answers = F.one_hot(torch.tensor(predicted), len(lists.classes)).float()
    found = scores(answers, torch.tensor([label for _, label in lists.test]))
    return {name: round(found[name], 4) for name in ("accuracy", "macro_f1")}


def _thawline(peer: Peer, lists: Lists, manifest: Path, folder: Path, seed: int, *, short: bool) -> dict[str, Any]:
    from search import load_study

    settings = [
        "data=manifest",
        "data.outside=allow",
        f"data.path={manifest}",
        f"data.fit={lists.fit}",
        f"seed={seed}",
        *peer.settings,
        *(_SHORT_SEARCH if short else ()),
    ]
    root = folder / "mlruns"
    command = [sys.executable, "-m", "search", *settings, f"tracking.root={root}", "search.study=peers"]
    started = _run(command, folder, {})
    seconds = time.time() - started
    study = load_study("peers", root)
    winner = study.winner
    if winner is None or winner.test is None:
        raise _NoAnswerError("the search left no tested winner")
    return {
        **{name: round(winner.test[name], 4) for name in ("accuracy", "macro_f1")},
        "seconds": round(seconds, 1),
        "settings": {
            "command": " ".join(one for one in settings if not one.startswith("data.path=")),
            "trials": len(study.trials),
            "validation": round(winner.value, 4),
            **winner.params,
        },
    }


def _run(command: Sequence[str], folder: Path, more: Mapping[str, str]) -> float:
    """Run it to its end, without a GPU or a network; when it was started (`time.time()`)."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "MALLOC_", "MKL_", "OPENBLAS_"))}
    environment = {**own, **more, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(_ROOT)}
    with (folder / "log.txt").open("w") as log:
        started = time.time()
        done = subprocess.run(command, env=environment, check=False, stdout=log, stderr=log)  # noqa: S603
    if done.returncode:
        raise _NoAnswerError(last_words((folder / "log.txt").read_text(encoding="utf-8", errors="replace")))
    return started


def last_words(log: str) -> str:
    """The last line of a log that says something, without the folders of this machine."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return re.sub(r"(?<![\w.])/(?:[^/\s'\"]+/)+", "", lines[-1])[:500] if lines else "no word"
