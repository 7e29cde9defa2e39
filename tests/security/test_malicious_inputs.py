"""Malicious input through the command line: one clear line, exit code 2, nothing executed, fetched or written.

The table is the list in docs/security.md.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A command, and words of its one line.

    Attributes:
        arguments: with {root} for the folder of malicious files.
        words: stand in the line.
        program: search, explain, predict or ui.
        conf: appended to conf/data/folder.yaml of the installation.
    """

    arguments: tuple[str, ...]
    words: tuple[str, ...]
    program: str = "search"
    conf: str = ""


def weights(file: str, *words: str) -> Case:
    return Case(("model=timm", "model.name=timm:test_resnet", f"model.weights={{root}}/{file}"), (file, *words))


def manifest(file: str, *words: str) -> Case:
    arguments = ("model=lenet5", "data=manifest", f"data.path={{root}}/manifests/{file}", "executor.threads=1")
    return Case(arguments, (file, *words))


def folder(name: str, *words: str) -> Case:
    return Case(("model=lenet5", "data=folder", f"data.path={{root}}/{name}", "executor.threads=1"), words)


def model(name: str, *words: str, program: str = "explain") -> Case:
    images = "images={root}/image.png"
    return Case((images, f"model={name if ':' in name else f'{{root}}/model_{name}'}"), words, program)


def setting(argument: str, *words: str) -> Case:
    return Case((argument,), words)


OUT = "(data.outside=allow accepts it)"
REFERENCE = "references are not accepted"
NAME = "must be letters, digits, '.', '_', '-' and spaces"

CASES = {
    # Files of weights
    "weights: a pickle that runs a command": weights("pickle.pt", "could run code when loaded"),
    "weights: a PyTorch archive that runs a command": weights("archive.pt", "could run code when loaded"),
    "weights: a pickle named .safetensors": weights("pickle.safetensors", "header too large"),
    "weights: a NumPy array of pickled objects": weights("objects.npy", "it is a NumPy array"),
    "weights: a header of 2^60 bytes": weights("header.safetensors", "header too large"),
    "weights: a tensor of 4 TB that is not there": weights("beyond.safetensors", "Error while deserializing header"),
    "weights: a tar archive with ../../escaped": weights("slip.tar", "could run code when loaded, or no weights"),
    "weights: a zip archive with ../../escaped": weights("slip.pt", "accepted are safetensors"),
    "weights: a zip bomb": weights("bomb.pt", "compressed entries"),
    "weights: an endless device": Case(("model.weights=/dev/zero",), ("no such file", "'/dev/zero'")),
    "network: to be fetched from a hub": Case(
        ("model=timm", "model.name=timm:hf-hub:stranger/network"), ("must be an architecture of timm",)
    ),
    "network: from a folder, with its code": Case(
        ("model=timm", "model.name=timm:local-dir:/srv/network"), ("must be an architecture of timm",)
    ),
    # Folders of trained models
    "model: tensors replaced by a pickle": model("pickle", "is no safetensors file"),
    "model: tensors replaced by nothing": model("nothing", "is no safetensors file"),
    "model: one bit flipped": model("flipped", "model.safetensors is missing or changed since it was written"),
    "model: classes renamed": model("renamed", "model.json is missing or changed since it was written"),
    "model: without its digests": model("bare", "SHA256SUMS is missing"),
    "model: digest of a file outside": model("climbing", "SHA256SUMS line 3"),
    "model: a tensor more": model("more", "0 missing, 1 unknown", "example more"),
    "model: a tensor fewer": model("fewer", "1 missing, 0 unknown"),
    "model: network to be fetched from a hub": model("hub", "must be an architecture of timm"),
    "model: network that is no name": model("list", "architecture must be the name of a network"),
    "model: images of a million by a million pixels": model("size", "size must be", "2048"),
    "model: a layer of 40 GB": model("layer", "weights in one layer"),
    "model: images without a limit": model("pixels", "max_pixels must be"),
    "model: class names with terminal codes": model("script", "classes must be", r"\x1b[31m"),
    "model: a field that names a program": model("field", "unknown field __class__"),
    "model: brackets nested 100,000 deep": model("deep", "no JSON"),
    "model: of a later format": model("future", "format 99"),
    "model: an MLflow folder with a pickled model": model("mlflow", "no readable model.json"),
    "model: the same, to predict with": model("mlflow", "no readable model.json", program="predict"),
    "model: name that ends a query": model("models:/a' OR '1'='1/2", "there are no runs yet"),
    "model: name that climbs": model("models:/../../srv@champion", "there are no runs yet"),
    # Manifests
    "manifest: an absolute path to another file": manifest("absolute.csv", "row 14: /etc/passwd leads out", OUT),
    "manifest: an absolute path to a picture": manifest("absolute_image.csv", "row 14", "leads out", OUT),
    "manifest: ../../etc/passwd": manifest("parents.csv", "row 14", "etc/passwd leads out", OUT),
    "manifest: a picture beside its folder": manifest("sibling.csv", "row 14: ../outside/a/02.png leads out", OUT),
    "manifest: a link that leads out": manifest("link.csv", "row 14: link.png leads out", OUT),
    "manifest: a folder that is a link that leads out": manifest("link_folder.csv", "row 14", "leads out", OUT),
    "manifest: a mask outside": manifest("mask.csv", "row 5: mask /etc/passwd leads out", OUT),
    "manifest: a null character": manifest("zero.csv", "row 14: no such file", r"\x00x.png"),
    "manifest: terminal codes in a path": manifest("escape.csv", "row 14: no such file", r"\x1b[31mx.png"),
    "manifest: a cell of 200,000 characters": manifest("long.csv", "field larger than field limit"),
    "manifest: a name of 5,000 characters": manifest("name.csv", "row 14: no such file"),
    "manifest: 180 KB of Parquet with ten million rows": manifest("bomb.parquet", "more than 10000000 rows"),
    "manifest: Parquet that is noise": manifest("junk.parquet", "cannot be read as Parquet"),
    # Folders of images
    "folder: a link to another file": folder("link_file", "a/x.png: leads out of the folder", OUT),
    "folder: a link to a picture elsewhere": folder("link_image", "a/x.png: leads out of the folder", OUT),
    "folder: a class that is a link elsewhere": folder("link_class", "/c: leads out of the folder", OUT),
    "folder: a link to an endless device": folder("endless", "a/x.png: leads out of the folder", OUT),
    "folder: the same, with links allowed": Case(
        (*folder("endless").arguments, "data.outside=allow"), ("a/x.png: is not a regular file",)
    ),
    "folder: a link to itself": folder("circle", "a/x.png: unreadable"),
    "folder: a named pipe": folder("pipe", "a/x.png: is not a regular file"),
    "folder: terminal codes in a name": folder("named", r"a/\x1b[31m\n\u202egnp.png: not an image"),
    # Images
    "image: PNG of 60,000 x 60,000 pixels": folder("picture_png", "3600000000 pixels in the header"),
    "image: PNG with 200 MB of text": folder("picture_text", "header cannot be read"),
    "image: PNG with a colour profile of 200 MB": folder("picture_profile", "header cannot be read"),
    "image: TIFF of 60,000 x 60,000 pixels": folder("picture_tiff", "3600000000 pixels in the header"),
    "image: TIFF with tiles of 2^31 pixels": folder("picture_strip", "TIFF"),
    "image: TIFF of a thousand pages": folder("picture_pages", "1001 pages or frames"),
    "image: GIF of fifty frames": folder("picture_gif", "not an image of an accepted format"),
    "image: the same, named .png": folder("picture_gif_as_png", "not an image of an accepted format"),
    "image: SVG with a script": folder("picture_svg", "not an image of an accepted format"),
    "image: PostScript": folder("picture_postscript", "not an image of an accepted format"),
    "image: JPEG of 65,535 EXIF entries and no picture": folder("picture_exif", "JPEG"),
    # Settings
    "setting: _target_": setting("+data._target_=os.system", "unknown setting '+data._target_'"),
    "setting: a group with _target_": setting("data={_target_: os.system}", "data must be one of"),
    "setting: a Python tag": setting("seed=!!python/object/apply:os.system ['id']", "seed must be a whole number"),
    "setting: a Python tag as text": setting("search.study=!!python/object/apply:os.system ['id']", NAME),
    "setting: a secret of the environment": setting("tracking.experiment='${oc.env:TOKEN}'", REFERENCE),
    "setting: the same where a number is due": setting("seed=${oc.env:TOKEN}", REFERENCE),
    "setting: the same in a list": setting("space.optimizers=['${oc.env:TOKEN}']", REFERENCE),
    "setting: another folder of configurations": setting("--config-dir=/srv/conf", "unknown option"),
    "setting: Hydra's own": setting("hydra.run.dir=/srv", "unknown setting 'hydra.run.dir'"),
    "setting: option of a group that climbs": setting("data=../../srv/data", "data must be one of"),
    "setting: study that climbs": setting("search.study=../../srv", NAME, "'../../srv'"),
    "setting: study that ends a query": setting("search.study=a' OR '1'='1", NAME),
    "setting: model name that climbs": setting("tracking.model_name=../srv", NAME),
    "setting: experiment that climbs": setting("tracking.experiment=../srv", NAME),
    "setting: experiment with a script": setting("tracking.experiment=<script>alert(1)</script>", NAME),
    "setting: experiment with terminal codes": setting("tracking.experiment=\x1b[31mx", NAME, r"\x1b[31mx"),
    "setting: another machine's store": setting("tracking.root=http://stranger/mlruns", "no address"),
    "setting: terminal codes in a key": setting("\x1b[31mx=1", r"unknown setting '\x1b[31mx'"),
    "configuration file: _target_": Case(("data=folder",), ("data._target_",), conf="_target_: os.system\n"),
    "configuration file: a Python tag": Case(
        ("data=folder",), ("python/object/apply",), conf="size: !!python/object/apply:os.mkdir ['executed']\n"
    ),
    "configuration file: a secret of the environment": Case(
        ("data=folder",), (REFERENCE, "data.fit"), conf="fit: ${oc.env:TOKEN}\n"
    ),
    # The user interface
    "ui: another address": Case(("host=0.0.0.0",), ("unknown argument 'host'",), "ui"),
    "ui: a port that is a command": Case(("port=5000;id",), ("port must be a number",), "ui"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_refused_with_one_line(
    case: Case, command: Any, malice: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-of-the-environment")
    if case.conf:
        import search.settings.compose

        shutil.copytree(search.settings.compose.configuration_folder(), tmp_path / "conf")
        with (tmp_path / "conf" / "data" / "folder.yaml").open("a", encoding="utf-8") as file:
            file.write(case.conf)
        monkeypatch.setattr(search.settings.compose, "configuration_folder", lambda: tmp_path / "conf")
    before = _tree(malice.root)
    outcome = command(case.program, [argument.replace("{root}", str(malice.root)) for argument in case.arguments])
    assert outcome.code == 2, outcome
    assert all(
        said.startswith(("Found ", "  after ", "Loading ")) and said.isprintable() for said in outcome.out.splitlines()
    )
    lines = outcome.err.splitlines()
    assert len(lines) == 1 and outcome.err.endswith("\n"), outcome.err
    assert outcome.err[:-1].isprintable(), outcome.err
    for word in case.words:
        assert word in lines[0]
    for word in ("Traceback", "s3cret", "weights_only"):
        assert word not in lines[0]
    assert not malice.marker.exists()
    assert list((tmp_path / "work").iterdir()) == []
    assert _tree(malice.root) == before


def _tree(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_symlink())


def test_the_list_of_the_documentation_is_this_table() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- (\w[\w ]*: .+)$", text.split("## What was tried", 1)[1], re.MULTILINE)
    assert listed == list(CASES)
