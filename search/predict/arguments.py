"""Arguments of `python -m search.predict`: what they mean and what they accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from explain.method_names import ATTENTION, GRADCAM
from lightning_modules.decisions.conformal import LARGEST_COVERAGE
from lightning_modules.errors import InputError
from search.command_line.arguments import argument_table, read_arguments, with_whole_names
from search.invocation import typed
from search.settings.field import required, setting

__all__ = ["Arguments", "help_text", "parse"]


@dataclass(frozen=True)
class Arguments:
    """Checked arguments; after `parse` `to` is None for standard output, and `maps_to` is None without maps."""

    images: str = required(
        "an image, a folder (searched to its depth), a pattern such as 'lot7/**/*.png', or a table (.csv, .tsv, .txt, "
        ".parquet) with a column path, relative to the folder of the table",
        path=True,
    )
    model: str | None = setting(
        None,
        "alias or version (champion, 3, models:/NAME@ALIAS, models:/NAME/3), MLflow run id, or the path of a model "
        "folder (default champion, else the newest version)",
        path=True,
    )
    to: Path | None = setting(Path("predictions.csv"), "CSV file to write; - for standard output")
    overwrite: bool = setting(False, "true replaces results that are there")
    on_bad: str = setting(
        "refuse",
        "refuse writes nothing when an image cannot be read; set_aside gives it a row with the reason in the column "
        "error",
        choices=("refuse", "set_aside"),
    )
    coverage: float | None = setting(
        None,
        "promised share of images whose true class is in the column set, such as 0.95; adds the columns set and "
        "decision (the class, or by hand where the set does not hold exactly one); see docs/decisions.md",
        above=0,
        high=LARGEST_COVERAGE,
    )
    costs: Path | None = setting(
        None,
        "table of what decisions cost (columns true, decided, cost), or model for the one that the model keeps; adds "
        "the columns decision, the cheapest (a class, or by hand), and cost, what is to be expected of it",
    )
    unknown: float | None = setting(
        None,
        "share of images of known kinds that may be called unlike anything in training, such as 0.05; adds the columns "
        "unknown, distance and nearest (training images); see docs/unknown_defects.md",
        above=0,
        high=0.5,
    )
    maps: bool = setting(False, "true draws for each image where the network looked, see maps_method")
    maps_method: str = setting(
        "gradcam",
        "gradcam is that of the predicted class at the last block; attention is the map of a network's own attention "
        "branch (model.head=attention_branch)",
        choices=(GRADCAM, ATTENTION),
    )
    maps_to: Path | None = setting(
        None, "folder of the maps (default the name of the CSV file with _maps in place of .csv)"
    )
    batch_size: int = setting(32, "images predicted at once", low=1)
    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    root: Path = setting(Path("mlruns"), "folder of the MLflow store; root= is the same", name="tracking.root")


def help_text() -> str:
    """Text of `--help`."""
    return (
        f"usage: {typed('predict')} images=PATH_OR_GLOB_OR_TABLE [name=value ...]\n\n"
        "Writes one row an image: path, class, probability, margin (first minus second probability) and the\n"
        "probability of every class; with coverage=0.95 or costs=FILE.csv also a decision, with unknown=0.05 whether\n"
        "an image is unlike anything in training, with maps=true pictures of where the model looked. See\n"
        "docs/predict.md.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 done; 2 bad input, nothing written; 130 stopped by Ctrl-C, 143 by SIGTERM, nothing written"
    )


def parse(words: Sequence[str]) -> Arguments:
    """Check `name=value` arguments.

    Raises:
        InputError: anything that is not accepted.
    """
    given = read_arguments(Arguments, with_whole_names(words))
    if given.maps_to is not None and not given.maps:
        raise InputError("maps_to= is for maps=true alone: add it, or leave maps_to= out")
    if given.maps_method != GRADCAM and not given.maps:
        raise InputError("maps_method= is for maps=true alone: add it, or leave maps_method= out")
    if given.costs is not None and given.coverage is not None:
        raise InputError("coverage= and costs= decide in different ways: give one of them")
    to = None if given.to == Path("-") else given.to
    maps_to = given.maps_to
    if given.maps and maps_to is None:
        if to is None:
            raise InputError("maps=true with to=- needs maps_to=FOLDER")
        maps_to = to.with_name(f"{to.stem}_maps")
    return replace(given, to=to, maps_to=maps_to)
