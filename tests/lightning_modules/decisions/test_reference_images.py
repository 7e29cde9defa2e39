"""How far an image is from training images, and beyond which distance it is unlike all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors

from lightning_modules.decisions.reference_images import (
    NEIGHBOURS,
    ReferenceImages,
    distances,
    load_reference,
    save_reference,
    unit_length,
)
from lightning_modules.errors import InputError


def reference(images: int = 40, held_out: int = 60, groups: int | None = None) -> ReferenceImages:
    rng = np.random.default_rng(0)
    features = unit_length(rng.normal(size=(images, 8))).astype(np.float16)
    far = rng.uniform(0, 1, held_out).astype(np.float32)
    return ReferenceImages(
        features, tuple(f"가/{n}.png" for n in range(images)), far, np.arange(held_out) % (groups or held_out)
    )


def test_distances_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    one, other = (unit_length(rng.normal(size=(n, 5))) for n in (300, 50))
    found, nearest = distances(one, other)
    expected, places = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(other).kneighbors(one)
    assert found == pytest.approx(expected[:, -1], abs=1e-3)
    assert nearest.tolist() == places.tolist()


@pytest.mark.parametrize(("images", "shown"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_of_few_training_images(images: int, shown: int) -> None:
    other = unit_length(np.eye(5)[:images])
    found, nearest = distances(other[:1], other)
    assert nearest.shape == (1, shown) and nearest[0, 0] == 0
    assert found == pytest.approx([0.0 if images == 1 else np.sqrt(2)], abs=1e-3)


def test_an_image_is_nearest_to_itself_at_any_scale() -> None:
    known = reference()
    far, nearest = known.judged(7 * known.features[3:5].astype(np.float32))
    assert [names[0] for names in nearest] == ["가/3.png", "가/4.png"]
    assert (far > 0).all()  # the third nearest counts


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_false_alarms_are_as_many_as_promised(rate: float) -> None:
    """Over many calibrations, exchangeable with what is judged: the mean share beyond the limit is at most the rate."""
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        known = replace(reference(), distances=rng.gamma(2, size=60).astype(np.float32))
        shares.append(float((rng.gamma(2, size=200) > known.limit(rate)).mean()))
    assert rate - 1 / 61 - 0.01 < np.mean(shares) < rate + 0.01


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (reference(held_out=18), r"unknown=0\.05 needs held-out images of at least 19 groups .*, the model has 18; "
                                 r"accepted are at least 0\.053"),
        (reference(held_out=60, groups=10), r"the model has 10; accepted are at least 0\.091"),
        (reference(held_out=0, groups=1), "the model has 0; accepted is none"),
    ],
)  # fmt: skip
def test_too_few_held_out_images(known: ReferenceImages, message: str) -> None:
    with pytest.raises(InputError, match=message):
        known.limit(0.05)


def test_it_reads_back(tmp_path: Path) -> None:
    known = reference()
    save_reference(tmp_path / "r.safetensors", known)
    found = load_reference(tmp_path / "r.safetensors")
    assert found.names == known.names
    for name in ("features", "distances", "groups"):
        assert np.array_equal(getattr(found, name), getattr(known, name))


@pytest.mark.parametrize("kind", ["missing", "text", "names", "shapes", "kinds", "not finite"])
def test_what_it_did_not_write_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.safetensors"
    features, far = np.zeros((2, 3), np.float16), np.zeros(4, np.float32)
    if kind == "text":
        path.write_text("{}")
    elif kind != "missing":
        features = features[:1] if kind == "shapes" else features.astype(float) if kind == "kinds" else features
        far = far + np.float32(np.nan) if kind == "not finite" else far
        names = {"names": "[1, 2]" if kind == "names" else '["a", "b"]'}
        save_file({"features": features, "distances": far, "groups": np.arange(4)}, path, metadata=names)
    with pytest.raises(InputError, match="does not hold reference images"):
        load_reference(path)
