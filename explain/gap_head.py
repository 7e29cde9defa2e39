"""Heads of global average pooling and a linear layer: a network's own, and one trained for a block that has none.

CAM is drawn from either. The second is a multinomial regression on pooled features: convex, so training it needs no
seed and gives the same head every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.hooks import frozen_in_eval_mode, observing
from explain.measures.measure import check_integer

__all__ = ["own_gap_heads", "pooled_features", "train_gap_head"]

_PENALTY = 1e-3
_ITERATIONS = 500  # at most


def own_gap_heads(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> dict[str, str]:
    """Blocks that the model itself follows by global average pooling and a linear layer, and nothing else.

    There the logits are that layer applied to the pooled block output, which is what is tested.

    Args:
        images: Batch that it takes, of which no two have the same logits, (N, C, H, W), N >= 2; noise will do.
        blocks: Names of modules with output (N, C, h, w) that run once a forward pass.

    Returns:
        Name of the linear layer by name of the block; blocks without such a head are left out.

    Raises:
        ValueError: A block that is unknown, is not spatial or does not run exactly once.
    """
    pooled, logits = _pooled_and_logits(model, images, blocks)
    spread = float((logits - logits[:1]).abs().max())
    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or layer.out_features != logits.shape[1] or not spread > 0:
            continue
        for block in blocks:
            if pooled[block].shape[1] == layer.in_features:
                with torch.no_grad():
                    own = layer(pooled[block].to(layer.weight.dtype))
                # Half precision and another order of summing round; another head is off by the spread of the logits.
                if float((own - logits).abs().max()) < 1e-2 * spread:
                    found[block] = name
    return found


def pooled_features(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> dict[str, Tensor]:
    """Means over positions of the outputs of several blocks, from one forward pass in eval mode.

    Args:
        model: Network that holds the blocks; modes, flags and hooks stay as they were.
        images: Batch that it takes, (N, C, H, W).
        blocks: Names of modules with output (N, C, h, w) that run once a forward pass, else a ValueError.

    Returns:
        Features (N, C) by name of the block, float32.
    """
    return _pooled_and_logits(model, images, blocks)[0]


def _pooled_and_logits(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    seen: dict[str, list[Tensor]] = {name: [] for name in blocks}

    def keep(name: str, _: nn.Module, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"block {name!r} must put out a tensor (N, C, h, w)")
        seen[name].append(output.float().mean(dim=(2, 3)))

    with torch.no_grad(), frozen_in_eval_mode(model), observing(model, blocks, keep):
        logits: Tensor = model(images)
    for name, found in seen.items():
        if len(found) != 1:
            raise ValueError(f"block {name!r} must run once a forward pass, got {len(found)} times")
    return {name: found[0] for name, found in seen.items()}, logits


def train_gap_head(pooled: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Fit a linear layer on pooled features of labelled images, as the thesis did to draw CAM.

    Minimises mean cross-entropy + 0.001 / 2 |W|^2, which keeps separable data finite, by L-BFGS in float64 on features
    scaled to unit variance, from zero; the scaling is then folded into the layer.

    Args:
        pooled: Means over positions of a block's output, (N, C), as of `pooled_features`.
        labels: Class indices, int64, (N,).
        classes: K, the number of classes; some may be absent from the labels.

    Returns:
        Layer from C channels to K classes, which `explain.attribution.cam` takes; float32, on the device of `pooled`.

    Raises:
        ValueError: Labels outside 0..K-1 or not N, or fewer than two classes.
        TypeError: Labels or a number of classes that are no integers.
    """
    check_integer("classes", classes, 2)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {labels.dtype}")
    if labels.shape != (len(pooled),) or pooled.ndim != 2:
        raise ValueError(f"pooled must be (N, C) with N = {len(labels)}, got {tuple(pooled.shape)}")
    if (labels < 0).any() or (labels >= classes).any():
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    if (labels == labels[0]).all():
        raise ValueError(f"labels must hold at least two classes, got only class {int(labels[0])}")
    rows = pooled.double()
    shift, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    weight, bias = _regression((rows - shift) / scale, labels.to(rows.device).long(), classes)
    weight = weight / scale
    linear = nn.Linear(rows.shape[1], classes).to(rows.device)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias - weight @ shift)
    return linear


def _regression(rows: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (K, C) and biases (K,) of the penalised multinomial regression, float64."""
    with torch.inference_mode(False), torch.enable_grad():
        rows, labels = rows.clone(), labels.clone()
        weight = torch.zeros(classes, rows.shape[1], dtype=rows.dtype, device=rows.device, requires_grad=True)
        bias = torch.zeros(classes, dtype=rows.dtype, device=rows.device, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_ITERATIONS,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = functional.cross_entropy(rows @ weight.T + bias, labels) + _PENALTY / 2 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
