"""How long a trial of a given freeze depth is trusted: what the evidence says of the two blocks it lies between.

Fixed before any result was seen. At depth k, block k is the last frozen one and block k+1 the first thawed one
(blocks 1..L). Two scorers speak about a block, both positive = freeze it:

- E2, `cam_stability`: training changes its maps little, so it may as well stay frozen, which is cheaper;
- E3, `train_validation_disagreement`: its maps on training and validation images part ways, so training it over-fits.

Each score is read above its own null, and then centred and scaled over the L blocks, since a significance null is not
an indifference point:

    x_b = value_b - null mean_b,   c_b = (x_b - mean of x) / standard deviation of x,
    g_b = mean of the c_b of E2 and E3 that are known,
    log2 trust(k) = clip(mean of (+g_k, -g_(k+1)), -1, 1).

A first thawed block that changes little or over-fits lowers trust: a deeper, cheaper freeze would do. A last frozen
block that training would change much, and that does not over-fit, lowers it as well: a shallower one would gain. Where
it is the other way round, trust rises. Depth 0 has only the second term, depth L only the first; a block of which
nothing is known leaves its term out; without either, trust is 1. Nothing here loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain.evidence.scores import Numbers
from search.evidence.calibration import standardised
from search.evidence.record import Evidence

__all__ = ["LEAST_TRUST", "MOST_TRUST", "Trust", "describe_trust", "trust_from_evidence", "trust_from_scores"]

LEAST_TRUST, MOST_TRUST = 0.5, 2.0

_SAYS = {
    "cam_stability": ("maps change little when trained", "maps change much when trained"),
    "train_validation_disagreement": ("training over-fits it", "training does not over-fit it"),
}


@dataclass(frozen=True)
class Trust:
    """Trust by freeze depth.

    Attributes:
        values: for each freeze depth 0..L, in [1/2, 2]; 1 trusts neither more nor less.
        reasons: why, for each of them; empty where nothing is known.
    """

    values: tuple[float, ...]
    reasons: tuple[str, ...]


def describe_trust(evidence: Evidence | None) -> str:
    """What a search will trust, in one line, or that it trusts all freeze depths alike."""
    trust = trust_from_evidence(evidence) if evidence is not None else None
    if trust is None:
        return (
            "No trust from evidence: nothing is known of cam_stability or train_validation_disagreement in any block."
        )
    shown = " ".join(f"{value:.2f}" for value in trust.values)
    return f"Trust in freeze depths 0..{len(trust.values) - 1}: {shown} times the share that goes on from a rung."


def trust_from_evidence(evidence: Evidence) -> Trust | None:
    """Trust by freeze depth; None where the evidence says nothing of E2 and E3 in any block."""
    unknown = np.full(len(evidence.blocks), np.nan)
    known = evidence.scorers
    scores = {name: known[name].values - known[name].null_mean if name in known else unknown for name in _SAYS}
    if not any(np.isfinite(x).any() for x in scores.values()):
        return None
    return trust_from_scores(scores, evidence.blocks)


def trust_from_scores(scores: dict[str, Numbers], blocks: tuple[str, ...]) -> Trust:
    """The formula above.

    Args:
        scores: by scorer (`cam_stability`, `train_validation_disagreement`), above its null, (L,) each, NaN = unknown.
    """
    centred = {name: standardised(x) for name, x in scores.items()}
    votes = [_mean([c[b] for c in centred.values()]) for b in range(len(blocks))]
    values, reasons = [], []
    for depth in range(len(blocks) + 1):
        terms, said = [], []
        if depth < len(blocks):
            terms.append(-votes[depth])
            said.append(_say("first thawed", depth, blocks, scores))
        if depth > 0:
            terms.append(votes[depth - 1])
            said.append(_say("last frozen", depth - 1, blocks, scores))
        mean = _mean(terms)
        values.append(1.0 if np.isnan(mean) else float(2.0 ** np.clip(mean, -1, 1)))
        reasons.append("; ".join(text for text in said if text))
    return Trust(tuple(values), tuple(reasons))


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _say(part: str, block: int, blocks: tuple[str, ...], scores: dict[str, Numbers]) -> str:
    """One block in words: each score above its null beside the mean over the blocks."""
    words = []
    for name, x in scores.items():
        if np.isfinite(x[block]):
            mean = float(x[np.isfinite(x)].mean())
            high, low = _SAYS[name]
            words.append(f"{high if x[block] > mean else low}, {x[block]:.2f} against {mean:.2f}")
    return f"{part} {blocks[block]}: {', '.join(words)}" if words else ""
