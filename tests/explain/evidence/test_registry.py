from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from explain.evidence import SCORERS, Material, depth_prior, depth_scores
from explain.evidence.registry import ALIASES, PRIORS

OPTIONS: dict[str, dict[str, Any]] = {
    "static": {"table": [0.1, 0.2, 0.3, 0.4]},
    "advisor": {"images_per_class": 10.0, "gain": 0.7, "distance": 0.4},
}
RANGES = {
    "faithful_localisation": (-1, 1), "faithful_localisation_control": (-1, 1), "cam_stability": (-1, 1),
    "agreement_of_change": (-1, 1), "logme": (-np.inf, np.inf), "auto_rgn": (-np.inf, 0), "static": (-np.inf, 0),
    "advisor": (-1, 0),
}  # fmt: skip
TRIVIAL = {"static", "deepest", "monotone", "advisor"}


def test_the_registry_is_complete_and_fixed() -> None:
    assert set(SCORERS) == {
        "faithful_localisation", "faithful_localisation_control", "cam_stability", "train_validation_disagreement",
        "agreement_of_change", "linear_probe", "logme", "auto_rgn", "cka", "static", "deepest", "monotone",
        "advisor",
    }  # fmt: skip
    with pytest.raises(TypeError):
        SCORERS["mine"] = SCORERS["cka"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCORERS["cka"].kind = "depth"  # type: ignore[misc]


def test_priors_are_what_the_registry_says_and_loading_it_loads_no_scorer() -> None:
    assert PRIORS == (
        "uniform", "static", "deepest", "monotone", "advisor", "linear_probe", "probe", "logme", "auto_rgn", "cka",
        "faithful_localisation", "cam_stability", "train_validation_disagreement", "evidence",
    )  # fmt: skip
    assert set(ALIASES.values()) <= set(SCORERS)
    code = (
        "import sys, explain.evidence.registry as r; assert len(r.SCORERS) == len(r.USES) and 'cka' in r.SCORERS;"
        "print(sorted({'torch', 'numpy', 'explain.evidence.scorer'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(KeyError):
        SCORERS["mine"]


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_declares_itself_in_its_own_file(name: str) -> None:
    scorer = SCORERS[name]
    assert scorer.name == name
    home = import_module(f"explain.evidence.{name.removesuffix('_control')}")
    assert scorer.function.__module__ == home.__name__
    text = sys.modules[scorer.function.__module__].__dict__[scorer.function.__name__].__doc__
    if name.endswith("_control"):
        assert "Formula, range, sign, null" in text
    else:
        assert "Range:" in text
        assert "Null:" in text
        assert "Cost:" in text
        assert "s(k) =" in text if scorer.kind == "depth" else "Sign: " in text


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_keeps_the_protocol(name: str, material: Material) -> None:
    scorer = SCORERS[name]
    options = OPTIONS.get(name, {})
    assert scorer.can_read(material)
    scores = scorer(material, **options)
    assert (scores.scorer, scores.kind, scores.blocks) == (name, scorer.kind, material.blocks)
    assert scores.values.shape == (3 if scorer.kind == "block" else 4,)
    assert np.isfinite(scores.values).all()
    low, high = RANGES.get(name, (0, 1))
    assert ((scores.values >= low) & (scores.values <= high)).all()
    assert np.isfinite(scores.z).all() != (name in TRIVIAL)
    np.testing.assert_array_equal(scorer(material, **options).values, scores.values)
    np.testing.assert_array_equal(scorer(material, **options).z, scores.z)
    depths = depth_scores(scores)
    assert depths.values.shape == (4,)
    assert depths.notes == ()
    assert depth_prior(depths.values).probabilities.min() >= 0.05 - 1e-12


@pytest.mark.parametrize("name", SCORERS)
def test_the_cost_is_that_of_what_is_read(name: str, material: Material) -> None:
    scorer = SCORERS[name]
    cost = scorer(material, **OPTIONS.get(name, {})).cost
    parts = [material.costs[part] for part in scorer.needs]
    assert cost.forward_passes == sum(part.forward_passes for part in parts)
    assert cost.backward_passes == sum(part.backward_passes for part in parts)
    assert cost.seconds > sum(part.seconds for part in parts)
    assert ("after" in scorer.needs) == (cost.seconds > 1000)  # what the fine-tuning is said to have cost


@pytest.mark.parametrize("name", [name for name, scorer in SCORERS.items() if scorer.needs])
def test_missing_material_is_named(name: str, material: Material) -> None:
    scorer = SCORERS[name]
    bare = dataclasses.replace(material, costs={})
    assert not scorer.can_read(bare)
    with pytest.raises(ValueError, match=f"{name} needs '{scorer.needs[0]}', which was not gathered"):
        scorer(bare)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - TRIVIAL - {"auto_rgn"}))
def test_the_null_is_drawn_often_enough_and_seeded(name: str, material: Material) -> None:
    scorer = SCORERS[name]
    with pytest.raises(ValueError, match="draws must be at least 2, got 1"):
        scorer(material, draws=1)
    one, other = scorer(material, seed=1, draws=20), scorer(material, seed=2, draws=20)
    assert not np.array_equal(one.null_mean, other.null_mean)


@pytest.mark.parametrize("name", ["cam_stability", "train_validation_disagreement", "agreement_of_change"])
def test_the_control_map_can_be_read_instead(name: str, material: Material) -> None:
    cam, control = SCORERS[name](material, maps="cam"), SCORERS[name](material, maps="control")
    assert not np.array_equal(cam.values, control.values)
    with pytest.raises(ValueError, match="maps must be cam or control, got 'edges'"):
        SCORERS[name](material, maps="edges")
