"""Baselines without a network, whose drift is what the test says, and answers of two models that differ."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from search.retrain.month.baseline import MEASURES, Baseline

__all__ = ["BLOCKS", "CLASSES", "Answers", "made_up", "two_models"]

CLASSES = ("island", "pipe", "flake")
BLOCKS = ("one", "two", "three", "four")


def made_up(
    n: int,
    seed: int,
    *,
    brightness: float = 0.0,
    features: float = 0.0,
    moved: int | None = None,
    shares: tuple[float, ...] = (0.4, 0.3, 0.3),
    right: float = 0.9,
    readable: tuple[float, ...] = (0.2, 0.5, 0.8, 3.0),
    turned: int = 0,
    a_group: int = 1,
    alike: float = 0.0,
    classes: tuple[str, ...] = CLASSES,
) -> Baseline:
    """A sample of n images.

    Args:
        n: images.
        seed: of everything.
        brightness: added to the mean pixel, in standard deviations.
        features: added to the first penultimate feature, in standard deviations.
        moved: first block whose maps moved, and all behind it.
        shares: of the classes.
        right: share that the champion has right.
        readable: by block, how far apart the classes lie in its output, in standard deviations.
        turned: classes change places by so many in the blocks' output: what the champion's head learned is wrong.
        a_group: images a group.
        alike: standard deviation of what the images of one group share.
        classes: names.
    """
    rng = np.random.default_rng([seed, n])
    groups = np.arange(n) // a_group
    common = rng.normal(0, 1, groups.max() + 1)[groups] * alike
    labels = rng.choice(len(classes), n, p=np.array(shares) / sum(shares))
    predicted = np.where(rng.random(n) < right, labels, (labels + 1) % len(classes))
    place = (labels + turned) % len(classes)
    by_block = tuple((np.eye(8)[place] * apart + rng.normal(0, 1, (n, 8))).astype(np.float32) for apart in readable)

    def measure(block: int) -> Any:
        return rng.uniform(0, 1, n) + 0.2 * common + (0.8 if moved is not None and block >= moved else 0)

    penultimate = rng.normal(0, 1, (n, 6)) + common[:, None] + np.eye(6)[0] * features
    return Baseline(
        classes=classes,
        counts=MappingProxyType({name: int((labels == i).sum()) for i, name in enumerate(classes)}),
        blocks=BLOCKS,
        features=penultimate.astype(np.float32),
        block_features=by_block,
        brightness=(0.4 + 0.05 * (rng.normal(0, 1, n) + common + brightness)).astype(np.float32),
        contrast=rng.uniform(0.1, 0.2, n).astype(np.float32),
        confidence=rng.uniform(0.5, 1, n).astype(np.float32),
        labels=labels.astype(np.int64),
        predicted=predicted.astype(np.int64),
        groups=groups.astype(np.int64),
        measures=MappingProxyType(
            {name: np.stack([measure(b) for b in range(4)]).astype(np.float32) for name in MEASURES}
        ),
    )


Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


def two_models() -> Answers:
    """Champion, challenger (120, 11), labels (120,): eleven classes, the challenger somewhat better; on the first three
    images both are sure of the same wrong class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 11, 120)

    def model(share: float) -> np.ndarray:
        said = np.where(rng.random(120) < share, labels, rng.integers(0, 11, 120))
        sure = rng.uniform(0.4, 0.99, 120)[:, None]
        return np.asarray(np.eye(11)[said] * sure + (1 - sure) / 11)

    champion, challenger = model(0.75), model(0.88)
    wrong = (labels[:3] + 1) % 11
    champion[:3] = challenger[:3] = np.eye(11)[wrong] * 0.9 + 0.1 / 11
    return champion, challenger, labels
