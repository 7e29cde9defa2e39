"""The images of each task and seed, written once for everybody: lists as JSON, and a manifest with a split column."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.contract import Lists

if TYPE_CHECKING:
    from lightning_modules.images.index import ImageIndex
    from lightning_modules.images.splits import Splits
    from search.settings.schema import Settings

__all__ = ["TASKS", "as_lists", "prepared", "weights_file", "write_manifest"]

TASKS = {
    "neu_10": ("NEU, 10 training and 10 validation images a class", "accuracy"),
    "neu_40": ("NEU, 40 training and 40 validation images a class", "accuracy"),
    "magnetic_tile": ("magnetic tile, tiles never seen", "macro_f1"),
}
"""Name of a task of `benchmarks.depth_tables` -> what it is, the score by which it is judged."""


def as_lists(name: str, settings: Settings, index: ImageIndex, splits: Splits) -> Lists:
    """The files of the first fold and of the test set."""
    fold = splits.folds[0]
    parts = {
        part: tuple((str(index.records[row].path.resolve()), int(index.labels[row])) for row in rows.tolist())
        for part, rows in (("train", fold.train), ("val", fold.val), ("test", splits.test))
    }
    return Lists(name, settings.seed, settings.data.size, settings.data.fit, tuple(index.classes), **parts)


def write_manifest(lists: Lists, table: Path) -> None:
    """Write the same images as a manifest that the search splits as given."""
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        for part in ("train", "val", "test"):
            writer.writerows((path, lists.classes[label], part) for path, label in getattr(lists, part))


def prepared(name: str, seed: int, folder: Path) -> tuple[Path, Path]:
    """Lists and manifest of one task and seed, made by the project's own split where they are not there yet.

    Args:
        name: of `TASKS`.
        seed: of the split.
        folder: receives them.
    """
    lists, manifest = folder / name / f"{seed}.json", folder / name / f"{seed}.csv"
    if not (lists.exists() and manifest.exists()):
        from benchmarks.depth_tables import table_data

        settings, images, splits = table_data(name, seed)
        found = as_lists(name, settings, images.index, splits)
        lists.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(found, manifest)
        found.write(lists)
    return lists, manifest


def weights_file(folder: Path) -> Path:
    """The package's ImageNet weights under timm's names, as one file for every peer."""
    file = folder / "tf_efficientnet_lite0.safetensors"
    if not file.exists():
        import timm
        from safetensors.torch import save_file

        from lightning_modules.networks.pretrained import package_weights

        net = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
        package_weights(net)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, file)
    return file
