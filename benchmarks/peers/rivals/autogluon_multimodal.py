"""AutoGluon's MultiModalPredictor with timm's network: its default recipe, from the same weights, offline.

AdamW at 1e-4 with layer-wise decay, 20 epochs at most, stopped by the validation images, the best checkpoints averaged
(greedy soup); batches of 32, as everybody's. It reads a folder with `config.json` and `pytorch_model.bin` in place of a
checkpoint's name. The shorter side is resized and the centre cropped, as it does by default.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import timm
import torch
from autogluon.multimodal import MultiModalPredictor
from safetensors.torch import load_file

from benchmarks.peers.contract import File, Job, Lists, answer

_ARCHITECTURE = "tf_efficientnet_lite0"


def checkpoint(weights: str, size: tuple[int, int], folder: Path) -> Path:
    """The weights as the folder that it takes for a timm checkpoint of one's own: no classifier, plain PyTorch."""
    folder.mkdir(parents=True)
    tensors = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith("classifier.")}
    torch.save(tensors, folder / "pytorch_model.bin")
    net = timm.create_model(_ARCHITECTURE, num_classes=0)
    shape = [3, *size]
    pretrained = {**net.default_cfg, "input_size": shape, "test_input_size": [3, size[0] + 32, size[1] + 32]}
    config = {"architecture": _ARCHITECTURE, "num_features": net.num_features, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    return folder


def frame(files: tuple[File, ...]) -> pd.DataFrame:
    """A column of paths, one of labels."""
    return pd.DataFrame(files, columns=["image", "label"])


def main() -> None:
    """Train, then predict the test images."""
    job = Job.of_command_line()
    lists = Lists.read(Path(job.lists))
    folder = Path(job.folder)
    torch.set_num_threads(job.threads)
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=str(folder / "model"), verbosity=1)
    hyperparameters = {
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": str(checkpoint(job.weights, lists.size, folder / "checkpoint")),
        "model.timm_image.image_size": lists.size[0],
        "model.timm_image.image_norm": "inception",  # mean and spread 0.5, as these weights want it
        "env.num_gpus": 0,
        "env.precision": "32",
        "env.batch_size": 32,  # by default 128: one step an epoch where there are 60 images
    }
    if "epochs" in job.options:
        hyperparameters["optim.max_epochs"] = job.options["epochs"]
    predictor.fit(
        train_data=frame(lists.train), tuning_data=frame(lists.val), hyperparameters=hyperparameters, seed=job.seed
    )
    trained_at = time.time()
    answer(
        job,
        trained_at=trained_at,
        predicted=predictor.predict(frame(lists.test)[["image"]], as_pandas=False).tolist(),
        settings={"size": list(lists.size)},
        packages=("torch", "timm", "autogluon.multimodal"),
    )


if __name__ == "__main__":
    main()
