"""What the search bought: the winner beside the default trial, refitted alike, on the same test images.

Trial 0 is what one would have trained without a search. Both answer the test images in one reading, and neither is
chosen by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from search.significance import macro_f1_draws, paired_interval

__all__ = ["DEFAULT_SLOT", "Bought", "bought"]

DEFAULT_SLOT = 0
_RESAMPLES = 2000


@dataclass(frozen=True)
class Bought:
    """The winner minus the default trial, on N test images.

    Attributes:
        images: N.
        gained: images that the winner alone has right.
        lost: images that the default trial alone has right.
        accuracy: of the default trial; `accuracy_interval` is that of the difference (95 %, Tango's for paired shares).
        accuracy_gain: difference in accuracy, (gained - lost) / N.
        macro_f1: of the default trial; `macro_f1_interval` is that of the difference (95 %, paired bootstrap).
        macro_f1_gain: difference in macro F1.
    """

    images: int
    gained: int
    lost: int
    accuracy: float
    accuracy_gain: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_f1_gain: float
    macro_f1_interval: tuple[float, float]

    def metrics(self) -> dict[str, float]:
        """Its numbers as MLflow keeps them."""
        found = {"default_test_accuracy": self.accuracy, "default_test_macro_f1": self.macro_f1}
        for name, gain, (low, high) in (
            ("accuracy", self.accuracy_gain, self.accuracy_interval),
            ("macro_f1", self.macro_f1_gain, self.macro_f1_interval),
        ):
            found |= {f"bought_{name}": gain, f"bought_{name}_low": low, f"bought_{name}_high": high}
        return found | {"bought_gained": float(self.gained), "bought_lost": float(self.lost)}

    def describe(self) -> str:
        """One line for people."""
        low, high = (100 * end for end in self.accuracy_interval)
        return (
            f"The search bought {100 * self.accuracy_gain:+.1f} points of accuracy over the default trial "
            f"(95 %: {low:+.1f} to {high:+.1f}): of {self.images} test images {self.gained} are right that it has "
            f"wrong, {self.lost} the other way round."
        )


def bought(labels: Tensor, default: Tensor, winner: Tensor, classes: int, seed: int) -> Bought:
    """Compare the answers of two networks.

    Args:
        labels: (N,) true classes.
        default: (N, C) logits of the default trial's network.
        winner: (N, C) logits of what is delivered.
        classes: C.
        seed: of the bootstrap.
    """
    truth, one, other = (part.cpu().numpy() for part in (labels, default.argmax(1), winner.argmax(1)))
    gained, lost = (int(part.sum()) for part in ((other == truth) & (one != truth), (one == truth) & (other != truth)))
    (before, after), draws = macro_f1_draws(truth, one, other, classes, resamples=_RESAMPLES, seed=seed)
    low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    return Bought(
        images=len(truth),
        gained=gained,
        lost=lost,
        accuracy=float((one == truth).mean()),
        accuracy_gain=(gained - lost) / len(truth),
        accuracy_interval=paired_interval(gained, lost, len(truth)),
        macro_f1=before,
        macro_f1_gain=after - before,
        macro_f1_interval=(low, high),
    )
