"""The picture of the evidence: everything drawn is what was given, whatever is missing."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from explain.evidence import Cost
from search.evidence.record import Evidence, ScorerEvidence, TypicalMaps, prior_mode
from search.outcome.evidence_figure import evidence_figure
from search.outcome.scorecard import SeenDepth

NAN = float("nan")


def _scorer(name: str, values: list[float], preferred: int = 0) -> ScorerEvidence:
    """A scorer of depths, or (faithful_localisation, cam_stability) of blocks."""
    kind = "block" if name in ("faithful_localisation", "cam_stability") else "depth"
    given = np.array(values)
    depths = len(values) + (kind == "block")
    s = np.concatenate([[0.0], np.cumsum(np.nan_to_num(given))]) if kind == "block" else given
    flat = np.full(depths, 1 / depths)
    passes = 0 if name == "deepest" else 8
    return ScorerEvidence(name, kind, given, given, given, given, s, flat, preferred, Cost(1.0, passes, passes))


def _evidence(
    blocks: int,
    *scorers: ScorerEvidence,
    prior: str = "evidence",
    depths: tuple[int, int] | None = None,
    maps: bool = True,
    names: str = "stage",
) -> Evidence:
    low, high = depths or (0, blocks)
    probabilities = np.linspace(1, 3, blocks + 1)
    probabilities /= probabilities.sum()
    shown = tuple(np.eye(max(1, 9 - block), dtype=np.uint8) * 255 for block in range(blocks))
    none = np.zeros(0, np.int64)
    return Evidence(
        blocks=tuple(f"{names}{block + 1}" for block in range(blocks)),
        scorers={scorer.name: scorer for scorer in scorers},
        depths=(low, high),
        prior=prior,
        probabilities=probabilities,
        preferred=prior_mode(probabilities, low, high),
        cost=Cost(3.0, 8, 8),
        training_rows=none,
        validation_rows=none,
        maps=TypicalMaps(0, 3, shown, shown) if maps else None,
    )


def _texts(figure: Figure) -> list[str]:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [*found, *(text.get_text() for text in figure.texts)]


def _pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        figure.savefig(buffer, dpi=60, bbox_inches="tight")
    return np.asarray(Image.open(buffer).convert("L"))


SEEN = {0: SeenDepth(0.91, False, 3), 2: SeenDepth(0.93, False, 1), 3: SeenDepth(0.88, True, 2)}
IMAGE = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))


def test_scores_prior_and_results_are_those_given() -> None:
    evidence = _evidence(
        3, _scorer("faithful_localisation", [1.25, NAN, -3.5]), _scorer("logme", [0.0, 0.0, 0.5, 0.0]), prior="logme"
    )
    figure = evidence_figure(evidence, SEEN, 2, metric="macro_f1", image=IMAGE, label="점 rolled-in $scale")
    texts = _texts(figure)
    assert {"0.910", "0.930", "≥ 0.880", "3 trials", "1 trial", "2 trials", "not tried"} <= set(texts)
    assert {"1.2", "-3.5", "-", "0.50"} <= set(texts)  # a NaN score is a dash
    assert {"faithful_localisation", "logme", "점 rolled-in $scale"} <= set(texts)
    assert "Blocks 1 and 2 stay frozen; block 3 and the head are trained" in texts
    assert "best validation macro F1 there 0.930; the prior (logme) preferred freeze depth 3" in texts
    bars = [
        patch.get_height()
        for axes in figure.axes
        if axes.get_xlabel().startswith("freeze depth")
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]
    np.testing.assert_allclose(bars, evidence.probabilities)
    (line,) = [line for axes in figure.axes for line in axes.lines if list(line.get_xdata()) == [2, 2]]
    assert list(line.get_ydata()) == [0, 1]
    assert sum(len(axes.images) for axes in figure.axes) == 3 + 1  # a map a block, and the image
    assert _pixels(figure).std() > 5


@pytest.mark.parametrize(
    ("blocks", "chosen", "title"),
    [
        (3, 0, "Nothing stays frozen: all 3 blocks are trained"),
        (3, 3, "All 3 blocks stay frozen: only the head is trained"),
        (5, 1, "Block 1 stays frozen; blocks 2 to 5 and the head are trained"),
        (2, 1, "Block 1 stays frozen; block 2 and the head are trained"),
        (17, 9, "Blocks 1 to 9 stay frozen; blocks 10 to 17 and the head are trained"),
    ],
)
def test_any_network_fits_the_page(blocks: int, chosen: int, title: str) -> None:
    evidence = _evidence(blocks, _scorer("cam_stability", list(np.linspace(0, 9, blocks))), names="블록 layer")
    figure = evidence_figure(evidence, {chosen: SeenDepth(0.5, False, 1)}, chosen, metric="accuracy", image=IMAGE)
    assert title in _texts(figure)
    assert _pixels(figure).shape[1] < 9.6 * 60


def test_only_depths_of_the_space_have_bars() -> None:
    figure = evidence_figure(_evidence(4, depths=(1, 3)), {2: SeenDepth(0.5, False, 1)}, 2, metric="accuracy")
    axes = next(axes for axes in figure.axes if axes.get_xlabel())
    heights = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose(heights, np.array([1.5, 2, 2.5]) / 6)
    assert _texts(figure).count("not searched") == 2
    assert _texts(figure).count("not tried") == 2


def test_without_maps_scores_and_results_there_are_blocks_and_a_prior() -> None:
    evidence = _evidence(3, _scorer("deepest", [0, 0, 0, 1.0]), prior="deepest", maps=False)
    figure = evidence_figure(evidence, {}, 1, metric="macro_f1")
    assert not any(axes.images for axes in figure.axes)
    texts = _texts(figure)
    assert {"blocks", "stage1", "stage3"} <= set(texts) and texts.count("not tried") == 4
    assert "deepest" not in texts and not any("against chance" in text for text in texts)
    assert "the prior (deepest) preferred freeze depth 3" in texts
    _pixels(figure)


def test_a_uniform_prior_prefers_nothing() -> None:
    figure = evidence_figure(_evidence(2, prior="uniform"), {}, 0, metric="macro_f1")
    texts = _texts(figure)
    assert "no prior: the freeze depth was left to the sampler" in texts
    assert "prior over freeze depths" not in texts
    assert any(axes.get_xlabel().startswith("freeze depth: how many") for axes in figure.axes)


def test_scores_that_are_all_unknown_or_all_equal_and_dead_maps_are_drawn() -> None:
    evidence = _evidence(
        2, _scorer("faithful_localisation", [NAN, NAN]), _scorer("cam_stability", [2.0, 2.0]), prior="evidence"
    )
    dead = tuple(np.zeros((4, 4), np.uint8) for _ in range(2))
    evidence = Evidence(**{**vars(evidence), "maps": TypicalMaps(0, 0, dead, dead)})
    figure = evidence_figure(evidence, {1: SeenDepth(0.0, True, 1)}, 1, metric="macro_f1", image=IMAGE)
    assert _texts(figure).count("-") == 2 and _texts(figure).count("2.0") == 2
    _pixels(figure)
