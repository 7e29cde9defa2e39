"""What the winning configuration does on images it was not trained on: mistakes, their maps, doubtful labels.

Plain values and pictures as they are kept in MLflow (`validation/findings.json`); `search.report.examination`
makes them. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search.report.kept_json import KeptJson

__all__ = [
    "ARTIFACT",
    "MAP_MEASURES",
    "PREDICTIONS",
    "BlockMeasures",
    "ConfusedPair",
    "Findings",
    "Mistake",
    "NearMiss",
    "Suspect",
    "Trait",
]

ARTIFACT = "validation/findings.json"
"""Artifact of the parent run."""

MAP_MEASURES = "validation/map_measures.json"
"""Artifact of the parent run: `Findings.measures`, a row a block."""

PREDICTIONS = "validation/predictions.json"
"""Artifact of the parent run: out-of-sample probabilities of every judged image, as columns and data."""


@dataclass(frozen=True)
class BlockMeasures:
    """Measures of one block's maps, means over images (dead maps left out but for `dead`); None where all are dead.

    Attributes:
        height, width: of its maps, in positions.
        entropy: normalised entropy, 0 one position, 1 uniform.
        area: elliptical area, 0 a point, 1 about uniform.
        dispersion: variance over squared mean.
        relative_difference: range in units of the mean.
        dead: share of maps that are zero everywhere, in [0, 1].
    """

    block: str
    height: int
    width: int
    entropy: float | None
    area: float | None
    dispersion: float | None
    relative_difference: float | None
    dead: float | None


@dataclass(frozen=True)
class Mistake:
    """An image taken for another class.

    Attributes:
        probability: of the class it was taken for.
        true_probability: of its own class.
        image: key of its picture.
        predicted_map: key of the picture with the map of the class it was taken for; empty without maps.
        resembles: path of the correctly classified image of the other class whose mapped region is most alike.
        similarity: cosine of the two regions' features, in [-1, 1]; None where there is no such image.
        resembling_map: key of that image's picture with its map.
    """

    path: str
    probability: float
    true_probability: float
    image: str
    predicted_map: str = ""
    true_map: str = ""
    resembles: str = ""
    similarity: float | None = None
    resembling_map: str = ""


@dataclass(frozen=True)
class NearMiss:
    """An image that is right by a small margin, the other class of the pair second.

    Attributes:
        margin: probability of its class minus that of the other one.
        image: key of its picture.
        other_map: key of the picture with the map of the other class; empty without maps.
    """

    path: str
    margin: float
    image: str
    other_map: str = ""


@dataclass(frozen=True)
class Trait:
    """Where the evidence for the wrong class lies, in mistaken images against correct ones of the same true class.

    Attributes:
        name: key of `false_associations.TRAITS`.
        mistaken: mean over mistaken images.
        correct: mean over correct ones.
        difference: their difference in standard deviations of the correct ones; None where those are all alike.
        p_value: two-sided, of a permutation test, times the number of traits as Holm has it.
    """

    name: str
    mistaken: float
    correct: float
    difference: float | None
    p_value: float


@dataclass(frozen=True)
class ConfusedPair:
    """One class taken for another.

    Attributes:
        count: judged images of `true` taken for `predicted`.
        images: judged images of `true`.
        runners_up: images of `true` that are right with `predicted` second.
        training_true, training_predicted: training images of the two classes.
        mistakes: some of the mistaken images, the most certain first.
        near: correct images of `true` nearest to the mistake.
        compared: mistaken and correct images that `traits` compare; fewer than needed gives no traits.
        traits: the most different first.
    """

    true: str
    predicted: str
    count: int
    images: int
    runners_up: int
    training_true: int
    training_predicted: int
    mistakes: tuple[Mistake, ...]
    near: tuple[NearMiss, ...]
    compared: tuple[int, int]
    traits: tuple[Trait, ...]


@dataclass(frozen=True)
class Suspect:
    """An image whose label the network, which has not seen it, contradicts with confidence.

    Attributes:
        suggested: the class it is taken for.
        confidence: probability of `suggested`.
        threshold: mean probability of `suggested` over the judged images with that label, which `confidence` reaches.
        image: key of its picture.
    """

    path: str
    given: str
    suggested: str
    confidence: float
    threshold: float
    given_probability: float
    image: str


@dataclass(frozen=True)
class Findings(KeptJson):
    """Everything learned from the validation images of the first fold.

    Attributes:
        epochs: the winning trial's configuration was trained for.
        training_images: it was trained on: the training images of the first fold alone.
        judged: validation images it was judged on, none of which it had seen.
        accuracy: on them, in [0, 1].
        score: on them, by the search's metric.
        trial_score: what the winning trial had reported after its last epoch, of all folds.
        confusion: counts, row = true class, column = predicted class.
        method: attribution method of the maps.
        block: whose maps the pictures show; empty without maps.
        mapped: images whose maps `measures` are means of.
        measures: by block, first to last.
        pairs: the most confused first.
        pairs_found: how many pairs were confused at least once.
        suspects: the most certain first.
        suspects_found: how many there are in all.
        seconds: that training and examining took.
        notes: what the reader should know, a sentence each.
        pictures: key -> JPEG in base64.
        training: training images of each class; empty of findings that were kept before these were counted.
        blocks: names of the network's L blocks, first to last; likewise.
    """

    slot: int
    epochs: int
    training_images: int
    judged: int
    accuracy: float
    score: float
    trial_score: float
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    method: str
    block: str
    mapped: int
    measures: tuple[BlockMeasures, ...]
    pairs: tuple[ConfusedPair, ...]
    pairs_found: int
    suspects: tuple[Suspect, ...]
    suspects_found: int
    seconds: float
    notes: tuple[str, ...]
    pictures: Mapping[str, str]
    training: tuple[int, ...] = ()
    blocks: tuple[str, ...] = ()
