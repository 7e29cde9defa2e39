"""Arguments of `python -m explain`: what they mean, what they accept, and one clear line where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from explain.method_names import BLOCK_METHODS, CAM
from lightning_modules.errors import InputError
from search.command_line.arguments import argument_table, read_arguments, with_whole_names
from search.invocation import typed
from search.settings.field import required, setting

__all__ = ["Arguments", "help_text", "parse"]


@dataclass(frozen=True)
class Arguments:
    """Checked arguments; after `parse` `blocks` is None for all."""

    images: str = required(
        "an image, a folder (searched to its depth), a pattern such as 'lot7/**/*.png', or a table (.csv, .tsv, .txt, "
        ".parquet) with a column path, relative to the folder of the table",
        path=True,
    )
    model: str | None = setting(
        None,
        "MLflow run id, alias or version (champion, 3, models:/NAME@ALIAS, models:/NAME/3), or the path of a model "
        "folder or of the safetensors file in it (default champion, else the newest version)",
        path=True,
    )
    to: Path = setting(Path("explanations"), "folder for the results; must not exist or be empty")
    methods: tuple[str, ...] = setting(
        ("gradcam", "layercam"),
        f"list of {', '.join(BLOCK_METHODS)} and lime; the first by block is the one measured in predictions.csv",
        choices=(*BLOCK_METHODS, "lime"),
    )
    blocks: tuple[str, ...] | None = setting(None, "list of block names, or all (default all)")
    target: str = setting(
        "predicted",
        "class to explain: predicted, true (the label column of boxes= or masks=), a class name or its number",
    )
    boxes: Path | None = setting(
        None, "table path,xmin,ymin,xmax,ymax[,label] in pixels of the original images: measures localisation"
    )
    masks: Path | None = setting(
        None, "table path,mask[,label]: the same with mask images, all but 0 or black is defect"
    )
    gap_head: Path | None = setting(
        None,
        "labelled training images, a folder with a folder for each class or a table path,label: trains the pooling and "
        "linear head that cam needs at every block where the network has none of its own",
    )
    figures: int = setting(24, "most images that get a figure; 0 for none", low=0)
    batch: int = setting(32, "images explained at once", low=1)
    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    enlarge: bool = setting(False, "true explains images smaller than the network's minimum as well, enlarged")
    root: Path = setting(Path("mlruns"), "folder of the MLflow store")
    seed: int = setting(0, "seed of LIME, of the randomised weights and of the intervals", low=0)

    @property
    def block_methods(self) -> tuple[str, ...]:
        """The methods that draw a map by block, without lime."""
        return tuple(name for name in self.methods if name in BLOCK_METHODS)

    @property
    def primary(self) -> str:
        """The method whose measures stand in predictions.csv."""
        return self.block_methods[0]


def help_text() -> str:
    """Text of `--help`."""
    return (
        f"usage: {typed('explain')} images=PATH_OR_GLOB_OR_TABLE [name=value ...]\n\n"
        "Writes what every block of a model looks at into the folder TO: predictions.csv, figures/*.png,\n"
        "contact/*.png, index.html (one page, no network needed) and manifest.json; with boxes= or masks= also\n"
        "localisation.csv. See docs/explain.md.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 done; 1 done, but some images could not be read (listed on stderr);\n"
        "            2 bad input, nothing written; 130 stopped"
    )


def parse(words: Sequence[str]) -> Arguments:
    """Check `name=value` arguments.

    Raises:
        InputError: anything that is not accepted.
    """
    given = read_arguments(Arguments, with_whole_names(words, {"out": "to", "tracking.root": "root"}))
    if given.methods == ("lime",):
        raise InputError(f"methods must name at least one of {', '.join(BLOCK_METHODS)} beside lime")
    if given.boxes is not None and given.masks is not None:
        raise InputError("boxes= and masks= are two ways to say where the defects are: give one of them")
    if given.gap_head is not None and CAM not in given.methods:
        raise InputError(f"gap_head= is for methods=[{CAM}] alone: name {CAM} among the methods, or leave it out")
    if given.target == "true" and given.boxes is None and given.masks is None:
        raise InputError("target=true needs boxes= or masks= with a column label")
    return replace(given, blocks=None) if given.blocks == ("all",) else given
