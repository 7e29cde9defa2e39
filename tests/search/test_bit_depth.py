"""Images of more than 8 bits: which values become black and white, and images of another depth than the model's."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model
from search.__main__ import main as search
from search.explain.__main__ import main as explain
from search.predict.__main__ import main as predict

Grey = NDArray[np.int64]
Depth = Callable[[Grey], Grey]
CLASSES = ("a", "b", "c")


def deeper(root: Path, depth: Depth) -> Path:
    """Every image of a folder with other values, as 16-bit PNG."""
    for file in root.rglob("*.png"):
        Image.fromarray(depth(np.asarray(Image.open(file)).astype(np.int64)).astype(np.uint16)).save(file)
    return root


def twelve_bits(grey: Grey) -> Grey:
    return grey * 16


def narrow(grey: Grey) -> Grey:
    return 51_200 + grey * 1000 // 255


def hot(depth: Depth) -> Depth:
    def changed(grey: Grey) -> Grey:
        values = depth(grey)
        values[3, 5], values[7, 1] = 65_535, 0
        return values

    return changed


def few(grey: Grey) -> Grey:
    values = np.select([grey > 128, grey > 100], [60_000, 30_000], 200)
    values[0, 0] += grey.sum()  # no two alike: they would be copies
    return values


def as_it_was(_: Path) -> None:
    return


def odd_image(root: Path) -> None:
    Image.fromarray(np.full((32, 32), 65_000, np.uint16)).save(root / "b" / "00.png")


def eight_bits(step: int) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        rng = np.random.default_rng(0)
        for file in sorted(root.rglob("*.png"))[::step]:
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(file)

    return change


NARROW = r"values 51\d{3} to 52\d{3} become 0 to 255\."


@pytest.mark.parametrize(
    ("depth", "change", "said"),
    [
        (twelve_bits, as_it_was, [r"16-bit images: values 0 to 4095 become 0 to 255\."]),
        (hot(twelve_bits), as_it_was, [r"16-bit images: values 0 to 4095 become 0 to 255\."]),
        (twelve_bits, odd_image, ["values 0 to 4095", r"1 of 36 images do not fit .*00\.png \(65000 everywhere\)"]),
        (narrow, as_it_was, ["16-bit images: " + NARROW]),
        (hot(narrow), as_it_was, ["16-bit images: " + NARROW]),
        (narrow, odd_image, [NARROW, "1 of 36 images do not fit that, such as"]),
        (
            narrow,
            eight_bits(18),
            [r"\(34 of 36, the others have 8 bits\): " + NARROW, r"2 of 36 .*\(0 to 255, 8 bits\)"],
        ),
        (
            narrow,
            eight_bits(3),
            [r"\(24 of 36, the others have 8 bits\): values 0 to 65535", "24 of 36 .* levels .*: [45] "],
        ),
        (
            few,
            as_it_was,
            ["values 0 to 65535", "36 of 36 images use few of the 256 grey levels that a network is shown"],
        ),
    ],
)
def test_no_pixel_and_no_image_decides_alone(
    depth: Depth,
    change: Callable[[Path], None],
    said: list[str],
    tmp_path: Path,
    make_stripes: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(root := deeper(make_stripes(tmp_path / "images", dict.fromkeys(CLASSES, 12)), depth))
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "studies").write_text("a file, so that the search ends when it has described its data")
    settings = ("data=folder", f"data.path={root}", "data.size=[32,32]", "model=lenet5", "model.weights=none")
    for _ in range(2):  # decoded, and opened again
        assert search([*settings, "executor=inline", f"tracking.root={tmp_path / 'mlruns'}"]) == 2
        out = capsys.readouterr().out
        assert not [pattern for pattern in said if not re.search(pattern, out)], out
        assert out.count("  ") == len(said), out


IMAGES = {
    "8 bits": lambda grey: grey,
    "12 bits": twelve_bits,
    "16 bits": lambda grey: grey * 256,
    "narrow": narrow,
    "hot": hot(twelve_bits),
    "hot narrow": hot(narrow),
    "dark": lambda grey: grey * 2,
    "black": lambda grey: grey * 0,
    "white": lambda grey: grey * 0 + 65_535,
}
MODELS = {  # (black, white, dark) -> the images that it does not know
    (0, 4095, 900): {"16 bits", "narrow", "hot narrow", "dark", "white"},
    (51_150, 52_250, 13_000): {"8 bits", "12 bits", "16 bits", "hot", "dark", "black", "white"},
    (0, 65_535, 16_384): {"12 bits", "hot", "dark"},  # also of 8-bit images
    (0, 65_535, 0): set(),  # of an earlier program
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("values", "unknown"),
    [
        next(iter(MODELS.items())),
        *(pytest.param(*one, marks=[pytest.mark.slow, pytest.mark.long]) for one in list(MODELS.items())[1:]),
    ],
    ids=map(str, MODELS),
)
def test_every_command_refuses_images_of_another_depth(
    values: tuple[int, int, int], unknown: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from search.tracking.served_model import ImageClassifier, RefusedRequest

    grey, model = np.random.default_rng(0).integers(0, 256, (32, 32)), tmp_path / "model"
    black, white, dark = values
    card = ModelCard("lenet5", CLASSES, (32, 32), "stretch", white, 10**7, 0, {}, black, dark)
    save_model(model, TrainedModel(backbones.build("lenet5", classes=3, size=(32, 32), weights="none"), card))
    served = ImageClassifier()
    served.load_context(PythonModelContext({"model": str(model)}, {}))
    for name, change in IMAGES.items():
        file = tmp_path / f"{name}.png"
        Image.fromarray(change(grey).astype(np.uint8 if name == "8 bits" else np.uint16)).save(file)
        codes = [
            predict([f"images={file}", f"model={model}", f"to={tmp_path / name}.csv", "device=cpu"]),
            explain([f"images={file}", f"model={model}", f"out={tmp_path / name}", "device=cpu", "figures=0"]),
        ]
        out, said = capsys.readouterr()
        frame = pd.DataFrame({"image": [file.read_bytes()]})
        if name not in unknown:
            assert codes == [0, 0] and len(served.predict(None, frame)) == 1, (name, said)
            assert out.count("(1 show nothing: one grey value)") == 2 * (name in ("black", "white", "dark")), out
            continue
        reason = f"(and {black} to {white} of more than 8 bits for the model: it would|all below {dark}: too dark for)"
        assert codes == [2, 2] and len(re.findall(reason, said)) == 2, (name, said)
        assert not list(tmp_path.glob(f"{name}*[!g]"))
        with pytest.raises(RefusedRequest, match=f"row 0: .*{reason}"):
            served.predict(None, frame)


def test_one_of_another_depth_is_set_aside(tmp_path: Path, make_stripes: Callable[..., Path]) -> None:
    root = deeper(make_stripes(tmp_path / "images", {"a": 3}), twelve_bits)
    Image.fromarray(np.full((32, 32), 65_000, np.uint16)).save(root / "a" / "00.png")
    card = ModelCard("lenet5", CLASSES, (32, 32), "stretch", 4095, 10**7, 0, {})
    net = backbones.build("lenet5", classes=3, size=(32, 32), weights="none")
    save_model(tmp_path / "model", TrainedModel(net, card))
    words = [f"images={root}", f"model={tmp_path / 'model'}", "device=cpu", f"to={tmp_path / 'p.csv'}"]
    assert predict(words) == 2 and predict([*words, "on_bad=set_aside"]) == 0
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        assert [bool(row["error"]) for row in csv.DictReader(file)] == [True, False, False]
