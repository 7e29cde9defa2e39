"""Decide on images with an exported model: `python decide.py FOLDER IMAGE ...`. Needs onnxruntime, numpy and pillow."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def refuse(reason):
    print(f"decide.py: {reason}", file=sys.stderr)
    sys.exit(2)


def pixels(path):
    """uint8 (1, H, W, 3) of an image of 8 bits, resized as in training."""
    try:
        image = ImageOps.exif_transpose(Image.open(path))
    except OSError as error:
        refuse(f"{path} is not an image that can be read: {error}")
    if image.mode not in ("L", "RGB") or not card["eight_bits"]:
        refuse(f"{path}: mode {image.mode}; this program reads grey and RGB images of 8 bits, for models of them")
    resized = image.resize(card["size"][::-1], Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resized.convert("RGB"))[None]


folder, *paths = sys.argv[1:] or ["exported"]
try:
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["thawline"])
except Exception as error:  # the runtime has a class for each way in which a file can be wrong
    refuse(f"{folder}/model.onnx is not an exported model that can be read: {str(error).splitlines()[0]}")
if card["format"] != 1:
    refuse(f"{folder}: format {card['format']} of the metadata, this program reads 1: take a newer one")
if card["fit"] != "stretch":
    refuse(f"{folder}: images must be brought to size by {card['fit']}, this program stretches them")
for path, image in [(path, pixels(path)) for path in paths]:  # all are read before any is decided
    answers = dict(zip(card["outputs"], session.run(card["outputs"], {"image": image}), strict=True))
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
