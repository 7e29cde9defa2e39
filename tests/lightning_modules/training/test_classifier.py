"""The loss that a trial trains on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.networks.backbones import build
from lightning_modules.training.classifier import Classifier


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_the_training_loss_smooths_labels_and_weighs_classes(smoothing: float, weights: torch.Tensor | None) -> None:
    net = build("lenet5@0.5", classes=3, size=(20, 20), weights="none")
    model = Classifier(net, 0, "adam", 1.0, class_weights=weights, label_smoothing=smoothing)
    model.on_train_epoch_start()
    images, labels = torch.rand(6, 3, 20, 20), torch.tensor([0, 1, 2, 2, 1, 0])
    loss = model.training_step((images, labels, 1.0))
    log = F.log_softmax(net(images), 1)
    wanted = (1 - smoothing) * F.one_hot(labels, 3) + smoothing / 3  # Szegedy et al. 2016, arXiv 1512.00567
    weight = torch.ones(3) if weights is None else weights
    expected = -(wanted * log * weight).sum() / weight[labels].sum()
    torch.testing.assert_close(loss, expected)
