"""The thesis's Tables 5 to 9 beside ours, as Markdown, from MLflow runs; with binomial standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.thesis.runs import ArmRun, PartRun

__all__ = ["DataSetRuns", "by_data_set", "standard_error", "tables"]

# The thesis's own figures; (loss, validation accuracy, test accuracy[, weighted F1]).
_TABLE_5 = {"random weights": ("0.544", "0.908", "0.569"), "fixed features": ("0.554", "0.813", "0.625")}
_TABLE_6 = {
    "sgd": ("0.361", "0.920", "0.694", "0.676"),
    "momentum": ("0.327", "0.922", "0.764", "0.742"),
    "nag": ("0.347", "0.917", "0.792", "0.778"),
}
_TABLE_7 = ("0.347", "0.917", "0.792", "0.778")
_TABLE_8 = {
    "fine-tuning": (".998", ".917", ".792"),
    "transfer (Block3)": (".999", ".919", ".778"),
    "fixed features": (".850", ".814", ".653"),
    "random weights": (".996", ".908", ".569"),
    "LeNet-5": (".995", ".816", ".625"),
}
_TABLE_9 = {
    5: ("Block1-5", "0.639", "0.653", "0.625"),
    4: ("Block1-4", "0.639", "0.722", "0.653"),
    3: ("Block1-3", "0.736", "0.778", "0.778"),
    2: ("Block1-2", "0.764", "0.708", "0.764"),
    1: ("Block1", "0.694", "0.736", "0.764"),
}
_BLOCKS = {"vgg16": (1, 2, 3, 4, 5), "efficientnet_lite0": (1, 2, 3, 5, 8)}
"""Freeze depths that stand for VGG-16's Block1, Block1-2, ...: the last block at strides 2, 4, 8, 16 and 32."""

Rows = list[Sequence[str]]


@dataclass(frozen=True)
class DataSetRuns:
    """The experiments of one data set, the latest of each part; a part that was not run is missing."""

    name: str
    parts: Mapping[str, PartRun]

    def arms(self, part: str) -> tuple[ArmRun, ...]:
        """The configurations of a part, none where it was not run."""
        return self.parts[part].arms if part in self.parts else ()

    @property
    def test_images(self) -> int:
        """How many images every configuration was tested on."""
        return int(next(iter(self.parts.values())).tags["test_images"])

    @property
    def transfer_network(self) -> str:
        """The network whose pre-trained weights were used."""
        arms = self.arms("transfer")
        return arms[0].params["network"] if arms else ""

    def blocks(self, depth: int) -> list[ArmRun]:
        """Transfer with so many of VGG-16's five blocks frozen, or what stands for them; 0 trains everything."""
        stands = (0, *_BLOCKS.get(self.transfer_network, ()))
        place = stands[depth] if depth < len(stands) else -1
        return [run for run in self.arms("transfer") if run.freeze_depth == place]


def by_data_set(parts: Iterable[PartRun]) -> list[DataSetRuns]:
    """Group finished experiments by data set; of several of one part the latest counts."""
    found: dict[str, dict[str, PartRun]] = {}
    for part in parts:
        found.setdefault(part.data, {})[part.part] = part
    return [DataSetRuns(name, parts) for name, parts in found.items()]


def standard_error(share: float, images: int) -> float:
    """sqrt(p (1 - p) / n) of a share p of n images."""
    return math.sqrt(max(share * (1 - share), 0) / images) if images else math.nan


def tables(sets: Sequence[DataSetRuns]) -> str:
    """Tables 5 to 9, the thesis's columns first."""
    return "\n\n".join([_table_5(sets), _table_6(sets), _table_7(sets), _table_8(sets), _table_9(sets)])


def _markdown(title: str, head: Sequence[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 1)]
    return "\n".join([f"### {title}", "", *lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _test(run: ArmRun | None) -> str:
    """Test accuracy and its binomial standard error."""
    if run is None:
        return "-"
    if run.diverged:
        return "diverged"
    share, images = run.metrics["test_accuracy"], int(run.metrics["test_images"])
    return f"{share:.3f} ± {standard_error(share, images):.3f}"


def _of(run: ArmRun | None, *names: str) -> list[str]:
    if run is None:
        return ["-"] * len(names)
    return ["diverged" if run.diverged else f"{run.metrics[name]:.3f}" for name in names]


def _pick(runs: Iterable[ArmRun], optimizer: str) -> ArmRun | None:
    return next((run for run in runs if run.params["optimizer"] == optimizer), None)


def _best(runs: Iterable[ArmRun]) -> ArmRun | None:
    """The best on validation images; of equals the first."""
    usable = [run for run in runs if not run.diverged]
    return max(usable, key=lambda run: run.metrics["final_val_accuracy"]) if usable else None


def _random(data: DataSetRuns) -> dict[str, ArmRun | None]:
    networks = dict.fromkeys(run.params["network"] for run in data.arms("random"))
    return {n: _best(run for run in data.arms("random") if run.params["network"] == n) for n in networks}


def _cells(run: ArmRun | None) -> list[str]:
    return [*_of(run, "final_val_loss", "final_val_accuracy"), _test(run)]


def _table_5(sets: Sequence[DataSetRuns]) -> str:
    rows: Rows = [(f"thesis, VGG-16, {name}", *values) for name, values in _TABLE_5.items()]
    rows.append(("thesis, VGG-16, ImageNet weights, everything trained", "", "0.91", "0.70"))
    for data in sets:
        for network, run in _random(data).items():
            rows.append((f"{data.name}, {network}, random weights{_by(run)}", *_cells(run)))
        fixed, whole = _best(data.blocks(5)), _best(data.blocks(0))
        network = data.transfer_network
        rows.append((f"{data.name}, {network}, fixed features{_by(fixed)}", *_cells(fixed)))
        rows.append((f"{data.name}, {network}, ImageNet weights, everything trained{_by(whole)}", *_cells(whole)))
    return _markdown(
        "Table 5: random weights and fixed features", ("network", "loss", "validation", "test ± s. e."), rows
    )


def _by(run: ArmRun | None) -> str:
    return f" ({run.params['optimizer']})" if run is not None else ""


def _table_6(sets: Sequence[DataSetRuns]) -> str:
    head = ["optimizer", "thesis: loss", "val.", "test", "F1"]
    for data in sets:
        head += [f"{data.name}: loss", "val.", "test ± s. e.", "F1"]
    optimizers = dict.fromkeys([*_TABLE_6, *(r.params["optimizer"] for data in sets for r in data.blocks(3))])
    rows: Rows = []
    for optimizer in optimizers:
        row = [optimizer, *_TABLE_6.get(optimizer, ("did not converge", "", "", ""))]
        for data in sets:
            run = _pick(data.blocks(3), optimizer)
            row += [*_cells(run), *_of(run, "test_weighted_f1")]
        rows.append(row)
    return _markdown("Table 6: Block1-3 frozen", head, rows)


def _table_7(sets: Sequence[DataSetRuns]) -> str:
    rows: Rows = [("thesis, from Block1-3", *_TABLE_7)]
    for data in sets:
        for run in data.arms("finetune"):
            rows.append((f"{data.name}, {run.arm}", *_cells(run), *_of(run, "test_weighted_f1")))
    head = ("final fine-tuning", "loss", "validation", "test ± s. e.", "F1")
    return _markdown("Table 7: final fine-tuning of everything at a very low rate", head, rows)


def _table_8(sets: Sequence[DataSetRuns]) -> str:
    head = ["system", "thesis: train", "val.", "test"]
    for data in sets:
        head += [f"{data.name}: train", "val.", "test ± s. e."]
    rows: Rows = []
    for name, theirs in _TABLE_8.items():
        row = [name, *theirs]
        for data in sets:
            run = _system(data, name)
            row += [*_of(run, "final_train_accuracy", "final_val_accuracy"), _test(run)]
        rows.append(row)
    return _markdown("Table 8: accuracy of the systems (ours: the optimizer best on validation)", head, rows)


def _system(data: DataSetRuns, name: str) -> ArmRun | None:
    if name == "random weights":
        found = _random(data)
        return found.get(data.transfer_network) or next(iter(found.values()), None)
    if name == "fine-tuning":
        return next(iter(data.arms("finetune")), None)
    if name == "LeNet-5":
        return _best(data.arms("lenet"))
    return _best(data.blocks(3 if name.startswith("transfer") else 5))


def _table_9(sets: Sequence[DataSetRuns]) -> str:
    found = [
        _markdown(
            "Table 9: test accuracy by depth and optimizer",
            ("thesis: frozen", "SGD", "Momentum", "NAG", "Adam", "RMSprop"),
            [(*row, "did not converge", "did not converge") for row in _TABLE_9.values()],
        )
    ]
    for data in sets:
        arms = data.arms("transfer")
        if not arms:
            continue
        names = json.loads(data.parts["transfer"].tags["blocks"])
        optimizers = list(dict.fromkeys(run.params["optimizer"] for run in arms))
        stands = {depth: f" (Block1-{i})" for i, depth in enumerate(_BLOCKS.get(data.transfer_network, ()), 1)}
        rows: Rows = []
        for depth in sorted({run.freeze_depth for run in arms}, reverse=True):
            label = "nothing" if depth == 0 else f"to {names[depth - 1]}{stands.get(depth, '')}"
            runs = [run for run in arms if run.freeze_depth == depth]
            rows.append((label, *(_test(_pick(runs, optimizer)) for optimizer in optimizers)))
        lines = _markdown("", (f"{data.name}: frozen", *optimizers), rows).split("\n")[2:]
        found.append("\n".join([*lines, "", _what_it_permits(data)]))
    return "\n\n".join(found)


def _what_it_permits(data: DataSetRuns) -> str:
    """What these test images can tell, in words."""
    runs = [run for run in data.arms("transfer") if not run.diverged]
    best = max(runs, key=lambda run: run.metrics["test_accuracy"])
    chosen = _best(runs)
    share, images = best.metrics["test_accuracy"], data.test_images
    margin = 2 * math.sqrt(2) * standard_error(share, images)
    near = sum(run.metrics["test_accuracy"] >= share - margin for run in runs)
    picked = chosen.metrics["test_accuracy"] if chosen else math.nan
    return (
        f"{data.name}: {images} test images, so one image is {1 / images:.3f} and the best of the {len(runs)} "
        f"configurations, {best.arm} with {share:.3f}, has a standard error of {standard_error(share, images):.3f}. "
        f"{near} of {len(runs)} lie within two standard errors of a difference ({margin:.3f}) of it. The one that is "
        f"best on the {data.parts['transfer'].tags['validation_images']} validation images, "
        f"{chosen.arm if chosen else '-'}, has {picked:.3f}: choosing on the test images, as the thesis did, adds "
        f"{share - picked:.3f}."
    )
