"""See and measure what every block of a convolutional network looks at.

Plain modules and tensors in; maps, numbers and figures out. All maps of all blocks come from one forward and one
backward pass (`capture`):

>>> import torch
>>> from explain import MAP_MEASURES, METHODS, capture
>>> stages = [torch.nn.Sequential(torch.nn.Conv2d(n, 4, 3), torch.nn.ReLU()) for n in (3, 4)]
>>> model = torch.nn.Sequential(*stages, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5))
>>> for signals in capture(model, torch.rand(2, 3, 16, 16), ["0", "1"], target=[3, 1]):
...     maps = METHODS["layercam"](signals)  # (N, h, w), non-negative
...     sharpness = MAP_MEASURES["ce_normalised"](maps)  # (N,), in [0, 1], NaN where a map is zero everywhere
...     print(signals.block, tuple(maps.shape), sharpness.shape)
0 (2, 14, 14) torch.Size([2])
1 (2, 12, 12) torch.Size([2])

`METHODS` holds the attribution methods, `MEASURES` what can be measured of their maps, each with formula and paper.
`weight_randomisation` and `label_randomisation` check that a method shows the model and not the image; `GapHead` draws
CAM where a network has no pooling and linear layer of its own; `explain_superpixels` is LIME.

Importing this package loads neither torch nor anything else that is slow; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ finds, for type checkers and editors
    from explain.attribution import METHODS, block_maps, cam, upsample
    from explain.gap_head import GapHead, block_features, own_gap_heads, pooled_features, train_gap_head
    from explain.measures import MAP_MEASURES, MEASURES, Measure, boxes_to_masks
    from explain.sanity import SanityResult, label_randomisation, randomised, weight_randomisation
    from explain.signals import BlockSignals, Capture, capture, spatial_blocks
    from explain.superpixels import SuperpixelExplanation, explain_superpixels, slic_segments, superpixel_stability

__all__ = [
    "MAP_MEASURES",
    "MEASURES",
    "METHODS",
    "BlockSignals",
    "Capture",
    "GapHead",
    "Measure",
    "SanityResult",
    "SuperpixelExplanation",
    "block_features",
    "block_maps",
    "boxes_to_masks",
    "cam",
    "capture",
    "explain_superpixels",
    "label_randomisation",
    "own_gap_heads",
    "pooled_features",
    "randomised",
    "slic_segments",
    "spatial_blocks",
    "superpixel_stability",
    "train_gap_head",
    "upsample",
    "weight_randomisation",
]

_HOMES = {
    "explain.attribution": ("METHODS", "block_maps", "cam", "upsample"),
    "explain.signals": ("BlockSignals", "Capture", "capture", "spatial_blocks"),
    "explain.gap_head": ("GapHead", "block_features", "own_gap_heads", "pooled_features", "train_gap_head"),
    "explain.measures": ("MAP_MEASURES", "MEASURES", "Measure", "boxes_to_masks"),
    "explain.sanity": ("SanityResult", "label_randomisation", "randomised", "weight_randomisation"),
    "explain.superpixels": (
        "SuperpixelExplanation",
        "explain_superpixels",
        "superpixel_stability",
        "slic_segments",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
