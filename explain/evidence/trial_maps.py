"""What the statistics of a running trial read: its answers to some images and their mirror images, from one pass.

A statistic (`TRIAL_STATISTICS`) is a number of one trial at one moment. It is compared with those of other trials of
the same network at the same epoch, so what the network itself does to maps cancels.

Shapes: N images, K classes, B compared blocks; block b has maps of h x w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from explain.attribution import finite_maps, gradcam
from explain.evidence.masked_drops import shuffled_cells
from explain.hooks import frozen_in_eval_mode
from explain.measures.faithfulness import drop_from
from explain.measures.measure import dead, share_of_max
from explain.signals import capture

__all__ = ["TrialMaps", "gather_trial_maps"]


@dataclass(frozen=True, eq=False)
class TrialMaps:
    """One trial's answers; maps are Grad-CAM's of the true class, float32, non-negative, on the CPU.

    Attributes:
        blocks: names of the B compared blocks, the deepest last.
        maps: (N, h, w) by block.
        mirrored: those of the mirror images, mirrored back, (N, h, w) by block.
        probabilities: of the images, then of their mirror images, float64, (2, N, K).
        drops: Average Drop of the true class where a block's output is multiplied by its map, then by the map with its
            cells shuffled, float64, (B, 2, N); NaN for a dead map, and for one of a single cell.
    """

    blocks: tuple[str, ...]
    maps: tuple[Tensor, ...]
    mirrored: tuple[Tensor, ...]
    probabilities: Tensor
    drops: Tensor


@torch.no_grad()
@torch.inference_mode(False)
def gather_trial_maps(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    blocks: Sequence[str],
    tails: Sequence[Callable[[Tensor], Tensor]],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> TrialMaps:
    """One forward and one backward pass of 2 N images, then 2 B passes of N block outputs to the logits.

    Everything runs in eval mode; modes, flags, `.grad`, running statistics and hooks are afterwards what they were.
    No random generator of torch's own is used.

    Args:
        model: from `inputs` to logits; it may begin behind the first blocks of a network.
        inputs: what the model takes, of N images and then of their mirror images (left to right), (2 N, C, H, W).
        labels: true classes of the N images, integers, (N,).
        blocks: names of the B modules whose output (2 N, c, h, w) is explained, the deepest last.
        tails: by block, from its output to the logits.
        names: what the blocks are called; None is `blocks`.
        seed: of the shuffled cells.

    Raises:
        ValueError: sizes that do not fit, and what `explain.signals.capture` refuses.
    """
    count = len(labels)
    if len(inputs) != 2 * count or len(tails) != len(blocks):
        raise ValueError(
            f"inputs must be 2 x {count} images and tails one a block, got {len(inputs)} inputs and {len(tails)} tails "
            f"for {len(blocks)} blocks"
        )
    captured = capture(model, inputs, blocks, torch.cat([labels, labels]).to(inputs.device))
    probabilities = captured.logits.double().softmax(1)
    before = probabilities[:count].gather(1, labels.to(inputs.device)[:, None])[:, 0].cpu()
    drops = torch.full((len(blocks), 2, count), math.nan, dtype=torch.float64)
    plain, mirrored = [], []
    with frozen_in_eval_mode(model):
        for place, (signals, tail) in enumerate(zip(captured, tails, strict=True)):
            maps = finite_maps(gradcam(signals)).detach()
            plain.append(maps[:count].cpu())
            mirrored.append(maps[count:].flip(-1).cpu())
            if maps.shape[1] * maps.shape[2] == 1:
                continue
            shuffled = shuffled_cells(plain[-1], list(range(count)), seed=seed * len(blocks) + place)
            alive = ~dead(plain[-1])
            for row, shown in enumerate((plain[-1], shuffled)):
                mask = share_of_max(shown).to(signals.activations)[:, None]
                logits = tail(signals.activations[:count] * mask).double().cpu()
                after = logits.softmax(1).gather(1, labels.cpu()[:, None])[:, 0]
                drops[place, row] = drop_from(before, after).where(alive, torch.nan)
    return TrialMaps(
        tuple(names or blocks), tuple(plain), tuple(mirrored), probabilities.cpu().view(2, count, -1), drops
    )
