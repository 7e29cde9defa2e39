"""Class activation maps that can be trained on: Grad-CAM of the true class as a differentiable function.

Shapes: N images, C channels of the block's output A at h x w positions, L blocks. Everything is computed in float32
also under autocast (float64 where A is): the entropy of a map divides by its sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explain.hooks import BatchNorm
from lightning_modules.networks.blocknet import BlockNet, final_linear

__all__ = ["gap_linear", "gap_maps", "gradient_maps"]


def gap_linear(net: BlockNet, activations: Tensor) -> nn.Linear | None:
    """The head's linear layer if the head is global average pooling and that layer and nothing else.

    Asked of the head itself: on made-up activations its logits are those of pooling and the layer. Of `activations`,
    the output (N, C, h, w) of the last block, only shape, type and device are used.
    """
    linear = final_linear(net.head)
    if linear is None or linear.in_features != activations.shape[1]:
        return None
    weight = linear.weight
    count = activations[0].numel()
    # Values of both signs, no two alike: another pooling, or an activation behind it, gives other logits.
    probe = (
        torch.linspace(-1, 1, count, dtype=weight.dtype, device=weight.device)
        .roll(count // 3)
        .view(activations[:1].shape)
    )
    with torch.no_grad(), _as_in_evaluation([net.head]), torch.autocast(probe.device.type, enabled=False):
        own, pooled = net.head(probe), linear(probe.mean((2, 3)))
    return linear if torch.allclose(own, pooled, rtol=1e-3, atol=1e-5 * float(1 + own.abs().max())) else None


def gap_maps(activations: Tensor, labels: Tensor, linear: nn.Linear) -> Tensor:
    """M = ReLU(sum_k W_ck A_k) of the true class c behind global average pooling and a linear layer.

    That is Grad-CAM but for the factor 1 / (h w), since there d y_c / d A_k = W_ck / (h w) at every position: a
    product of A and W, whose gradient is one more term in the ordinary backward pass of the head.

    A (N, C, h, w) of the last block and true classes (N,) give maps (N, h, w); for `linear` see `gap_linear`.
    """
    A = _in_full_precision(activations)
    with torch.autocast(A.device.type, enabled=False):
        return _weighted_sum(linear.weight.to(A.dtype)[labels], A)


def gradient_maps(
    net: BlockNet, activations: Tensor, labels: Tensor, block: int, *, create_graph: bool = True
) -> Tensor:
    """M = ReLU(sum_k a_k A_k) with a_k = mean over positions of d y_c / d A_k, from the logit y_c of the true class c.

    What follows the block is run a second time, as it is in evaluation (without dropout), and differentiated with a
    graph of its own, so the double backward goes through that part alone. Batch-norm in train mode normalises by the
    batch in both passes, but here the batch's statistics are constants: otherwise the gradient of one image's logit
    would be spread over all images, and would have mean zero in each channel right before such a layer.

    Args:
        activations: A of block `block`, (N, C, h, w).
        labels: true classes, (N,).
        block: 0..L-1.
        create_graph: whether the maps, (N, h, w), can be differentiated.
    """
    A = _in_full_precision(activations)
    if not (A.requires_grad and create_graph):
        A = A.detach().requires_grad_()
    behind = [*net.blocks[block + 1 :], net.head]
    with torch.enable_grad(), torch.autocast(A.device.type, enabled=False), _as_in_evaluation(behind):
        logits = net.suffix(A.clone(), block + 1)  # a copy: what follows may start with an operation in place
        chosen = logits.gather(1, labels[:, None]).sum()
        (G,) = torch.autograd.grad(chosen, A, create_graph=create_graph)
        maps = _weighted_sum(G.mean((2, 3)), A)
    return maps if create_graph else maps.detach()


def _weighted_sum(weights: Tensor, A: Tensor) -> Tensor:
    return F.relu(torch.einsum("nc,nchw->nhw", weights, A))


def _in_full_precision(activations: Tensor) -> Tensor:
    return activations if activations.dtype == torch.float64 else activations.float()


@contextmanager
def _as_in_evaluation(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode, with batch-norm layers that were in train mode normalising by their batch as by a constant."""
    modes = [(module, module.training) for part in parts for module in part.modules()]
    norms = [m for m, training in modes if isinstance(m, BatchNorm) and training and m.track_running_stats]
    kept = [(norm, norm.running_mean, norm.running_var) for norm in norms]

    def use_batch(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            norm.running_var, norm.running_mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)

    hooks = [norm.register_forward_pre_hook(use_batch) for norm in norms]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, mean, variance in kept:
            norm.running_mean, norm.running_var = mean, variance
        for module, training in modes:
            module.training = training
