"""The task of a study that has ended, made again from the parameters of its MLflow run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, get_origin

import torch
from rich.console import Console

from lightning_modules.errors import InputError
from search.settings.parsing import one_or_several, parse, strip_optional
from search.settings.plain import key_paths
from search.settings.schema import Settings
from search.trial.keys import INPUTS
from search.trial.preparation import load, resolved, split
from search.trial.task import Task, build_task

__all__ = ["restored_settings", "restored_task"]


def restored_settings(params: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """Settings from the parameters of a parent run, which MLflow keeps as text.

    Args:
        params: dotted setting -> text of its value.
        overrides: dotted setting -> value that counts instead.

    Raises:
        InputError: a value that is not accepted.
    """
    nested: dict[str, Any] = {}
    for key, (item, kind) in key_paths().items():
        if key in overrides:
            value = overrides[key]
        elif key in params:
            value = _value(params[key], kind)
        else:
            value = item.default  # a setting that is younger than the study
            value = list(value) if isinstance(value, tuple) else value
        *groups, name = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value if value is None or not hasattr(value, "__fspath__") else str(value)
    return parse(nested)


def restored_task(settings: Settings, expected: Mapping[str, Any], console: Console) -> Task:
    """Load images and network again.

    Raises:
        InputError: images that are gone, or images, splits or weights that are no longer those of the study.
    """
    torch.set_num_threads(settings.executor.threads or torch.get_num_threads())
    images = load(settings, console)
    settings = resolved(settings, images)
    splits = split(settings, images.index)
    task = build_task(settings, images, splits, cache=settings.tracking.root / "cache")
    for name in INPUTS:
        if (found := task.identity.get(name)) != expected.get(name):
            raise InputError(f"the {name.removesuffix('_digest')} changed since the search ({name} {found})")
    return task


def _value(text: str, kind: Any) -> Any:
    base, optional = strip_optional(kind)
    if optional and text == "None":
        return None
    if one_or_several(kind):
        base = tuple[str, ...] if text.startswith("[") else str
    if get_origin(base) is tuple or base in (int, float, bool):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text  # parse() says what is wrong with it
    return text
