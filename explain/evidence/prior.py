"""From scores of freeze depths to a distribution over them.

Nothing here loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from explain.evidence.scores import Numbers

__all__ = ["LEAST_FLOOR", "DepthPrior", "depth_prior"]

LEAST_FLOOR = 0.2
"""Smallest eps: a wrong hint that starves the right depth costs more than a right one gains."""


@dataclass(frozen=True, eq=False)
class DepthPrior:
    """A distribution over freeze depths 0..L.

    Attributes:
        probabilities: (L+1,), each at least eps / (L+1), together 1.
        notes: What was ignored.
    """

    probabilities: Numbers
    notes: tuple[str, ...] = ()

    @property
    def mode(self) -> int:
        """The most probable depth; the deeper, cheaper one of equals."""
        reversed_ = self.probabilities[::-1]
        close = np.isclose(reversed_, reversed_.max(), rtol=1e-12, atol=0)
        return len(reversed_) - 1 - int(np.argmax(close))


def depth_prior(
    scores: ArrayLike, *, tau: float = 1.0, eps: float = LEAST_FLOOR, pi0: ArrayLike | None = None
) -> DepthPrior:
    """pi(k) = (1 - eps) softmax_k(ln pi0(k) + tau s(k)) + eps / (L+1).

    Adding a constant to s changes nothing. A depth with s(k) = NaN is one nothing is known of: it keeps its share
    pi0(k) within the softmax, and the others share the rest.

    Args:
        scores: s(k), positive = better, (L+1,), L >= 1; NaN where unknown.
        tau: How far the scores are trusted, >= 0; 0 ignores them. Scorers have different units, so each needs its own.
        eps: Share spread evenly over all depths, in [0.2, 1].
        pi0: Static prior, >= 0, (L+1,), divided by its sum; None is uniform. A depth with pi0 = 0 lives on the floor.

    Returns:
        `DepthPrior`, with a note where scores are NaN.

    Raises:
        ValueError: A length below 2 or that differs, infinite scores, or a setting out of range.

    Example:
        >>> depth_prior([0.0, 3.0, 0.0], eps=0.3).probabilities.round(3)
        array([0.132, 0.737, 0.132])
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or len(s) < 2:
        raise ValueError(f"scores must hold one number for each of at least 2 depths, got shape {s.shape}")
    if np.isinf(s).any():
        raise ValueError(f"scores must be finite, or NaN where unknown, got {s.tolist()}")
    if not (np.isfinite(tau) and tau >= 0):
        raise ValueError(f"tau must be >= 0, got {tau}")
    if not LEAST_FLOOR <= eps <= 1:
        raise ValueError(f"eps must be between {LEAST_FLOOR} and 1, got {eps}")
    start = np.ones(len(s)) if pi0 is None else np.asarray(pi0, dtype=np.float64)
    if start.shape != s.shape:
        raise ValueError(f"pi0 must hold {len(s)} probabilities, got shape {start.shape}")
    if not (np.isfinite(start) & (start >= 0)).all() or not start.sum() > 0:
        raise ValueError(f"pi0 must hold numbers >= 0, one of them > 0, got {start.tolist()}")
    start = start / start.sum()
    known = np.isfinite(s)
    posterior = start.copy()
    share = float(start[known].sum())
    if known.any() and share > 0 and tau > 0:
        with np.errstate(divide="ignore"):
            logits = np.log(start[known]) + tau * s[known]
        weights = np.exp(logits - logits.max())
        posterior[known] = share * weights / weights.sum()
    mixed = (1 - eps) * posterior + eps / len(s)
    unknown = ", ".join(str(k) for k in np.flatnonzero(~known))
    notes = (f"no score for freeze depth {unknown}: it keeps its share of the static prior",) if unknown else ()
    return DepthPrior(mixed / mixed.sum(), notes)
