"""Outputs of each configuration under a falling rate: `python -m benchmarks.output_tables TASK SPLIT [NETWORK] [PART]`.

What a judge may look at: of each freeze depth, optimizer and learning rate the probabilities that it gives each
validation image after every epoch, and each of `depth_tables.WATCHED` test images after the last one. The images,
splits and settings are those of `depth_tables`, but the rate falls to zero by a cosine. One file a split,
benchmarks/tables/answers/TASK-NETWORK-SPLIT.npz; what it holds is not trained again. Of a configuration
`DEPTH/OPTIMIZER/FACTOR` it holds `.../val` (epochs, images, classes) and `.../test` (images, classes), as 16-bit
probabilities, and `.../cost` in epochs of training everything; `val_labels` and `test_labels` are those of the images.

PART is all, or defaults: the default optimizer and rate at every freeze depth, then at two of these again under `SEEDS`
other seeds, as `DEPTH/OPTIMIZER/FACTOR/SEED`, which are the rival of a committee of depths.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch

from benchmarks.depth_tables import CACHE, TABLES, WATCHED, table_data
from lightning_modules.training.classifier import Classifier

OUTPUTS = TABLES / "answers"
OPTIMIZERS = ("adam", "momentum")
FACTORS = (0.3, 1.0, 3.0)
SEEDS = (1, 2)  # beside the split's own
DEFAULT = ("adam", 1.0)


class OutputClassifier(Classifier):
    """The product's module; keeps the probabilities of each epoch."""

    kept: dict[str, list[Any]]

    def on_validation_epoch_end(self) -> None:
        for scored, outputs in self._outputs.items():
            logits, labels = (torch.cat(part) for part in zip(*outputs, strict=True))
            if (judge := self._judges.get(scored)) is not None:
                logits, labels = judge(logits)
            self.kept.setdefault(scored, []).append(logits.softmax(1).half().numpy())
            self.kept[f"{scored}_labels"] = [labels.numpy()]
        super().on_validation_epoch_end()


def rows(depth: int, part: str) -> Iterator[tuple[str, str, int, str, float]]:
    """(key, seed beside the split's own, freeze depth, optimizer, factor) of what is trained, the default first."""
    for seed, depths in (("", range(depth, -1, -1)), *((f"/{s}", (depth // 2, depth // 4)) for s in SEEDS)):
        for k in depths:
            yield f"{k}/{DEFAULT[0]}/{DEFAULT[1]}{seed}", seed.strip("/"), k, *DEFAULT
    for k, optimizer, factor in product(range(depth, -1, -1), OPTIMIZERS, FACTORS) if part == "all" else ():
        yield f"{k}/{optimizer}/{factor}", "", k, optimizer, factor


def fill(name: str, split: int, network: str = "efficientnet_lite0", part: str = "all") -> None:
    """Train what the file of one split does not hold yet."""
    import search.trial.fitting as fitting
    from lightning_modules.training.allocator import keep_freed_memory
    from search.trial.result import TrialParams
    from search.trial.task import build_task
    from search.trial.training import run_trial

    keep_freed_memory()
    torch.set_num_threads(1)
    settings, images, splits = table_data(
        name, split, "trainer.cache_gigabytes=6", "trainer.schedule=cosine", f"model.name={network}"
    )
    watched = np.sort(np.random.default_rng([split, 7]).permutation(splits.test)[:WATCHED])
    task = build_task(settings, images, splits, cache=CACHE / "cache", watched=watched)
    file = OUTPUTS / f"{name}-{network}-{split}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    held = dict(np.load(file)) if file.exists() else {}
    fitting.Classifier = OutputClassifier  # type: ignore[misc]
    for key, seed, depth, optimizer, factor in rows(task.net.num_blocks, part):
        if f"{key}/val" in held:
            continue
        started = time.perf_counter()
        OutputClassifier.kept = kept = {}
        result = run_trial(task, TrialParams(optimizer, factor, depth), seed=1000 * int(seed or 0) + split)
        held |= {
            f"{key}/val": np.stack(kept["val"]),
            f"{key}/test": kept["watched"][-1],
            f"{key}/cost": np.float32(result.epoch_equivalents),
            "val_labels": kept["val_labels"][0],
            "test_labels": kept["watched_labels"][0],
        }
        new = file.with_suffix(".new.npz")
        np.savez_compressed(new, **held)
        new.replace(file)
        seconds = time.perf_counter() - started
        print(f"{name} {split} {network} {key}: {result.value:.3f}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    fill(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
