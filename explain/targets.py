"""Which class of which image is explained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Target", "resolve_target"]

Target = str | int | Sequence[int] | Sequence[str] | Tensor


def resolve_target(target: Target, logits: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
    """Turn a wish ("predicted", an index, a name, or one per image) into a class index per image.

    Args:
        target: "predicted" (arg-max of the logits), a class index or name for all images, or N of them.
        logits: Outputs of the model, (N, K).
        class_names: The K class names; needed only where `target` uses names.

    Returns:
        Class indices, int64, (N,), on the device of the logits.

    Raises:
        ValueError: Index outside 0..K-1, unknown name, or a number of targets other than N.
        TypeError: Anything that is neither a name nor an integer.
    """
    count, classes = logits.shape
    if class_names is not None and len(class_names) != classes:
        raise ValueError(f"class_names must hold one name for each of the {classes} logits, got {len(class_names)}")
    if isinstance(target, str) and target == "predicted":
        return logits.detach().argmax(dim=1)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target must hold integer class indices, got a tensor of {target.dtype}")
        indices = target.detach().to(device=logits.device, dtype=torch.int64)
        indices = indices.expand(count) if indices.ndim == 0 else indices
    elif isinstance(target, str | int):
        indices = torch.full((count,), _index(target, class_names), device=logits.device)
    elif isinstance(target, Sequence):
        indices = torch.tensor([_index(one, class_names) for one in target], dtype=torch.int64, device=logits.device)
    else:
        raise TypeError(f"target must be 'predicted', a class index or name, or one per image, got {target!r}")
    if indices.shape != (count,):
        raise ValueError(f"target must give one class for each of the {count} images, got shape {tuple(indices.shape)}")
    outside = indices[(indices < 0) | (indices >= classes)]
    if len(outside):
        raise ValueError(f"target must be a class index in 0..{classes - 1}, got {int(outside[0])}")
    return indices


def _index(target: object, class_names: Sequence[str] | None) -> int:
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise TypeError(f"target must be an integer class index or a class name, got {target!r}")
    if isinstance(target, int):
        return target
    if class_names is None:
        raise ValueError(f"target {target!r} is a class name: give class_names too, or a class index, or 'predicted'")
    if target not in class_names:
        raise ValueError(f"target must be 'predicted' or one of {', '.join(class_names)}, got {target!r}")
    return list(class_names).index(target)
