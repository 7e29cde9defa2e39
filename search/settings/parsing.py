"""From a mapping of plain values to the frozen dataclasses of `search.settings.schema`, or to one clear line."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any, Union, get_args, get_origin, get_type_hints

from lightning_modules.errors import InputError
from search.settings.budget import parse_budget
from search.settings.schema import RetrainSettings, SearchSettings, Settings, ThesisSettings

__all__ = ["accepted", "flatten", "key_paths", "parse", "refuse_without_effect", "to_plain", "unknown_key"]


def parse(values: Mapping[str, Any]) -> Settings:
    """Validate every key, type and range, then the rules between settings.

    Raises:
        InputError: one line naming the key, the value received and what is accepted.
    """
    settings: Settings = _parse_class(Settings, values, "")
    _check_rules(settings)
    return settings


def key_paths(cls: type = Settings, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Dotted key -> (field, type) of every setting, in the order of the classes."""
    hints = get_type_hints(cls)
    found: dict[str, tuple[Field[Any], Any]] = {}
    for item in fields(cls):
        kind = hints[item.name]
        if is_dataclass(kind):
            found |= key_paths(kind, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + item.name] = (item, kind)
    return found


def unknown_key(key: str, known: Sequence[str]) -> InputError:
    """The line for a key that does not exist, with the nearest one that does."""
    if "." in key:
        near = get_close_matches(key, known, n=1, cutoff=0.5)
    else:
        last = get_close_matches(key, {k.rpartition(".")[2] for k in known}, n=1, cutoff=0.6)
        near = [k for k in known if k.rpartition(".")[2] in last] or get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return InputError(f"unknown setting {key!r}; {hint}")


def to_plain(settings: Any) -> Any:
    """Nested dicts, lists and scalars, as JSON and MLflow take them."""
    if is_dataclass(settings):
        return {f.name: to_plain(getattr(settings, f.name)) for f in fields(settings)}
    if isinstance(settings, tuple):
        return [to_plain(v) for v in settings]
    return str(settings) if isinstance(settings, Path) else settings


def flatten(settings: Settings) -> dict[str, Any]:
    """Dotted key -> plain value of every setting."""
    flat: dict[str, Any] = {}
    for key in key_paths():
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        flat[key] = to_plain(value)
    return flat


def accepted(item: Field[Any], kind: Any) -> str:
    """What a setting accepts, in words: used by errors, help and docs alike."""
    meta = item.metadata
    if meta["choices"]:
        words = ", ".join(meta["choices"])
        return f"a list of {words}" if get_origin(kind) is tuple else f"one of {words}"
    base, optional = _strip_optional(kind)
    pair = get_origin(base) is tuple
    number = get_args(base)[0] if pair else base
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    size = "" if Ellipsis in get_args(base) else f" of {len(get_args(base))}"
    words = f"a list{size} of {names[number]}" if pair else names[number]
    bounds = []
    if meta["above"] is not None:
        bounds.append(f"> {meta['above']:g}")
    if meta["low"] is not None:
        bounds.append(f">= {meta['low']:g}")
    if meta["high"] is not None:
        bounds.append(f"<= {_number(meta['high'])}")
    return " ".join([words, *([" and ".join(bounds)] if bounds else []), *(["or null"] if optional else [])])


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _strip_optional(kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) in (Union, types.UnionType):
        members = [m for m in get_args(kind) if m is not type(None)]
        return members[0], True
    return kind, False


def _parse_class(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown_key(f"{prefix}{key}", list(key_paths()))
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        kind = hints[name]
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise InputError(f"{prefix}{name} is a group of settings, got {value!r}")
            arguments[name] = _parse_class(kind, value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            arguments[name] = _parse_value(known[name], kind, value, prefix + name)
    return cls(**arguments)


def _parse_value(item: Field[Any], kind: Any, value: Any, key: str) -> Any:
    base, optional = _strip_optional(kind)
    if value is None and optional:
        return None
    refusal = InputError(f"{key} must be {accepted(item, kind)}, got {value!r}")
    if get_origin(base) is tuple:
        if not isinstance(value, (list, tuple)):
            raise refusal
        members = get_args(base)
        open_ended = members[-1] is Ellipsis
        if not value or (not open_ended and len(value) != len(members)):
            raise refusal
        parsed = tuple(_scalar(members[0], v, item, refusal) for v in value)
        if open_ended and len(set(parsed)) != len(parsed):
            raise InputError(f"{key} must not name one twice, got {list(value)}")
        return parsed
    return _scalar(base, value, item, refusal)


def _scalar(kind: type, value: Any, item: Field[Any], refusal: InputError) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool) and not item.metadata["choices"]:
        value = str(value)  # a name made of digits, as in search.study=7
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is str and not value):
        raise refusal
    meta = item.metadata
    if meta["choices"] and value not in meta["choices"]:
        raise refusal
    if kind in (int, float):
        number = float(str(value))
        below = meta["low"] is not None and number < meta["low"]
        not_above = meta["above"] is not None and number <= meta["above"]
        if not math.isfinite(number) or below or not_above or (meta["high"] is not None and number > meta["high"]):
            raise refusal
    return value


def _check_rules(settings: Settings) -> None:
    data, space, search = settings.data, settings.space, settings.search
    if data.source == "simulated" and data.path is not None:
        raise InputError(f"data.path is for data=folder and data=manifest, got {str(data.path)!r} with data=simulated")
    if data.source != "simulated":
        if data.path is None:
            raise InputError(f"data.path must name the {data.source} for data={data.source}, got null")
        if data.images is not None:
            raise InputError(f"data.images is for data=simulated only, got {data.images} with data={data.source}")
    if data.outside == "allow" and data.source == "simulated":
        raise InputError("data.outside=allow is for data=folder and data=manifest, got data=simulated")
    if data.groups == "folder" and data.source != "folder":
        raise InputError(f"data.groups=folder is for data=folder only, got data={data.source}")
    if data.test == "rest" and data.max_train_per_class is None:
        raise InputError("data.test=rest needs data.max_train_per_class=n, got null")
    if data.validation == "newest_month" and (data.folds > 1 or data.test == "rest"):
        raise InputError("data.validation=newest_month needs data.folds=1 and a test set other than rest")
    if data.repeats > 1 and data.folds == 1:
        raise InputError(f"data.repeats needs data.folds of 2 or more, got repeats={data.repeats} with folds=1")
    if data.folds > 1 and not search.refit:
        raise InputError("search.refit=false needs data.folds=1: with folds there is no single trained winner")
    if search.trust == "evidence" and (search.pruner != "halving" or not search.evidence):
        evidence = str(search.evidence).lower()
        raise InputError(
            "search.trust=evidence needs search.pruner=halving and search.evidence=true, "
            f"got search.pruner={search.pruner} and search.evidence={evidence}"
        )
    if search.budget is not None:
        parse_budget(search.budget)
    if (settings.executor.workers or 1) > 1 and settings.executor.name == "inline":
        raise InputError(f"executor.workers={settings.executor.workers} needs executor=local, got executor=inline")
    _check_retrain(settings)
    _check_thesis(settings)
    if space.default_optimizer not in space.optimizers:
        raise InputError(
            f"space.default_optimizer must be one of space.optimizers ({', '.join(space.optimizers)}), "
            f"got {space.default_optimizer!r}"
        )
    for key, (low, high) in (("lr_factor", space.lr_factor), ("freeze_depth", space.freeze_depth or (0, 0))):
        if low > high:
            raise InputError(f"space.{key} must be [low, high] with low <= high, got [{low}, {high}]")
    if not space.lr_factor[0] <= space.default_lr_factor <= space.lr_factor[1]:
        raise InputError(
            f"space.default_lr_factor must be within space.lr_factor {list(space.lr_factor)}, "
            f"got {space.default_lr_factor}"
        )
    fostering = settings.trainer.fostering
    if space.fostering is not None and fostering.beta not in space.fostering:
        raise InputError(
            f"trainer.fostering.beta must be one of space.fostering {list(space.fostering)}, for trial 0, "
            f"got {fostering.beta}"
        )
    both = search.objective != "accuracy"
    if fostering.block is not None and not fostering.beta and space.fostering is None and not both:
        raise InputError(
            "trainer.fostering.block needs trainer.fostering.beta above 0, space.fostering or "
            f"search.objective=accuracy+interpretability, got block={fostering.block} with beta=0"
        )
    if both and search.pruner != "none":
        raise InputError(
            "search.objective=accuracy+interpretability needs search.pruner=none, since a trial's maps count at its "
            f"end, got search.pruner={search.pruner} (search=interpretability sets both)"
        )
    tracking = settings.tracking
    for key, name in (
        ("search.study", search.study),
        ("tracking.model_name", tracking.model_name),
        ("tracking.experiment", tracking.experiment),
    ):
        # They become file names, or part of a query or a page; the longest file name is 255 bytes.
        plain = name is None or all(c.isalnum() or c in "._- " for c in name)
        if name is not None and not (plain and name.strip(". ") and len(name.encode()) <= 200):
            raise InputError(
                f"{key} must be letters, digits, '.', '_', '-' and spaces, 200 bytes at most, got {_shortened(name)!r}"
            )
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(tracking.root)):  # of ://, a path keeps one slash
        raise InputError(f"tracking.root must be a folder of this machine, no address, got {str(tracking.root)!r}")


def _check_retrain(settings: Settings) -> None:
    retrain = settings.retrain
    if retrain.depth not in ("auto", "none", "head", "search") and not re.fullmatch("[0-9]{1,4}", retrain.depth):
        raise InputError(
            f"retrain.depth must be auto, none, head, search or a number of blocks, got {_shortened(retrain.depth)!r}"
        )
    if not re.fullmatch("all|last-[1-9][0-9]{0,3}", retrain.window):
        raise InputError(f"retrain.window must be all or last-N, as in last-3, got {_shortened(retrain.window)!r}")
    if retrain.window == "all" and retrain.replay != RetrainSettings().replay:
        raise InputError(
            f"retrain.replay={retrain.replay} has no effect with retrain.window=all, which trains on every month; "
            "leave it at its default, or give retrain.window=last-N"
        )


def _check_thesis(settings: Settings) -> None:
    thesis, protocol = settings.thesis, settings.protocol
    if (protocol == "thesis") != (thesis.part is not None):
        raise InputError(
            "protocol=thesis, which scores the test set for every configuration, is for experiment=thesis_lenet, "
            f"thesis_random, thesis_transfer, thesis_finetune and thesis_rates alone, got protocol={protocol} with "
            f"thesis.part={thesis.part or 'null'}"
        )
    for name, part in (("rates", "rates"), ("maps", "finetune")):
        if getattr(thesis, name) != getattr(ThesisSettings(), name) and thesis.part != part:
            value = getattr(thesis, name)
            raise InputError(f"thesis.{name} is for thesis.part={part} alone, got {value} with {thesis.part or 'null'}")
    if thesis.part is None:
        return
    if settings.data.folds > 1:
        raise InputError(f"thesis.part needs data.folds=1, got {settings.data.folds}")
    idle = [f"search.{item.name}" for item in fields(SearchSettings) if item.name != "metric"]
    why = "which trains every configuration of its part once, one after the other"
    refuse_without_effect(settings, [*idle, "executor.workers"], f"protocol=thesis, {why}")


def refuse_without_effect(settings: Settings, keys: Iterable[str], on: str) -> None:
    """Refuse settings that would be ignored.

    Args:
        settings: all settings.
        keys: dotted, as on the command line.
        on: what they do nothing to, and what to take instead.

    Raises:
        InputError: one of them is not at its default.
    """
    given, defaults = flatten(settings), flatten(Settings())
    for key in keys:
        if (value := given[key]) != defaults[key]:
            raise InputError(f"{key}={quote(_shortened(str(value)))} has no effect on {on}; leave it at its default")


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}… ({len(text)} characters)"
