"""Arguments of `python -m explain`: what they mean, what they accept, and one clear line where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.command_line.arguments import ArgumentError, choice, meanings_table, named_values, whole_number

__all__ = ["BLOCK_METHODS", "CAM", "ArgumentError", "Arguments", "help_text", "parse", "printable"]

CAM = "cam"

# CAM and the keys of `explain.attribution.METHODS` (a test compares them), here so that --help needs no torch.
BLOCK_METHODS = ("gradcam", "layercam", "hirescam", "xgradcam", "gradcampp", "activation", CAM)

_MEANINGS = {
    "images": "an image, a folder (searched to its depth), or a pattern such as 'lot7/**/*.png'; required",
    "model": "MLflow run id, alias or version (champion, 3, models:/NAME@ALIAS, models:/NAME/3), or the path of a "
    "model folder or of the safetensors file in it; required",
    "out": "folder for the results; must not exist or be empty (default explanations)",
    "methods": f"list of {', '.join(BLOCK_METHODS)} and lime; the first by block is the one measured in "
    "predictions.csv (default [gradcam,layercam])",
    "blocks": "list of block names, or all (default all)",
    "target": "class to explain: predicted, true (the label column of boxes= or masks=), a class name or its number "
    "(default predicted)",
    "boxes": "CSV path,xmin,ymin,xmax,ymax[,label] in pixels of the original images: measures localisation",
    "masks": "CSV path,mask[,label]: the same with mask images, white on the defect",
    "gap_head": "labelled training images, a folder with a folder for each class or a CSV path,label: trains the "
    "pooling and linear head that cam needs at every block where the network has none of its own",
    "figures": "most images that get a figure; 0 for none (default 24)",
    "batch": "images explained at once (default 32)",
    "device": "auto, cpu or cuda (default auto)",
    "enlarge": "true explains images smaller than the network's minimum as well, enlarged (default false)",
    "root": "folder of the MLflow store (default mlruns)",
    "seed": "seed of LIME, of the randomised weights and of the intervals (default 0)",
}


@dataclass(frozen=True)
class Arguments:
    """Checked arguments; the meaning of each stands in `--help`.

    Attributes:
        images: path, folder or pattern.
        model: reference for `search.tracking.models.resolve_model`.
        out: folder to be made.
        methods: names, at least one of them of `BLOCK_METHODS`.
        blocks: names; None for all.
        target: predicted, true, a class name or number.
        boxes: table of boxes, if given.
        masks: table of masks, if given; never together with `boxes`.
        gap_head: labelled images to train heads for CAM, if given; only where `methods` hold cam.
        figures: >= 0.
        batch: >= 1.
        device: auto, cpu or cuda.
        enlarge: whether images below the network's minimum are explained.
        root: of the MLflow store.
        seed: >= 0.
    """

    images: str
    model: str
    out: Path = Path("explanations")
    methods: tuple[str, ...] = ("gradcam", "layercam")
    blocks: tuple[str, ...] | None = None
    target: str = "predicted"
    boxes: Path | None = None
    masks: Path | None = None
    gap_head: Path | None = None
    figures: int = 24
    batch: int = 32
    device: str = "auto"
    enlarge: bool = False
    root: Path = Path("mlruns")
    seed: int = 0

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
        "usage: python -m explain images=PATH_OR_GLOB model=RUN_ID_OR_ALIAS_OR_FOLDER [name=value ...]\n\n"
        "Writes what every block of a model looks at: OUT/predictions.csv, OUT/figures/*.png, OUT/contact/*.png,\n"
        "OUT/index.html (one page, no network needed) and OUT/manifest.json; with boxes= or masks= also\n"
        "OUT/localisation.csv. See docs/explain.md.\n\n"
        f"{meanings_table(_MEANINGS)}\n\n"
        "exit codes: 0 done; 1 done, but some images could not be read (listed on stderr);\n"
        "            2 bad input, nothing written; 130 stopped"
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Check `name=value` arguments.

    Raises:
        ArgumentError: anything that is not accepted.
    """
    given = named_values(arguments, _MEANINGS, required=("images", "model"))
    values: dict[str, object] = dict(given)
    for name in ("out", "boxes", "masks", "gap_head", "root"):
        if name in given:
            values[name] = Path(given[name])
    for name, low in (("figures", 0), ("batch", 1), ("seed", 0)):
        if name in given:
            values[name] = whole_number(name, given[name], low)
    if "methods" in given:
        values["methods"] = _methods(given["methods"])
    if "blocks" in given:
        values["blocks"] = None if given["blocks"] == "all" else _names("blocks", given["blocks"])
    if "enlarge" in given:
        values["enlarge"] = choice("enlarge", given["enlarge"], ("true", "false")) == "true"
    if "device" in given:
        choice("device", given["device"], ("auto", "cpu", "cuda"))
    if "boxes" in given and "masks" in given:
        raise ArgumentError("boxes= and masks= are two ways to say where the defects are: give one of them")
    if "gap_head" in given and CAM not in values.get("methods", ()):  # type: ignore[operator]
        raise ArgumentError(f"gap_head= is for methods=[{CAM}] alone: name {CAM} among the methods, or leave it out")
    if given.get("target") == "true" and not {"boxes", "masks"} & set(given):
        raise ArgumentError("target=true needs boxes= or masks= with a column label")
    return Arguments(**values)  # type: ignore[arg-type]


def printable(text: object) -> str:
    """Text on one line: line breaks, control characters and undecodable bytes as escapes."""
    escaped = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped)


def _names(name: str, value: str) -> tuple[str, ...]:
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    names = tuple(part.strip() for part in bare.split(","))
    if not all(names):
        raise ArgumentError(f"{name} must be a list such as [a,b], got {value!r}")
    for one in names:
        if names.count(one) > 1:
            raise ArgumentError(f"{name} must not name one twice, got {value!r}")
    return names


def _methods(value: str) -> tuple[str, ...]:
    names = _names("methods", value)
    for one in names:
        if one not in (*BLOCK_METHODS, "lime"):
            raise ArgumentError(f"methods must be among {', '.join(BLOCK_METHODS)}, lime, got {one!r}")
    if names == ("lime",):
        raise ArgumentError(f"methods must name at least one of {', '.join(BLOCK_METHODS)} beside lime")
    return names
