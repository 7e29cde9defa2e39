"""Freeze depth: which leading blocks keep their weights and batch-norm statistics, and what training the rest costs.

Cost is counted in operations, not timed: the unit in which trials at different depths compare.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from explain.hooks import frozen_in_eval_mode
from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet

__all__ = ["block_flops", "check_freeze_depth", "epoch_equivalents", "freeze", "stored_bytes"]


def check_freeze_depth(net: BlockNet, freeze_depth: int) -> None:
    """Refuse a freeze depth the network cannot have.

    Raises:
        InputError: outside 0..L, behind an attention branch, or above 0 on a network with random weights (frozen noise
            learns nothing).
    """
    if not 0 <= freeze_depth <= net.deepest:
        branch = f" with an attention branch behind {net.attention_block}" if net.attention_block else ""
        raise InputError(f"freeze_depth must be in 0..{net.deepest} for {net.architecture}{branch}, got {freeze_depth}")
    if freeze_depth and not net.pretrained:
        raise InputError(f"freeze_depth must be 0 for {net.architecture} with random weights, got {freeze_depth}")


def freeze(net: BlockNet, freeze_depth: int) -> None:
    """Freeze the first `freeze_depth` blocks and thaw the rest.

    Frozen means: no weight receives a gradient and batch-norm stays in eval mode through every later
    `net.train()`. Call it before the optimizer is built from the parameters that require gradients.

    Raises as `check_freeze_depth` does.
    """
    check_freeze_depth(net, freeze_depth)
    training = net.training
    net.freeze_depth = freeze_depth
    for position, block in enumerate(net.blocks):
        block.requires_grad_(position >= freeze_depth)
    net.head.requires_grad_(True)
    net.train(training)


def block_flops(net: BlockNet, size: tuple[int, int]) -> tuple[int, ...]:
    """Floating-point operations of one image's forward pass through each block, and through the head (last)."""
    counts: list[int] = []
    with torch.no_grad(), frozen_in_eval_mode(net):
        activations = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), 0)
        for part in (*net.blocks, net.head):
            with FlopCounterMode(display=False) as counter:
                activations = part(activations)
            counts.append(counter.get_total_flops())
    return tuple(counts)


@torch.inference_mode(False)
def stored_bytes(net: BlockNet, size: tuple[int, int], freeze_depth: int) -> int:
    """Bytes that one image's forward pass behind this freeze depth keeps in float32 for the backward pass."""
    weights = {tensor.data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}  # alive, so that no two have one place

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with frozen_in_eval_mode(net), saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.no_grad():
            activations = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), freeze_depth)
        for part in (*net.blocks[freeze_depth:], net.head):
            part.requires_grad_(True)
        with torch.enable_grad():
            net.suffix(activations, freeze_depth)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def epoch_equivalents(
    flops: tuple[int, ...], freeze_depth: int, epochs: float, *, unit: tuple[int, ...] | None = None
) -> float:
    """Epochs of training everything that `epochs` at this freeze depth cost, the frozen prefix being cached.

    `epochs * F_suffix / F`, F being the forward operations of `block_flops`.

    Args:
        unit: operations of the network whose epochs are the unit; None is this one.
    """
    return epochs * sum(flops[freeze_depth:]) / sum(flops if unit is None else unit)
