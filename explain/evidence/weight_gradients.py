"""Gradient of the loss with respect to the weights of each block, relative to the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.hooks import frozen_in_eval_mode, named_modules

__all__ = ["relative_gradient_norms"]


def relative_gradient_norms(
    model: nn.Module,
    blocks: Sequence[str],
    images: Tensor,
    labels: Tensor,
    chosen: Tensor,
    *,
    permutations: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """||g|| / ||theta|| by block, g the gradient of the mean cross-entropy of all chosen images at once.

    Autograd's own graph is used and `.grad` is not touched. Gradients are summed over batches before the norm is taken,
    so the batch size does not matter; memory is 1 + P times that of the blocks' weights.

    Args:
        model: Network from images to logits (N, K).
        images: (N, C, H, W).
        labels: True classes, (N,).
        chosen: Which images, bool, (N,).
        permutations: P, how many permutations of the chosen images' labels are measured too.

    Returns:
        Ratios >= 0, float64, (1 + P, L), the true labels' first; NaN for a block without parameters or with none but
        zeros.
    """
    numbers = chosen.nonzero()[:, 0]
    truth = labels[numbers]
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(truth), generator=generator) for _ in range(permutations)]
    targets = torch.stack([truth, *(truth[order] for order in orders)])
    members = [list(module.parameters()) for module in named_modules(model, blocks).values()]
    parameters = [parameter for group in members for parameter in group]
    norms = torch.full((1 + permutations, len(blocks)), math.nan, dtype=torch.float64)
    if not parameters:
        return norms
    sums = [[torch.zeros_like(parameter) for parameter in parameters] for _ in targets]
    with frozen_in_eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad = True
        for start in range(0, len(numbers), batch_size):
            columns = slice(start, start + batch_size)
            batch = images[numbers[columns].to(images.device)].to(parameters[0].device)
            logits = model(batch.clone() if batch.is_inference() else batch.detach()).float()
            for row, wanted in enumerate(targets[:, columns]):
                loss = functional.cross_entropy(logits, wanted.to(logits.device), reduction="sum") / len(numbers)
                found = torch.autograd.grad(loss, parameters, retain_graph=row < permutations, allow_unused=True)
                for total, one in zip(sums[row], found, strict=True):
                    if one is not None:
                        total += one
    for row, totals in enumerate(sums):
        rest = iter(totals)
        for place, group in enumerate(members):
            gradient = _norm([next(rest) for _ in group])
            weight = _norm([parameter.detach() for parameter in group])
            norms[row, place] = gradient / weight if weight > 0 else math.nan
    return norms


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))
