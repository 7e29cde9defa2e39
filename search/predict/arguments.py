"""Arguments of `python -m search.predict`: what they mean and what they accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.command_line.arguments import ArgumentError, choice, meanings_table, named_values, whole_number

__all__ = ["DEFAULT_MODEL", "STDOUT", "Arguments", "help_text", "parse"]

DEFAULT_MODEL = "champion"
STDOUT = "-"

_MEANINGS = {
    "images": "an image, a folder (searched to its depth), a pattern such as 'lot7/**/*.png', or a table ending in "
    ".csv with a column path, relative to the folder of the table; required",
    "model": "alias or version (champion, 3, models:/NAME@ALIAS, models:/NAME/3), MLflow run id, or the path of a "
    "model folder (default champion)",
    "to": "CSV file to write; - for standard output (default predictions.csv)",
    "overwrite": "true replaces results that are there (default false)",
    "on_bad": "refuse writes nothing when an image cannot be read; set_aside gives it a row with the reason in the "
    "column error (default refuse)",
    "maps": "true draws for each image what the last block looked at, Grad-CAM of the predicted class (default false)",
    "maps_to": "folder of the maps (default the name of the CSV file with _maps in place of .csv)",
    "batch_size": "images predicted at once (default 32)",
    "device": "auto, cpu or cuda (default auto)",
    "tracking.root": "folder of the MLflow store; root= is the same (default mlruns)",
}


@dataclass(frozen=True)
class Arguments:
    """Checked arguments; the meaning of each stands in `--help`.

    Attributes:
        images: path, folder, pattern or table.
        model: reference for `search.tracking.models.resolve_model`.
        to: the CSV file; None for standard output.
        overwrite: whether results that are there are replaced.
        on_bad: refuse or set_aside.
        maps: folder of the maps, None for none.
        batch_size: >= 1.
        device: auto, cpu or cuda.
        root: of the MLflow store.
    """

    images: str
    model: str = DEFAULT_MODEL
    to: Path | None = Path("predictions.csv")
    overwrite: bool = False
    on_bad: str = "refuse"
    maps: Path | None = None
    batch_size: int = 32
    device: str = "auto"
    root: Path = Path("mlruns")


def help_text() -> str:
    """Text of `--help`."""
    return (
        "usage: python -m search.predict images=PATH_OR_GLOB_OR_CSV [name=value ...]\n\n"
        "Writes one row an image: path, class, probability, margin (first minus second probability) and the\n"
        "probability of every class; with maps=true also pictures of where the model looked. See docs/predict.md.\n\n"
        f"{meanings_table(_MEANINGS)}\n\n"
        "exit codes: 0 done; 2 bad input, nothing written; 130 stopped by Ctrl-C, 143 by SIGTERM, nothing written"
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Check `name=value` arguments.

    Raises:
        ArgumentError: anything that is not accepted.
    """
    if any(a.startswith("root=") for a in arguments) and any(a.startswith("tracking.root=") for a in arguments):
        raise ArgumentError("root= and tracking.root= are the same: give one of them")
    words = [f"tracking.{a}" if a.startswith("root=") else a for a in arguments]
    given = named_values(words, _MEANINGS, required=("images",))
    switches = {
        name: choice(name, given.get(name, "false"), ("true", "false")) == "true" for name in ("maps", "overwrite")
    }
    to = None if given.get("to") == STDOUT else Path(given.get("to", "predictions.csv"))
    if "maps_to" in given and not switches["maps"]:
        raise ArgumentError("maps_to= is for maps=true alone: add it, or leave maps_to= out")
    if switches["maps"] and to is None and "maps_to" not in given:
        raise ArgumentError("maps=true with to=- needs maps_to=FOLDER")
    beside = Path() if to is None else to.with_name(f"{to.stem}_maps")
    return Arguments(
        images=given["images"],
        model=given.get("model", DEFAULT_MODEL),
        to=to,
        overwrite=switches["overwrite"],
        on_bad=choice("on_bad", given.get("on_bad", "refuse"), ("refuse", "set_aside")),
        maps=Path(given.get("maps_to", beside)) if switches["maps"] else None,
        batch_size=whole_number("batch_size", given.get("batch_size", "32"), 1),
        device=choice("device", given.get("device", "auto"), ("auto", "cpu", "cuda")),
        root=Path(given.get("tracking.root", "mlruns")),
    )
