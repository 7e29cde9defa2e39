"""What answers best together: `python -m benchmarks.committees TASK SPLIT [NETWORK] [SIZE] [KEYS]`.

The default optimizer and rate is trained on training and validation images, as a winner is, at several freeze depths,
at two of these under three seeds, and at `FIRST` each on its own four fifths of the images (what a member would be that
need not be refitted) and on the training images alone, as the trials are. By what these answer on the validation images
the refitted ones are weighted too (`fit_weights`), and these go on for a few epochs on all images (`GOING_ON`). KEYS,
with commas between them, are those to train; otherwise all.

Logits of `WATCHED` test images, of the plain image and the mean over it and its views, are kept in
benchmarks/tables/committees/TASK-NETWORK-SIZE-SPLIT.npz, with the cost in epochs of training everything on the training
images; what is there is not trained again. `python -m benchmarks.committees` prints what each committee gains over the
default trial refitted.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.depth_tables import CACHE, TABLES, WATCHED, table_data
from benchmarks.student_interval import interval
from lightning_modules.networks.committee import fit_weights

KEPT = TABLES / "committees"
VIEWS = 4
DEPTHS = (4, 8, 2, 6, 5, 3, 0)  # of eight blocks
SEEDS = {4: (1, 2), 2: (1, 2)}
GOING_ON = {"on 3": (3, 1.0), "on 3 at .3": (3, 0.3), "on 5 at .3": (5, 0.3)}  # epochs, times the trial's rate
FIRST = (4, 8, 2, 6)  # what a search tries first; the j-th of them without the j-th fifth

COMMITTEES: dict[str, tuple[str, ...]] = {
    "the default trial": ("4/0",),
    "4, 8": ("4/0", "8/0"),
    "4, 8, 2": ("4/0", "8/0", "2/0"),
    "4, 8, 2, 6": ("4/0", "8/0", "2/0", "6/0"),
    "4, 8, 2, 6, 0": ("4/0", "8/0", "2/0", "6/0", "0/0"),
    "4, 2, 6": ("4/0", "2/0", "6/0"),
    "4, 2, 6, 3, 5": ("4/0", "2/0", "6/0", "3/0", "5/0"),
    "4, 8, 0": ("4/0", "8/0", "0/0"),
    "4 under three seeds": ("4/0", "4/1", "4/2"),
    "2 under three seeds": ("2/0", "2/1", "2/2"),
    "4, 8, 2, not refitted": ("4/trial", "8/trial", "2/trial"),
    **{f"4, 8, 2, trials gone {k}": tuple(f"{d}/{k}" for d in (4, 8, 2)) for k in GOING_ON},
    "4, 8, 2, each on four fifths": ("4/left out", "8/left out", "2/left out"),
    "weights of 4 under three seeds averaged (a soup)": ("4/soup",),
    "2": ("2/0",),
    "8": ("8/0",),
    "0": ("0/0",),
}


def trained(blocks: int) -> Iterator[tuple[str, int, int]]:
    """(key, freeze depth in a network of so many blocks, seed; -1 leaves a fifth out, -2 the validation images)."""
    wanted = [(k, 0) for k in DEPTHS] + [(k, s) for k, seeds in SEEDS.items() for s in seeds]
    for k, seed in [*wanted, *((k, s) for s in (-2, -1) for k in FIRST)]:
        yield f"{k}/{ {-1: 'left out', -2: 'trial'}.get(seed, seed) }", round(k * blocks / 8), seed


def fill(name: str, split: int, network: str = "efficientnet_lite0", size: int = 96, only: str = "") -> None:
    """Train what the file of one split does not hold yet."""
    from lightning_modules.training.allocator import keep_freed_memory
    from search.outcome.out_of_sample import image_groups
    from search.trial.result import TrialParams
    from search.trial.task import build_task
    from search.trial.training import train_final

    keep_freed_memory()
    torch.set_num_threads(1)
    settings, images, splits = table_data(
        name, split, "trainer.cache_gigabytes=6", "trainer.schedule=cosine", f"model.name={network}",
        f"data.size=[{size},{size}]",
    )  # fmt: skip
    task = build_task(settings, images, splits, cache=CACHE / "cache")
    test = np.sort(np.random.default_rng([split, 7]).permutation(task.splits.test)[:WATCHED])
    file = KEPT / f"{name}-{network}-{size}-{split}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    held = dict(np.load(file)) if file.exists() else {"labels": task.index.labels[test]}
    rows, epochs = task.rows(None), settings.trainer.epochs
    fifths = StratifiedGroupKFold(5, shuffle=True, random_state=split)
    left = [rows[i] for i, _ in fifths.split(rows, task.index.labels[rows], image_groups(task)[rows])]
    states: list[dict[str, torch.Tensor]] = []
    for key, depth, seed in trained(task.net.num_blocks):
        keys = [key, *(f"{depth_of(key)}/{going}" for going in GOING_ON if seed == -2)]
        if all(f"{one}/plain" in held for one in keys) or (only and key not in only.split(",")):
            continue
        started = time.perf_counter()
        fold = task.splits.folds[0]
        own = {-1: left[FIRST.index(depth_of(key)) if seed == -1 else 0], -2: fold.train}.get(seed, rows)
        net = train_final(task, TrialParams("adam", 1.0, depth), 1000 * max(seed, 0) + split, own, epochs)
        share = len(own) / len(task.splits.folds[0].train)
        cost = task.epochs_worth(depth, epochs) * share
        held |= _kept(task, key, net, test, cost)
        if seed == -2:
            for name_of, (more, times) in GOING_ON.items():
                params = TrialParams("adam", times, depth)
                on = train_final(task, params, split, rows, more, start=net)
                cost = task.epochs_worth(depth, more) * len(rows) / len(fold.train)
                held |= _kept(task, f"{depth_of(key)}/{name_of}", on, test, cost)
            held |= {f"{key}/val": _answers(task, net, fold.val, 0), "val_labels": task.index.labels[fold.val]}
        if key.startswith("4/") and seed >= 0:
            states.append(net.state_dict())
        if len(states) == 1 + len(SEEDS[4]) and "4/soup/plain" not in held:
            net.load_state_dict({n: _mean([state[n] for state in states]) for n in states[0]})
            held |= _kept(task, "4/soup", net, test, cost * len(states))
        new = file.with_suffix(".new.npz")
        np.savez_compressed(new, **held)
        new.replace(file)
        score = f1_score(held["labels"], held[f"{key}/plain"].argmax(1), average="macro")
        print(f"{file.stem} {key}: {score:.4f}, {time.perf_counter() - started:.0f} s", flush=True)


def _kept(task, key: str, net, test: NDArray[np.int64], cost: float) -> dict[str, NDArray[np.float32]]:  # type: ignore[no-untyped-def]
    shown = [_answers(task, net, test, view) for view in range(VIEWS + 1)]
    return {f"{key}/plain": shown[0], f"{key}/views": np.stack(shown).mean(0), f"{key}/cost": np.float32(cost)}


def _mean(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of weights and running statistics; counters are those of the first."""
    return torch.stack(tensors).mean(0) if tensors[0].is_floating_point() else tensors[0]


@torch.no_grad()
def _answers(task, net, rows: NDArray[np.int64], view: int) -> NDArray[np.float32]:  # type: ignore[no-untyped-def]
    """Normalized logits (N, classes) of one view; 0 is the plain image."""
    parts = [net(task.inputs(part, np.full_like(part, view))).cpu().numpy() for part in np.array_split(rows, 8)]
    return log_softmax(np.concatenate(parts), axis=1).astype(np.float32)


def depth_of(key: str) -> int:
    """Freeze depth of a key, of eight blocks."""
    return int(key.split("/")[0])


def compare() -> None:
    """Print gains over the default trial: means over a task's splits, and Student's interval over all splits."""
    gains: dict[str, dict[str, list[tuple[float, float, float]]]] = defaultdict(lambda: defaultdict(list))
    base: dict[str, list[float]] = defaultdict(list)
    for file in sorted(f for f in KEPT.glob("*.npz") if not f.stem.endswith(".new")):
        held = dict(np.load(file))
        task, network, size, _ = file.stem.split("-")
        where, labels = f"{task} {network.removeprefix('efficientnet_')} {size}", held["labels"]
        scores = {}
        for name, keys in COMMITTEES.items():
            for kind in ("plain", "views"):
                if all(f"{key}/{kind}" in held for key in keys):
                    logits = np.mean([held[f"{key}/{kind}"] for key in keys], axis=0)
                    f1 = 100 * f1_score(labels, logits.argmax(1), average="macro")
                    loss = log_loss(labels, softmax(logits.astype(float), axis=1), labels=range(logits.shape[1]))
                    cost = sum(float(held[f"{key}/cost"]) for key in keys)
                    scores[f"{name}{', views' if kind == 'views' else ''}"] = f1, loss, cost
        keys = COMMITTEES["4, 8, 2"]
        if all(f"{depth_of(key)}/trial/val" in held and f"{key}/plain" in held for key in keys):
            val = np.stack([held[f"{depth_of(key)}/trial/val"] for key in keys]).astype(float)
            weights = fit_weights(val, held["val_labels"])
            logits = np.tensordot(np.array(weights), np.stack([held[f"{key}/plain"] for key in keys]).astype(float), 1)
            f1 = 100 * f1_score(labels, logits.argmax(1), average="macro")
            loss = log_loss(labels, softmax(logits, axis=1), labels=range(logits.shape[1]))
            scores["4, 8, 2, stacked"] = f1, loss, sum(float(held[f"{key}/cost"]) for key in keys)
            print(f"{file.stem}: weights {', '.join(f'{w:.2f}' for w in weights)}")
        if "the default trial" in scores:
            first = scores["the default trial"]
            base[where].append(first[0])
            for name, (f1, loss, cost) in scores.items():
                gains[name][where].append((f1 - first[0], loss - first[1], cost / first[2]))
    table = Table("answers together", *(f"{w} ({len(v)}: {np.mean(v):.1f})" for w, v in base.items()),
                  "mean of tasks", "95 % over splits", "log loss", "cost")  # fmt: skip
    for name, by_task in gains.items():
        cells = [f"{np.mean([g for g, *_ in by_task[w]]):+.2f}" if w in by_task else "" for w in base]
        every = np.array([one for w in by_task.values() for one in w])
        mean = np.mean([np.mean([g for g, *_ in w]) for w in by_task.values()])
        low, high = interval(every[:, 0])
        table.add_row(name, *cells, f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}", f"{every[:, 1].mean():+.3f}",
                      f"{every[:, 2].mean():.1f}")  # fmt: skip
    Console(width=90 + 16 * len(base)).print(table)


if __name__ == "__main__":
    if sys.argv[1:]:
        fill(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:5]), *sys.argv[5:])
    else:
        compare()
