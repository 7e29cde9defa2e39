"""Small TIFF files of any samples and tags: what cameras and programs write and Pillow does not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["packed", "tiff"]


def tiff(
    samples: NDArray[Any],
    bits: int = 8,
    *,
    order: str = "<",
    photometric: int = 1,
    planar: int = 1,
    compression: int = 1,
    predictor: int = 1,
    tags: Mapping[int, Sequence[int]] | None = None,
) -> bytes:
    """A file of one strip (one a channel where `planar` is 2).

    Args:
        samples: (H, W) or (H, W, S); floating-point and signed kinds say so in SampleFormat.
        bits: of a sample; those that are no whole bytes are packed, the highest bit first.
        order: "<" or ">".
        compression: 1 (none) or 8 (deflate).
        predictor: 2 is the difference to the left, of whole bytes.
        tags: further tags of 16-bit values, or others instead of what is written; no values leave the tag out.
    """
    pixels = samples[:, :, None] if samples.ndim == 2 else samples
    height, width, channels = pixels.shape
    planes = [pixels] if planar == 1 else [pixels[:, :, c : c + 1] for c in range(channels)]
    if predictor == 2:
        planes = [np.diff(p, axis=1, prepend=np.zeros_like(p[:, :1])) for p in planes]
    strips = [packed(plane.reshape(height, -1), bits, order) for plane in planes]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    kind = {"f": 3, "i": 2}.get(pixels.dtype.kind, 1)
    short: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [compression], 262: [photometric],
        277: [channels], 278: [height], 284: [planar], 317: [predictor], 339: [kind] * channels, **(tags or {}),
    }  # fmt: skip
    entries = {tag: ("H", values) for tag, values in short.items() if len(values)}
    entries |= {273: ("L", [0] * len(strips)), 279: ("L", [len(s) for s in strips])}
    rest = 8 + 2 + 12 * len(entries) + 4
    behind = b""
    sizes = {tag: len(values) * struct.calcsize("=" + form) for tag, (form, values) in entries.items()}
    start = rest + sum(size for size in sizes.values() if size > 4)
    starts = np.cumsum([start, *(len(s) for s in strips[:-1])]).tolist()
    entries[273] = ("L", starts)
    table = struct.pack(order + "H", len(entries))
    for tag, (form, values) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(value) > 4:
            value, behind = struct.pack(order + "L", rest + len(behind)), behind + value
        table += struct.pack(order + "HHL", tag, {"H": 3, "L": 4}[form], len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8)
    return head + table + bytes(4) + behind + b"".join(strips)


def packed(rows: NDArray[Any], bits: int, order: str) -> bytes:
    """Rows of samples (H, W), each row padded to whole bytes; see `tiff`."""
    if bits in (8, 16, 32, 64):
        return rows.astype(f"{order}{rows.dtype.kind}{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    unpacked = (rows[:, :, None].astype(np.int64) >> shifts & 1).reshape(len(rows), -1).astype(np.uint8)
    return np.packbits(unpacked, axis=1).tobytes()
