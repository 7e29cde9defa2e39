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
`weight_randomisation` and `label_randomisation` check that a method shows the model and not the image; `train_gap_head`
fits what CAM is drawn from where a network has no pooling and linear layer of its own; `explain_superpixels` is LIME.

Importing this package loads neither torch nor anything else that is slow; the first use of a name does. The names stand
in `__init__.pyi`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
