"""Decide on images with an exported model: `python decide.py FOLDER IMAGE ...`. Needs onnxruntime, numpy and pillow."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(f"{sys.argv[1]}/model.onnx", providers=["CPUExecutionProvider"])
card = json.loads(session.get_modelmeta().custom_metadata_map["thawline"])
if card["format"] != 1:
    sys.exit(f"{sys.argv[1]}: format {card['format']} of the metadata, this program reads 1: take a newer one")
if card["fit"] != "stretch":
    sys.exit(f"{sys.argv[1]}: images must be brought to size by {card['fit']}, this program stretches them")


def pixels(path):
    """uint8 (1, H, W, 3) of an image of 8 bits, resized as in training."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode not in ("L", "RGB") or not card["eight_bits"]:
        sys.exit(f"{path}: mode {image.mode}; this program reads grey and RGB images of 8 bits, for models of them")
    resized = image.resize(card["size"][::-1], Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resized.convert("RGB"))[None]


for path in sys.argv[2:]:
    answers = dict(zip(card["outputs"], session.run(card["outputs"], {"image": pixels(path)}), strict=True))
    p = answers["probabilities"][0].astype(np.float64)
    best = int(p.argmax())
    inside = [best]
    if card["limits"] is not None:
        inside = np.flatnonzero(-np.log(np.maximum(p, 1e-300)) <= np.array(card["limits"]) + 1e-9)
    if card["costs"] is not None:
        expected = p @ np.array(card["costs"])  # of each class, then of looking by hand
        cheapest = expected[:-1] <= expected.min() + 1e-12
        inside = [int(np.where(cheapest, p, -1).argmax())] if cheapest.any() else []
    unknown = card["distance_limit"] is not None and float(answers["distance"][0]) > card["distance_limit"]
    decision = card["by_hand"] if unknown or len(inside) != 1 else card["classes"][inside[0]]
    nearest = card["reference"][answers["nearest"][0, 0]] if unknown else ""
    print(path, card["classes"][best], f"{p[best]:.6f}", decision, nearest, sep="\t")
