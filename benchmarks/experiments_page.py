"""Tables and figures of docs/results/sources.md from the MLflow runs; words outside the markers stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from benchmarks.optimizer_families import families, rates_table
from benchmarks.thesis_figures import classes_figure, lenet_figure, training_figure
from benchmarks.thesis_tables import DataSetRuns, by_data_set, tables
from search.thesis.runs import PartRun, read_parts

__all__ = ["write_page"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "results" / "sources.md"
BEGIN, END = "<!-- made by python -m benchmarks.experiments: begin -->", "<!-- made: end -->"
_PUBLIC = "simulated"  # the only images that may be shown


def write_page(root: Path, experiment: str) -> Path:
    """Write the page, and the figures beside it and in the experiments' folder; returns the page.

    Args:
        root: folder of the MLflow store.
        experiment: MLflow experiment.
    """
    parts = read_parts(root, experiment)
    sets = by_data_set(parts)
    made = "\n\n".join([BEGIN, _setting(sets), tables(sets), _figures(sets, root), _optimizers(parts), END])
    before = (
        PAGE.read_text(encoding="utf-8") if PAGE.is_file() else f"# The source documents, run here\n\n{BEGIN}{END}\n"
    )
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(head + made + tail, encoding="utf-8")
    return PAGE


def _setting(sets: list[DataSetRuns]) -> str:
    lines = [
        "| data | network of the transfer | train | validation | test | size |",
        "| --- | --- | --: | --: | --: | --- |",
    ]
    for data in sets:
        part = next(iter(data.parts.values()))
        counts = " | ".join(part.tags[f"{name}_images"] for name in ("train", "validation", "test"))
        lines.append(f"| {data.name} | {data.transfer_network} | {counts} | {part.params['data.size']} |")
    asked = {part.tags["instead_of"] for data in sets for part in data.parts.values() if "instead_of" in part.tags}
    words = "".join(
        f"\n\n**{name}'s ImageNet weights were not on the machine: transfer, fine-tuning and rates are of the network "
        f"named above, not of {name}.**"
        for name in sorted(asked)
    )
    return "\n".join(lines) + words


def _figures(sets: list[DataSetRuns], root: Path) -> str:
    images = DOCS / "images"
    classes_figure(sets, root).savefig(images / "sources_classes.png")
    lenet_figure([data for data in sets if "lenet" in data.parts]).savefig(images / "sources_lenet.png")
    training_figure(sets).savefig(images / "sources_training.png")
    out = root / "figures"
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        "### Figure 15: images by class",
        "![images by class and split](../images/sources_classes.png)",
        "### Figure 16: LeNet-5, tanh with SGD and ReLU with Adam",
        "![training and validation accuracy by epoch](../images/sources_lenet.png)",
        "### Figure 20: the training of all models but LeNet-5",
        "![validation accuracy of every configuration by epoch](../images/sources_training.png)",
    ]
    for data in sets:
        part = data.parts.get("finetune")
        drawn = sorted((root / "artifacts" / part.run_id / "artifacts" / "figures").glob("maps_*.png")) if part else []
        for file in drawn:
            shutil.copyfile(file, out / f"{data.name}_{file.name}")
        if drawn and data.name == _PUBLIC:
            _small(drawn[0], images / "sources_maps.png")
            lines += [
                "### Figures 17 to 19: LIME, CAM and Grad-CAM",
                "![maps of one image of each class](../images/sources_maps.png)",
            ]
    return "\n\n".join(lines)


def _small(picture: Path, target: Path) -> None:
    """A copy 800 pixels wide in 64 colours: the original stays in the experiments' folder."""
    with Image.open(picture) as image:
        smaller = image.convert("RGB").resize((800, round(800 * image.height / image.width)), Image.Resampling.LANCZOS)
    smaller.quantize(64).save(target, optimize=True)


def _optimizers(parts: list[PartRun]) -> str:
    rates = [part for part in parts if part.part == "rates"]
    found = ["### Momentum family and adaptive family"]
    if rates:
        found += [
            "The same rates for every optimizer. Cells: training accuracy / validation accuracy / relative change of "
            "the thawed blocks' weights, |w_end - w_start| / |w_start|.",
            rates_table(rates),
        ]
    found += ["Depth tables, over every freeze depth with something thawed, ten epochs:", families()]
    return "\n\n".join(found)
