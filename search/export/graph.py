"""The whole model as one network: from pixels to everything that a decision needs.

N images, K classes, D features, (h, w) positions of the last block, R reference images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.decisions.reference_images import NEIGHBOURS, SHOWN
from lightning_modules.networks.blocknet import final_linear
from lightning_modules.networks.model_file import TrainedModel
from lightning_modules.networks.penultimate import answer

__all__ = ["INPUT", "ModelGraph"]

INPUT = "image"
"""Name of the file's input: uint8 (N, H, W, 3), of the size that the model was trained with."""


class ModelGraph(nn.Module):
    """From uint8 (N, H, W, 3) to `outputs`, in their order.

    Attributes:
        outputs: `probabilities` (N, K), calibrated; `features` (N, D), of length 1; where the head is pooling and one
            linear layer, `map` (N, h, w) >= 0, the class activation map of the most probable class; of a network with
            an attention branch, `attention` (N, h', w') in (0, 1), its map; of a model with reference images,
            `distance` (N,) (`reference_images.distances`) and `nearest` (N, 3), their numbers.
    """

    reference: Tensor

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.net = model.net
        self._temperature = 1.0 if model.card.temperature is None else model.card.temperature
        linear = final_linear(model.net.head)
        self._linear = linear if linear is not None and _pooled(model, linear) else None
        reference = model.reference
        features = torch.zeros(0) if reference is None else torch.from_numpy(reference.features.astype("float32"))
        self.register_buffer("reference", features)
        self.outputs = (
            "probabilities",
            "features",
            *(("map",) if self._linear is not None else ()),
            *(("attention",) if model.net.attention_block is not None else ()),
            *(("distance", "nearest") if reference is not None else ()),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Everything of one batch."""
        found = answer(self.net, image.permute(0, 3, 1, 2).float().mul(1 / 255))
        probabilities = (found.logits / self._temperature).softmax(1)
        features = F.normalize(found.features, dim=1)
        answers = [probabilities, features]
        if self._linear is not None:
            weights = self._linear.weight[probabilities.argmax(1)]
            answers.append((weights[:, :, None, None] * found.activations).sum(1).relu())
        if found.attention is not None:
            answers.append(found.attention)
        if len(self.reference):
            alike, nearest = (features @ self.reference.T).topk(min(max(NEIGHBOURS, SHOWN), len(self.reference)), dim=1)
            last = alike[:, min(NEIGHBOURS, len(self.reference)) - 1]
            answers += [(2 - 2 * last).clamp_min(0).sqrt(), nearest[:, :SHOWN]]
        return tuple(answers)


@torch.no_grad()
def _pooled(model: TrainedModel, linear: nn.Linear) -> bool:
    """Whether the linear layer reads one number a channel of the last block."""
    net = model.net.eval()
    activations = net.prefix(torch.zeros(1, 3, *model.card.size, device=net.mean.device), net.num_blocks)
    return linear.in_features == activations.shape[1]
