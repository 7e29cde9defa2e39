"""Arguments of `python -m search.export`: what they mean and what they accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_modules.decisions.conformal import LARGEST_COVERAGE
from lightning_modules.errors import InputError
from search.command_line.arguments import argument_table, read_arguments, with_whole_names
from search.invocation import typed
from search.settings.field import setting

__all__ = ["FORMATS", "Arguments", "help_text", "parse"]

FORMATS = ("onnx", "openvino", "torchscript")


@dataclass(frozen=True)
class Arguments:
    """Checked arguments; after `parse` only `images`, `ranges`, `coverage` and `unknown` may be None."""

    images: str | None = setting(
        None,
        "images to compare the file with the model on: an image, a folder (searched to its depth), a pattern, or a "
        "table with a column path; null takes the validation images of the model's study",
        path=True,
    )
    model: str | None = setting(
        None,
        "alias or version (champion, 3, models:/NAME@ALIAS, models:/NAME/3), MLflow run id, or the path of a model "
        "folder (default champion, else the newest version)",
        path=True,
    )
    format: str = setting("onnx", "what the file is for", choices=FORMATS)
    to: Path = setting(Path("exported"), "new or empty folder to write")
    precision: str = setting(
        "float32",
        "float32, or int8 (format=onnx): weights and activations in 8 bits, their ranges from the images of ranges=",
        choices=("float32", "int8"),
    )
    ranges: str | None = setting(
        None, "images, up to 200 of which say which values int8 must hold (training images do); as images=", path=True
    )
    coverage: float | None = setting(
        None, "share of images whose prediction set shall hold the true class; its limits go with the file",
        above=0, high=LARGEST_COVERAGE,
    )  # fmt: skip
    costs: bool = setting(
        False, "true lets the costs that the model keeps decide (decision.costs of its search), in place of coverage="
    )
    unknown: float | None = setting(
        None,
        "share of images of known kinds that may be called unlike anything in training; its limit goes with the file",
        above=0,
        high=0.5,
    )
    max_difference: float | None = setting(
        None, "largest difference of a probability that is accepted (default 0.001, int8 1)", low=0, high=1
    )
    max_changed: float | None = setting(
        None, "share of images whose class or decision may be another (default 0, int8 0.02)", low=0, high=1
    )
    latency: bool = setting(True, "false does not measure how long an answer takes")
    root: Path = setting(Path("mlruns"), "folder of the MLflow store; root= is the same", name="tracking.root")


def help_text() -> str:
    """Text of `--help`."""
    return (
        f"usage: {typed('export')} [name=value ...]\n\n"
        "Writes a model as a file that runs without PyTorch, compares its answers with the model's and refuses it\n"
        "where they differ. See docs/export.md.\n\n"
        f"{argument_table(Arguments)}\n\n"
        "exit codes: 0 done; 2 bad input, or answers that differ, nothing written; 130 stopped by Ctrl-C"
    )


def parse(words: Sequence[str]) -> Arguments:
    """Check `name=value` arguments.

    Raises:
        InputError: anything that is not accepted.
    """
    given = read_arguments(Arguments, with_whole_names(words))
    int8 = given.precision == "int8"
    if int8 and given.format != "onnx":
        raise InputError(f"precision=int8 is for format=onnx alone, got format={given.format}")
    if int8 and given.ranges is None:
        raise InputError("precision=int8 needs ranges=IMAGES: some training images that say which values it must hold")
    if given.ranges is not None and not int8:
        raise InputError("ranges= is for precision=int8 alone: add it, or leave ranges= out")
    if given.costs and given.coverage is not None:
        raise InputError("coverage= and costs=true decide in different ways: give one of them")
    difference, changed = (1.0, 0.02) if int8 else (0.001, 0.0)
    return replace(
        given,
        max_difference=difference if given.max_difference is None else given.max_difference,
        max_changed=changed if given.max_changed is None else given.max_changed,
    )
