"""Plain fine-tuning of timm's network by the usual cosine recipe: everything trained, nothing tuned.

AdamW at 1e-3 with weight decay 0.05 (none on biases and norms), a cosine to 0 after two epochs of warm-up, label
smoothing 0.1, mirror images, batches of 32, 20 epochs, the last network. Training and validation images together.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torchvision import transforms

from benchmarks.peers.contract import Job, Lists, answer
from benchmarks.peers.rivals.images import batches, network, predicted

_EPOCHS, _WARMUP, _RATE = 20, 2, 1e-3


def main() -> None:
    """Train, then predict the test images."""
    job = Job.of_command_line()
    lists = Lists.read(Path(job.lists))
    side = job.options.get("side")
    size = (side, side) if side else lists.size
    epochs = job.options.get("epochs", _EPOCHS)
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    net = network(job.weights, len(lists.classes))
    optimizer = create_optimizer_v2(net, "adamw", lr=_RATE, weight_decay=0.05)
    schedule = CosineLRScheduler(
        optimizer, t_initial=epochs, warmup_t=_WARMUP, warmup_lr_init=1e-5, warmup_prefix=False
    )
    goal = nn.CrossEntropyLoss(label_smoothing=0.1)
    loader = batches(
        lists.labelled, size, lists.fit, views=[transforms.RandomHorizontalFlip()], train=True, workers=job.threads
    )
    for epoch in range(epochs):
        schedule.step(epoch)
        net.train()
        for images, labels in loader:
            optimizer.zero_grad()
            goal(net(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimizer.step()
    trained_at = time.time()
    answer(
        job,
        trained_at=trained_at,
        predicted=predicted(net, lists.test, size, lists.fit),
        settings={"size": list(size), "epochs": epochs, "optimizer": "adamw", "rate": _RATE},
        packages=("torch", "timm"),
    )


if __name__ == "__main__":
    main()
