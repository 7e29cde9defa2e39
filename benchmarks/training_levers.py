"""Levers of training, one at a time: `python -m benchmarks.training_levers TABLE TASK SPLIT [NETWORK]`.

Each row trains once on the training images of one random split, all 20 epochs, and tests the last epoch's network on
test images. A row is the base recipe with one thing changed. What is not a setting of the product is done here, by a
subclass of its Classifier. Rows are appended to benchmarks/tables/levers/TABLE-TASK-NETWORK-SPLIT.jsonl; what is there
is not trained again. `python -m benchmarks.training_levers summary` prints what each lever gained.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from benchmarks.student_interval import interval
from lightning_modules.training.classifier import Classifier

ROWS = Path(__file__).parent / "tables" / "levers"
CACHE = Path("mlruns") / "tables"
TEST = 600


@dataclass(frozen=True)
class Recipe:
    """One way to train; the base is the class's defaults."""

    size: int = 96
    depth: int | None = None  # half the blocks
    optimizer: str = "adam"
    factor: float = 1.0
    epochs: int = 20
    schedule: str = "cosine"
    warmup: float = 0.0
    smoothing: float = 0.0
    ema: float = 0.0  # share of the steps over which weights are averaged
    layer_decay: float = 1.0
    weight_decay: float = 1e-4
    focal: float = 0.0
    mixup: float = 0.0
    balanced: str = "no"  # weights, sampling
    views: int = 4
    kind: str = "plain"
    cold: bool = False
    test_views: int = 0
    batch: int = 32


LEVERS: dict[str, dict[str, Any]] = {
    "base": {},
    "momentum": {"optimizer": "momentum"},
    "constant rate": {"schedule": "constant"},
    "label smoothing .1": {"smoothing": 0.1},
    "EMA": {"ema": 0.2},
    "class-balanced sampling": {"balanced": "sampling"},
    "focal loss 2": {"focal": 2.0},
    "any orientation": {"kind": "any"},
    "both flips": {"kind": "flips"},
    "random erasing": {"kind": "erase"},
    "MixUp .2": {"mixup": 0.2},
    "nothing frozen": {"depth": 0},
    "nothing frozen, layer decay .9": {"depth": 0, "layer_decay": 0.9},
    "batches of 16": {"batch": 16},
    "half the epochs": {"epochs": -2},
    "twice the epochs": {"epochs": 2},
    "test-time views": {"test_views": 4},
    "class weights": {"balanced": "weights"},
    "no views": {"views": 0},
    "16 views": {"views": 16},
    "blur": {"kind": "blur"},
    "nothing frozen, layer decay .8": {"depth": 0, "layer_decay": 0.8},
    "AdamW, decay .05": {"optimizer": "adamw", "weight_decay": 0.05},
    "momentum x 3": {"optimizer": "momentum", "factor": 3.0},
    "RMSprop": {"optimizer": "rmsprop"},
    "rate x 0.3": {"factor": 0.3},
    "rate x 3": {"factor": 3.0},
    "linear fall": {"schedule": "linear"},
    "cosine after warm-up": {"warmup": 0.1},
    "depth 2": {"depth": 2},
    "depth 6": {"depth": 6},
    "head not warmed up": {"cold": True},
}
EPOCHS = {"neu_10": 20, "neu_40": 10, "simulated": 6, "magnetic_tile": 6}


class LeverClassifier(Classifier):
    """The product's module with the levers."""

    def __init__(self, *args: Any, recipe: Recipe, **kwargs: Any) -> None:
        kwargs["schedule"] = "constant"
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        self._average: dict[str, Tensor] | None = None
        self._generator = np.random.default_rng(0)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = super().configure_optimizers()
        if recipe.layer_decay < 1:
            rate, blocks = optimizer.param_groups[0]["lr"], len(self.net.blocks)
            groups = []
            for number, block in enumerate([*self.net.blocks, self.net.head]):
                parameters = [p for p in block.parameters() if p.requires_grad]
                if parameters:
                    groups.append({"params": parameters, "lr": rate * recipe.layer_decay ** (blocks - number)})
            optimizer = type(optimizer)(groups, **{k: v for k, v in optimizer.defaults.items() if k != "params"})
        steps = int(self.trainer.estimated_stepping_batches)
        warm = int(recipe.warmup * steps)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            done = (step - warm) / max(steps - warm, 1)
            return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + np.cos(np.pi * min(done, 1)))}[
                recipe.schedule
            ]

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor, float]) -> Tensor:
        recipe, (activations, labels, _) = self.recipe, batch
        if recipe.balanced == "sampling":
            counts = torch.bincount(labels, minlength=int(labels.max()) + 1).clamp_min(1)
            p = (1 / counts[labels]).double().numpy()
            drawn = torch.from_numpy(self._generator.choice(len(labels), len(labels), p=p / p.sum()))
            activations, labels = activations[drawn], labels[drawn]
        other, share = labels, 1.0
        if recipe.mixup:
            share = float(self._generator.beta(recipe.mixup, recipe.mixup))
            order = torch.from_numpy(self._generator.permutation(len(labels)))
            activations = share * activations + (1 - share) * activations[order]
            other = labels[order]
        logits = self.net.suffix(activations, self.freeze_depth)
        loss = share * self._of(logits, labels)
        if share < 1:
            loss = loss + (1 - share) * self._of(logits, other)
        self._loss += loss.detach() * len(labels)
        self._correct += (logits.detach().argmax(1) == labels).sum()
        self._seen += len(labels)
        return loss

    def _of(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.recipe.focal:
            log = F.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
            return -((1 - log.exp()) ** self.recipe.focal * log).mean()
        return F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=self.recipe.smoothing)

    def on_train_batch_end(self, *_: Any) -> None:
        if not self.recipe.ema:
            return
        steps = int(self.trainer.estimated_stepping_batches)
        decay = 1 - 1 / max(1.0, self.recipe.ema * steps)
        now = {k: v for k, v in self.net.named_parameters() if v.requires_grad}
        if self._average is None:
            self._average = {k: v.detach().clone() for k, v in now.items()}
        else:
            decay = min(decay, (1 + self.global_step) / (10 + self.global_step))
            for k, v in now.items():
                self._average[k].lerp_(v.detach(), 1 - decay)

    def on_train_end(self) -> None:
        if self._average is not None:
            with torch.no_grad():
                for k, v in self.net.named_parameters():
                    if k in self._average:
                        v.copy_(self._average[k])


def changed_views(kind: str) -> Any:
    """`apply_views` and one more change, drawn from the view's own numbers; the plain image stays as it is."""
    from lightning_modules.images.views import apply_views

    def uniform(p: Any, number: int) -> Tensor:
        x = torch.sin(p.dy.double() * 129.898 + p.dx.double() * 782.33 + p.gain.double() * 377.19 + number) * 43758.5453
        return x - x.floor()

    def apply(pixels: Tensor, p: Any) -> Tensor:
        images = apply_views(pixels, p)
        plain = (p.dy == 0) & (p.dx == 0) & (p.gain == 1) & (p.offset == 0)
        _, _, height, width = images.shape
        for i in range(len(images)):
            if plain[i]:
                continue
            u = [float(uniform(p, n)[i]) for n in range(6)]
            image = images[i]
            if kind in ("flips", "any") and u[0] < 0.5:
                image = image.flip(1)
            if kind == "any" and u[1] < 0.5:
                image = image.transpose(1, 2)
            if kind == "erase" and u[0] < 0.5:
                h, w = int(height * (0.15 + 0.3 * u[1])), int(width * (0.15 + 0.3 * u[2]))
                y, x = int((height - h) * u[3]), int((width - w) * u[4])
                image = image.clone()
                image[:, y : y + h, x : x + w] = image.mean((1, 2), keepdim=True)
            if kind == "blur" and u[0] < 0.5:
                k = torch.exp(-0.5 * (torch.arange(-3, 4).float() / (0.3 + 1.2 * u[1])) ** 2)
                k = (k / k.sum()).view(1, 1, 1, 7)
                x3 = F.pad(image[:, None], (3, 3, 3, 3), mode="replicate")
                image = F.conv2d(F.conv2d(x3, k), k.transpose(2, 3))[:, 0]
            images[i] = image.contiguous()
        return images.contiguous(memory_format=torch.channels_last)

    return apply_views if kind == "plain" else apply


def evaluate(task: Any, net: Any, rows: Any, views: int) -> tuple[dict[str, float], Tensor]:
    """Scores of the network on test rows; with views, of the mean probability over the plain image and them."""
    from lightning_modules.training.scores import scores

    labels = torch.from_numpy(task.index.labels[rows])
    net.eval()
    logits = []
    with torch.no_grad():
        for part in np.array_split(rows, -(-len(rows) // 64)):
            shown = [net(task.inputs(part, np.full_like(part, v))).log_softmax(1) for v in range(views + 1)]
            logits.append(torch.stack(shown).logsumexp(0) - np.log(views + 1))
    out = torch.cat(logits)
    return scores(out, labels), out


def row(context: dict[str, Any], recipe: Recipe, *, trained: str = "train") -> dict[str, Any]:
    """Train one recipe in the context (task name, split, network) and test it."""
    import search.trial.fitting as fitting
    import search.trial.task as trial_task
    from benchmarks.depth_tables import table_data
    from search.trial.recorder import Recorder
    from search.trial.result import TrialParams
    from search.trial.task import build_task

    key = (
        recipe.size,
        recipe.views,
        recipe.kind,
        recipe.epochs,
        recipe.weight_decay,
        recipe.cold,
        recipe.balanced,
        recipe.batch,
    )
    if key not in context["tasks"]:
        context["tasks"].clear()
        settings, images, splits = table_data(
            context["task"],
            context["split"],
            "trainer.cache_gigabytes=6",
            f"data.size=[{recipe.size},{recipe.size}]",
            f"data.views={recipe.views}",
            f"trainer.epochs={recipe.epochs}",
            f"trainer.batch_size={recipe.batch}",
            f"model.name={context['network']}",
            f"trainer.weight_decay={recipe.weight_decay}",
            f"trainer.warmup={str(not recipe.cold).lower()}",
            f"trainer.class_weights={'balanced' if recipe.balanced == 'weights' else 'none'}",
        )
        trial_task.apply_views = changed_views(recipe.kind)
        context["tasks"][key] = build_task(settings, images, splits, cache=CACHE / f"levers-{recipe.kind}")
    task = context["tasks"][key]
    rows = task.splits.folds[0].train
    if trained == "all":
        rows = np.sort(np.concatenate([rows, task.splits.folds[0].val]))
    test = np.sort(np.random.default_rng([context["split"], 7]).permutation(task.splits.test)[:TEST])
    depth = task.net.num_blocks // 2 if recipe.depth is None else recipe.depth
    fitting.Classifier = partial(LeverClassifier, recipe=recipe)  # type: ignore[misc,assignment]
    started = time.perf_counter()
    params = TrialParams(recipe.optimizer, recipe.factor, depth)
    fitted = fitting.fit(task, params, context["split"], rows, rows[:0], recipe.epochs, Recorder("macro_f1", 0, []))
    seconds = time.perf_counter() - started
    net = fitted.model.net.eval()
    found, _ = evaluate(task, net, test, recipe.test_views)
    return {
        "images": len(rows), "test_images": len(test), "depth": depth, "seconds": round(seconds, 2),
        "cost": round(task.epochs_worth(depth, recipe.epochs), 3),
        **{k: round(v, 5) for k, v in found.items()},
    }  # fmt: skip


def tables(table: str, task: str) -> dict[str, Recipe]:
    """Recipes of a table, by name; the base trains as long as `EPOCHS` says."""
    base = Recipe(epochs=EPOCHS[task])
    if table == "levers":
        times = {-2: base.epochs // 2, 2: base.epochs * 2}
        return {
            name: replace(base, **{k: times[v] if k == "epochs" else v for k, v in change.items()})
            for name, change in LEVERS.items()
        }
    if table == "sizes":
        return {
            f"{size} px, depth {depth}": replace(base, size=size, depth=depth)
            for size in (96, 224, 160, 128, 192)
            for depth in (4, 3, 6, 5, 2, 0)
            if size <= 160 or depth > 2
        }
    if table == "fidelity":
        draws = np.random.default_rng(5)
        recipes = {}
        for n in range(16):
            optimizer = ("momentum", "nag", "adam", "rmsprop", "sgd")[draws.integers(5)]
            factor, depth = float(10 ** draws.uniform(-1, 1)), int(draws.integers(1, 9))
            for size in (96, 224):
                change = {"optimizer": optimizer, "factor": round(factor, 4), "depth": depth, "size": size}
                recipes[f"{n} at {size}"] = replace(base, **change)
        return recipes
    raise SystemExit(f"no table {table}")


def main(table: str, name: str, split: int, network: str = "efficientnet_lite0", only: str = "") -> None:
    """Fill a file, or of it the rows named in `only`, with semicolons between them."""
    from lightning_modules.training.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    ROWS.mkdir(parents=True, exist_ok=True)
    file = ROWS / f"{table}-{name}-{network.replace(':', '_')}-{split}.jsonl"
    done = {json.loads(line)["name"] for line in file.read_text().splitlines()} if file.exists() else set()
    context: dict[str, Any] = {"task": name, "split": split, "network": network, "tasks": {}}
    for lever, recipe in tables(table, name).items():
        if lever in done or (only and lever not in only.split(";")):
            continue
        started = time.perf_counter()
        found = {"name": lever, **row(context, recipe), "recipe": asdict(recipe)}
        with file.open("a") as lines:
            lines.write(json.dumps(found) + "\n")
        print(
            f"{table} {name} {split} {network} {lever}: F1 {found['macro_f1']:.4f} loss {found['loss']:.3f}, "
            f"{found['seconds']:.0f} of {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def summary() -> None:
    """Print what each lever gained over the base of the same split, in points of macro F1, and its seconds as a ratio.

    The interval is Student's over the splits of a task, where there are two or more.
    """
    gains: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for file in sorted(ROWS.glob("levers-*.jsonl")):
        _, task, network, _ = file.stem.split("-")
        rows = {row["name"]: row for row in map(json.loads, file.read_text().splitlines())}
        if base := rows.get("base"):
            for name, row in rows.items():
                gain, loss = 100 * (row["macro_f1"] - base["macro_f1"]), row["loss"] - base["loss"]
                gains[network, name, task].append((gain, loss, row["seconds"] / base["seconds"]))
    table = Table("network", "lever", "task", "splits", "gain, points", "95 % interval", "loss", "seconds")
    order = list(LEVERS)
    for (network, name, task), found in sorted(gains.items(), key=lambda one: (one[0][0], order.index(one[0][1]))):
        gain, loss, seconds = np.array(found).T
        low, high = interval(gain)
        shown = f"{low:+.2f} to {high:+.2f}" if len(gain) > 1 else ""
        cells = (f"{len(gain)}", f"{gain.mean():+.2f}", shown, f"{loss.mean():+.3f}", f"{np.median(seconds):.2f}")
        table.add_row(network, name, task, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    if sys.argv[1:] == ["summary"]:
        summary()
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
