"""Frozen penultimate features and a classifier of scikit-learn: logistic regression, or the nearest neighbours.

The 1280 pooled features of each labelled image; C, or the number of neighbours, by five-fold cross-validation on the
labelled images (accuracy); then fitted to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.peers.contract import File, Job, Lists, answer
from benchmarks.peers.rivals.images import batches, network


def features(net: Any, files: Sequence[File], lists: Lists) -> NDArray[np.float32]:
    """Pooled features (N, 1280)."""
    with torch.inference_mode():
        found = [
            net(images.contiguous(memory_format=torch.channels_last))
            for images, _ in batches(files, lists.size, lists.fit, train=False)
        ]
    values: NDArray[np.float32] = torch.cat(found).numpy()
    return values


def main() -> None:
    """Fit, then predict the test images."""
    job = Job.of_command_line()
    lists = Lists.read(Path(job.lists))
    torch.set_num_threads(job.threads)
    net = network(job.weights, 0).eval()
    if job.options["classifier"] == "logistic":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        grid: dict[str, list[Any]] = {"logisticregression__C": [10.0**power for power in range(-4, 3)]}
    else:
        model, grid = KNeighborsClassifier(metric="cosine"), {"n_neighbors": [1, 3, 5, 9]}
    folds = StratifiedKFold(5, shuffle=True, random_state=job.seed)
    search = GridSearchCV(model, grid, cv=folds)
    search.fit(features(net, lists.labelled, lists), [label for _, label in lists.labelled])
    trained_at = time.time()
    answer(
        job,
        trained_at=trained_at,
        predicted=search.predict(features(net, lists.test, lists)).tolist(),
        settings={"size": list(lists.size), **search.best_params_},
        packages=("torch", "timm", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
