"""fastai's usual recipe: `vision_learner` with timm's network, its own head and augmentations, then `fine_tune`.

One epoch of the head alone, 20 of everything with a learning rate that falls towards the first layers, one-cycle
schedule, base rate 2e-3 (the default). Images are brought to the size without cropping and batches are of 32, since
there may be 120 images; all else is fastai's default. Training and validation images together, nothing held out.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    PadMode,
    Resize,
    ResizeMethod,
    aug_transforms,
    set_seed,
    vision_learner,
)

from benchmarks.peers.contract import Job, Lists, answer

_EPOCHS = 20


def main() -> None:
    """Train, then predict the test images."""
    job = Job.of_command_line()
    lists = Lists.read(Path(job.lists))
    epochs = job.options.get("epochs", _EPOCHS)
    torch.set_num_threads(job.threads)
    set_seed(job.seed)
    method = {"stretch": ResizeMethod.Squish, "pad": ResizeMethod.Pad}[lists.fit]
    # Paths alone: fastai would map its functions over the parts of a tuple.
    label_of = dict(lists.labelled)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(lists.classes), sort=False)),
        get_y=lambda path: lists.classes[label_of[path]],
        splitter=IndexSplitter([]),
        item_tfms=Resize(lists.size, method=method, pad_mode=PadMode.Border),
        batch_tfms=aug_transforms(),
    )
    loaders = block.dataloaders(list(label_of), bs=32, device=torch.device("cpu"))
    learner = vision_learner(
        loaders,
        "tf_efficientnet_lite0",
        pretrained_cfg_overlay={"file": job.weights},
        path=job.folder,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs, freeze_epochs=1)
        trained_at = time.time()
        test = loaders.test_dl([path for path, _ in lists.test])
        probabilities, _ = learner.get_preds(dl=test)
    answer(
        job,
        trained_at=trained_at,
        predicted=probabilities.argmax(1).tolist(),
        settings={"size": list(lists.size), "epochs": epochs + 1, "rate": 2e-3},
        packages=("torch", "timm", "fastai"),
    )


if __name__ == "__main__":
    main()
