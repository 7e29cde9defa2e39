"""What the model says of the images, and of the images seen through their maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.attribution import upsample
from explain.measures.measure import checked_maps, share_of_max

__all__ = ["Predict", "checked_probabilities", "class_probabilities", "masked_images", "masked_probabilities"]

Predict = Callable[[Tensor], Tensor]
"""From images (N, C, H, W) to class probabilities (N, K)."""


def checked_probabilities(predict: Predict, images: Tensor) -> Tensor:
    """Probabilities (N, K) of images (N, C, H, W), without building a graph.

    Raises:
        ValueError: `predict` returns another shape or values outside [0, 1] (logits, say).
    """
    with torch.no_grad():
        probabilities = predict(images)
    if not isinstance(probabilities, Tensor) or probabilities.ndim != 2 or len(probabilities) != len(images):
        got = tuple(probabilities.shape) if isinstance(probabilities, Tensor) else type(probabilities).__name__
        raise ValueError(f"predict must return probabilities (N, K) with N = {len(images)}, got {got}")
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all():
        raise ValueError("predict must return probabilities in [0, 1], not logits: wrap the model in a softmax")
    return probabilities


def class_probabilities(predict: Predict, images: Tensor, targets: Tensor) -> Tensor:
    """Probability of each image's target class, float64, (N,), without building a graph.

    Raises:
        ValueError: What `checked_probabilities` refuses; targets out of range.
    """
    probabilities = checked_probabilities(predict, images)
    if targets.shape != (len(images),) or targets.is_floating_point():
        raise ValueError(f"targets must be {len(images)} class indices, got {targets.dtype} {tuple(targets.shape)}")
    classes = probabilities.shape[1]
    if (targets < 0).any() or (targets >= classes).any():
        raise ValueError(f"targets must be class indices in 0..{classes - 1}, got {targets.tolist()}")
    return probabilities.double().gather(1, targets.to(probabilities.device)[:, None])[:, 0]


def masked_images(maps: Tensor, images: Tensor) -> Tensor:
    """Images times their up-sampled maps M / max M, (N, C, H, W).

    The product is taken in the space of `images`: where that is normalised by mean and standard deviation, masked
    pixels fade to the mean colour.

    Raises:
        ValueError: Other than as many maps (N, h, w) as images (N, C, H, W).
    """
    if images.ndim != 4 or len(maps) != len(images):
        raise ValueError(
            f"maps (N, h, w) and images (N, C, H, W) must be of one number, got {tuple(maps.shape)} and "
            f"{tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    mask = upsample(share_of_max(checked_maps(maps)), (height, width))
    return images * mask[:, None].to(images)


def masked_probabilities(maps: Tensor, images: Tensor, targets: Tensor, predict: Predict) -> tuple[Tensor, Tensor]:
    """Y and Y_E: probability of the target class on the image, and on the image times its map.

    Call it once and pass the pair on where several measures are wanted. Arguments as for `average_drop`; float64, (N,)
    each.
    """
    masked = masked_images(maps, images)
    return class_probabilities(predict, images, targets), class_probabilities(predict, masked, targets)
