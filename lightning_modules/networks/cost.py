"""How much arithmetic each block is, counted and not timed: the unit in which trials at different depths compare."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks.blocknet import BlockNet

__all__ = ["block_flops", "epoch_equivalents"]


def block_flops(net: BlockNet, size: tuple[int, int]) -> tuple[int, ...]:
    """Floating-point operations of one image's forward pass through each block, and through the head (last)."""
    training = net.training
    counts: list[int] = []
    try:
        net.eval()
        with torch.no_grad():
            activations = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), 0)
            for part in (*net.blocks, net.head):
                with FlopCounterMode(display=False) as counter:
                    activations = part(activations)
                counts.append(counter.get_total_flops())
    finally:
        net.train(training)
    return tuple(counts)


def epoch_equivalents(flops: tuple[int, ...], freeze_depth: int, epochs: float) -> float:
    """Epochs of training everything that `epochs` at this freeze depth cost, the frozen prefix being cached.

    `epochs * F_suffix / F`, F being the forward operations of `block_flops`.
    """
    return epochs * sum(flops[freeze_depth:]) / sum(flops)
