"""Files a stranger might hand over."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ESCAPE = "\x1b[31m"
SCRIPT = "</script><img src=x onerror=alert(1)>"


class Payload:
    """Runs a command when it is unpickled: makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@dataclass(frozen=True)
class Malice:
    """Malicious files under `root`; `marker` exists once any of them was executed."""

    root: Path
    marker: Path


def write_malice(base: Path) -> Malice:
    """Write all of them under `base`."""
    found = Malice(base / "files", base / "executed")
    found.root.mkdir()
    _weights(found.root, found.marker)
    _manifests(found.root)
    _folders(found.root)
    _pictures(found.root)
    _models(found.root, found.marker)
    assert not found.marker.exists()
    return found


def write_images(root: Path, seed: int = 0, side: int = 16) -> Path:
    """Two classes, a and b, of six pictures of noise."""
    rng = np.random.default_rng(seed)
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 255, (side, side), np.uint8)).save(root / name / f"{number:02d}.png")
    return root


def _weights(root: Path, marker: Path) -> None:
    import torch

    (root / "pickle.pt").write_bytes(pickle.dumps(Payload(marker)))
    torch.save({"weight": Payload(marker)}, root / "archive.pt")
    (root / "pickle.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    np.save(root / "objects.npy", np.array([Payload(marker)], dtype=object), allow_pickle=True)
    (root / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    beyond = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (root / "beyond.safetensors").write_bytes(struct.pack("<Q", len(beyond)) + beyond)
    with tarfile.open(root / "slip.tar", "w") as tar:
        entry = tarfile.TarInfo("../../escaped")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    with zipfile.ZipFile(root / "slip.pt", "w") as archive:
        archive.writestr("../../escaped", "abc")
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with zipfile.ZipFile(root / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"0" * 20_000_000)


def _manifests(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_images(root / "outside", seed=1)
    inside = root / "manifests"
    write_images(inside / "img")
    (inside / "link.png").symlink_to(root / "outside" / "a" / "00.png")
    (inside / "folder").symlink_to(root / "outside")
    good = [f"img/{name}/{number:02d}.png,{name}" for name in "ab" for number in range(6)]
    for name, row in {
        "absolute": "/etc/passwd,a",
        "absolute_image": f"{root}/outside/a/01.png,a",
        "parents": "../../../../../../../../etc/passwd,a",
        "sibling": "../outside/a/02.png,a",
        "link": "link.png,a",
        "link_folder": "folder/a/03.png,a",
        "zero": "\0x.png,a",
        "escape": f"{ESCAPE}x.png,a",
        "label": f"img/../img/a/00.png/../01.png,{ESCAPE}",
        "long": f"{'x' * 200_000},a",
        "name": f"{'x' * 5000}.png,a",
    }.items():
        (inside / f"{name}.csv").write_text("\n".join(["path,label", *good, row, ""]), encoding="utf-8")
    masked = [f"{row},/etc/passwd" if number == 3 else f"{row}," for number, row in enumerate(good)]
    (inside / "mask.csv").write_text("\n".join(["path,label,mask", *masked, ""]))
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000_001, np.int32)), ["img/a/00.png"])
    pq.write_table(pa.table({"path": same, "label": same}), inside / "bomb.parquet")
    (inside / "junk.parquet").write_bytes(b"PAR1" + bytes(range(256)) * 4 + b"PAR1")


def _folders(root: Path) -> None:
    (write_images(root / "link_file") / "a" / "x.png").symlink_to("/etc/passwd")
    (write_images(root / "link_image") / "a" / "x.png").symlink_to(root / "outside" / "a" / "00.png")
    (write_images(root / "link_class") / "c").symlink_to(root / "outside" / "a")
    (write_images(root / "endless") / "a" / "x.png").symlink_to("/dev/zero")
    (write_images(root / "circle") / "a" / "x.png").symlink_to("x.png")
    os.mkfifo(write_images(root / "pipe") / "a" / "x.png")
    (write_images(root / "named") / "a" / f"{ESCAPE}\n\u202egnp.png").write_text("x")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, extra: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(b"\0" * (width + 1) * min(height, 16))
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    """Little-endian header of a grey TIFF with one strip; `more` are further tags."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, width * height & 0xFFFFFFFF), *more]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)


def _pictures(root: Path) -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535)
    svg = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><image href='/etc/passwd'/></svg>"
    frames = [Image.new("L", (8, 8), value) for value in range(50)]
    files = {
        "png": ("x.png", _png(60_000, 60_000)),
        "text": ("x.png", _png(16, 16, _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 200_000_000)))),
        "profile": ("x.png", _png(16, 16, _chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x" * 200_000_000)))),
        "tiff": ("x.tif", _tiff(60_000, 60_000)),
        "strip": ("x.tif", _tiff(16, 16, (322, 4, 1, 1 << 31), (323, 4, 1, 1 << 31))),
        "svg": ("x.png", svg.encode()),
        "postscript": ("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "exif": ("x.jpg", b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + b"\xff\xd9"),
    }
    for name, (file, content) in files.items():
        (write_images(root / f"picture_{name}") / "a" / file).write_bytes(content)
    for name, file in (("gif", "x.gif"), ("gif_as_png", "x.png")):
        frames[0].save(
            write_images(root / f"picture_{name}") / "a" / file, "GIF", save_all=True, append_images=frames[1:]
        )
    frames[0].save(write_images(root / "picture_pages") / "a" / "x.tif", save_all=True, append_images=frames * 20)


def _models(root: Path, marker: Path) -> None:
    """Copies of one good model, each with one thing changed; most with digests that fit what was changed."""
    import torch
    from safetensors.torch import load_file, save_file

    from lightning_modules.networks import backbones
    from lightning_modules.networks.model_file import DIGESTS, ModelCard, TrainedModel, save_model, write_digests

    Image.new("L", (32, 32), 9).save(root / "image.png")
    net = backbones.build("lenet5", classes=2, size=(32, 32), weights="none")
    model = TrainedModel(net, ModelCard("lenet5", ("a", "b"), (32, 32), "pad", 255, 10_000, 0, {}))

    def new(name: str) -> Path:
        save_model(root / f"model_{name}", model)
        return root / f"model_{name}"

    for name, change in {
        "hub": {"architecture": "timm:hf-hub:stranger/network"},
        "list": {"architecture": ["lenet5"]},
        "size": {"size": [1_000_000, 1_000_000]},
        "layer": {"size": [2048, 2048]},
        "pixels": {"max_pixels": 10**18},
        "script": {"classes": [f"{ESCAPE}a", "b"]},
        "future": {"format": 99},
        "field": {"__class__": "os.system"},
    }.items():
        card = new(name) / "model.json"
        card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
        write_digests(card.parent)
    for name, content in {"pickle": pickle.dumps(Payload(marker)), "nothing": b""}.items():
        (new(name) / "model.safetensors").write_bytes(content)
        write_digests(root / f"model_{name}")
    deep = new("deep")
    (deep / "model.json").write_text("[" * 100_000)
    write_digests(deep)
    for name in ("more", "fewer"):
        file = new(name) / "model.safetensors"
        tensors = load_file(file)
        tensors = {**tensors, "more": torch.zeros(2)} if name == "more" else dict(list(tensors.items())[1:])
        save_file(tensors, file)
        write_digests(file.parent)
    flipped = new("flipped") / "model.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    renamed = new("renamed") / "model.json"
    renamed.write_text(renamed.read_text().replace('"a"', '"c"'))
    (new("bare") / DIGESTS).unlink()
    climbing = new("climbing") / DIGESTS
    climbing.write_text(climbing.read_text() + f"{'0' * 64}  ../../../../etc/passwd\n")
    mlflow = root / "model_mlflow"
    mlflow.mkdir()
    (mlflow / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n"
                                    "    python_model: python_model.pkl\n")  # fmt: skip
    (mlflow / "python_model.pkl").write_bytes(pickle.dumps(Payload(marker)))
