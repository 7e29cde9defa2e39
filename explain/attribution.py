"""Class activation maps of every block: from the same activations A and gradients G come all variants.

Every map is non-negative, float32, at the block's native resolution (N, h, w), and explains the pre-softmax logit of
the chosen class. It is not scaled: `explain.measures` and figures do that as each of them needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.signals import BlockSignals, capture
from explain.targets import Target

__all__ = [
    "METHODS",
    "activation",
    "block_maps",
    "cam",
    "finite_maps",
    "gradcam",
    "gradcampp",
    "hirescam",
    "layercam",
    "upsample",
    "xgradcam",
]


def gradcam(signals: BlockSignals) -> Tensor:
    """Grad-CAM: M = ReLU(sum_k a_k A_k) with a_k = mean over positions of G_k.

    In shallow blocks the average of sign-changing gradients degenerates to an edge map: prefer LayerCAM or HiResCAM.

    Selvaraju et al. 2017, arXiv 1610.02391. Returns (N, h, w).
    """
    return _weighted_sum(signals.gradients.float().mean(dim=(2, 3)), signals)


def layercam(signals: BlockSignals) -> Tensor:
    """LayerCAM: M = ReLU(sum_k ReLU(G_k) A_k), position by position.

    Jiang et al. 2021, doi 10.1109/TIP.2021.3089943. Returns (N, h, w).
    """
    return _pointwise_sum(signals.gradients.float().clamp_min(0), signals)


def hirescam(signals: BlockSignals) -> Tensor:
    """HiResCAM: M = ReLU(sum_k G_k A_k), position by position.

    Draelos and Carin 2020, arXiv 2011.08891. Returns (N, h, w).
    """
    return _pointwise_sum(signals.gradients.float(), signals)


def xgradcam(signals: BlockSignals) -> Tensor:
    """XGrad-CAM: M = ReLU(sum_k a_k A_k) with a_k = sum(G_k A_k) / sum A_k over positions.

    A channel whose activations sum to zero gets weight zero; the definition has no value there.

    Fu et al. 2020, arXiv 2008.02312. Returns (N, h, w).
    """
    A, G = signals.activations.float(), signals.gradients.float()
    return _weighted_sum(_ratio((G * A).sum(dim=(2, 3)), A.sum(dim=(2, 3))), signals)


def gradcampp(signals: BlockSignals) -> Tensor:
    """Grad-CAM++: M = ReLU(sum_k a_k A_k) with a_k = sum over positions of alpha ReLU(G_k).

    alpha = G^2 / (2 G^2 + S G^3) = 1 / (2 + S G) with S = sum over positions of A_k, and 0 where that is infinite.
    The definition assumes activations that are not negative; on others alpha may change sign.

    Chattopadhyay et al. 2018, arXiv 1710.11063. Returns (N, h, w).
    """
    A, G = signals.activations.float(), signals.gradients.float()
    alpha = _ratio(torch.ones_like(G), 2 + A.sum(dim=(2, 3), keepdim=True) * G)
    return _weighted_sum((alpha * G.clamp_min(0)).sum(dim=(2, 3)), signals)


def activation(signals: BlockSignals) -> Tensor:
    """The gradient-free control: M = mean over channels of |A|; it does not depend on the class.

    If it scores as well as the other methods, gradients add nothing. Returns (N, h, w).
    """
    return signals.activations.float().abs().mean(dim=1)


def cam(signals: BlockSignals, head: nn.Linear) -> Tensor:
    """CAM: M = ReLU(sum_k W_ck A_k), for a block followed by global average pooling and a linear layer.

    The block's own head, or one trained on it (`explain.gap_head`). Equals Grad-CAM and HiResCAM up to a factor where
    the head is the model's own.

    Zhou et al. 2016, arXiv 1512.04150.

    Args:
        signals: Signals of the block; the gradients are not used.
        head: Linear layer from the block's C channels to the K classes.

    Returns:
        Map of each image's target class, (N, h, w).

    Raises:
        TypeError: `head` is not an `nn.Linear`.
        ValueError: `head` takes another number of channels, or lacks the target class.
    """
    if not isinstance(head, nn.Linear):
        raise TypeError(f"head must be an nn.Linear, got {type(head).__name__}")
    channels = signals.activations.shape[1]
    if head.in_features != channels:
        raise ValueError(
            f"head must take the {channels} channels of block {signals.block!r}, got in_features {head.in_features}"
        )
    highest = int(signals.targets.max())
    if highest >= head.out_features:
        raise ValueError(f"head must know target class {highest}, got out_features {head.out_features}")
    return _weighted_sum(head.weight.detach().float()[signals.targets], signals)


METHODS: Mapping[str, Callable[[BlockSignals], Tensor]] = MappingProxyType(
    {
        "gradcam": gradcam,
        "layercam": layercam,
        "hirescam": hirescam,
        "xgradcam": xgradcam,
        "gradcampp": gradcampp,
        "activation": activation,
    }
)
"""Methods by name; each takes the signals of a block and returns its maps (N, h, w)."""


def block_maps(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[str],
    target: Target = "predicted",
    *,
    method: str = "gradcam",
    class_names: Sequence[str] | None = None,
    autocast: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """Maps of all named blocks by one method, in one forward and one backward pass.

    For several methods from the same pass call `capture` once and the functions of `METHODS` on its blocks.

    Args:
        model: Network from images to logits (N, K).
        images, blocks, target, class_names, autocast: As `explain.signals.capture` takes them.

    Returns:
        Maps (N, h, w), float32 and non-negative, by block name.

    Raises:
        ValueError: Unknown method, and whatever `capture` refuses.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> maps = block_maps(model, torch.rand(2, 3, 8, 8), ["0", "1"], target=3, method="layercam")
        >>> maps["1"].shape
        torch.Size([2, 6, 6])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    captured = capture(model, images, blocks, target, class_names=class_names, autocast=autocast)
    return {signals.block: METHODS[method](signals) for signals in captured}


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring floating-point maps (N, h, w) to the resolution (H, W) of their images, bilinearly: (N, H, W).

    Raises:
        ValueError: Maps that are not (N, h, w) or a size below 1.
    """
    if maps.ndim != 3 or not maps.is_floating_point():
        raise ValueError(f"maps must be floating point of shape (N, h, w), got {maps.dtype} {tuple(maps.shape)}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1 x 1, got {size}")
    if maps.shape[1:] == (height, width):
        return maps
    return functional.interpolate(maps[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def finite_maps(maps: Tensor) -> Tensor:
    """The maps (N, h, w), with zeros for each that holds NaN or infinity (a diverged network)."""
    finite = maps.isfinite().all(dim=2).all(dim=1)
    return torch.where(finite[:, None, None], maps, 0.0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0."""
    return (numerator / denominator).masked_fill(denominator == 0, 0)


def _weighted_sum(weights: Tensor, signals: BlockSignals) -> Tensor:
    """ReLU(sum_k a_k A_k) from weights (N, C), as one matrix product per image instead of a scaled copy of A."""
    # A caller's autocast would round the maps to half precision here.
    with torch.autocast(weights.device.type, enabled=False):
        return torch.einsum("nc,nchw->nhw", weights, signals.activations.float()).clamp_min(0)


def _pointwise_sum(weights: Tensor, signals: BlockSignals) -> Tensor:
    """ReLU(sum_k w_k A_k) from weights (N, C, h, w)."""
    return (weights * signals.activations.float()).sum(dim=1).clamp_min(0)
