"""From plain values to settings: every type, bound and rule, and the line each refusal makes."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from search.settings.parsing import accepted, parse, unknown_key
from search.settings.plain import flatten, key_paths, to_plain
from search.settings.schema import Settings

KEYS = key_paths()


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("trainer.weight_decay", 1, 1.0),
        ("data.size", [32, 64], (32, 64)),
        ("space.lr_factor", [1, 2], (1.0, 2.0)),
        ("space.optimizers", ["momentum", "adam"], ("momentum", "adam")),
        ("space.freeze_depth", None, None),
        ("executor.threads", None, None),
        ("executor.threads", 1, 1),
        ("search.study", 7, "7"),
        ("search.study", "강판 3", "강판 3"),
        ("tracking.root", "a/b", Path("a/b")),
        ("search.fresh", True, True),
        ("seed", 2**31 - 1, 2**31 - 1),
    ],
)
def test_accepted_values(key: str, given: Any, expected: Any) -> None:
    value = _value(parse(_nested(key, given)), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrong", [[], {"a": 1}, 1j, b"bytes", [[1, 2]], ""], ids=repr)
def test_no_setting_accepts_another_kind(key: str, wrong: Any) -> None:
    with pytest.raises(InputError) as refusal:
        parse(_nested(key, wrong))
    message = str(refusal.value)
    assert message.startswith(f"{key} must be {accepted(*KEYS[key])}, got ")
    assert "\n" not in message


@pytest.mark.parametrize("key", [key for key, (_, kind) in KEYS.items() if kind in (int, float)])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(key: str, wrong: float) -> None:
    with pytest.raises(InputError, match=f"^{key} must be .* got {wrong}$"):
        parse(_nested(key, wrong))


def _bounds() -> list[tuple[str, float]]:
    found = []
    for key, (item, kind) in KEYS.items():
        step = 1 if kind is int or "int" in str(kind) else 1e-6
        meta = item.metadata
        found += [(key, meta["low"] - step)] if meta["low"] is not None else []
        found += [(key, meta["high"] + step)] if meta["high"] is not None else []
        found += [(key, meta["above"])] if meta["above"] is not None else []
    return found


@pytest.mark.parametrize(("key", "outside"), _bounds())
def test_every_bound_holds(key: str, outside: float) -> None:
    kind = str(KEYS[key][1])
    number = int(outside) if "int" in kind else float(outside)
    with pytest.raises(InputError, match=f"^{key} must be .* got "):
        parse(_nested(key, [number, number] if "tuple" in kind else number))


BOUND_TO_OTHERS = (
    "data.source",
    "data.test",
    "data.groups",
    "data.outside",
    "protocol",
    "search.objective",
    "search.trust",
    "space.default_optimizer",
    "thesis.part",
)


@pytest.mark.parametrize("key", [key for key, (item, _) in KEYS.items() if item.metadata["choices"]])
def test_every_choice_is_accepted_and_nothing_else(key: str) -> None:
    item, kind = KEYS[key]
    for choice in item.metadata["choices"]:
        if key in BOUND_TO_OTHERS:
            continue
        given = [choice, "adam"] if "tuple" in str(kind) and choice != "adam" else choice
        given = [given] if "tuple" in str(kind) and isinstance(given, str) else given
        assert _value(parse(_nested(key, given)), key) in (choice, tuple(given))
    with pytest.raises(InputError, match=f"^{key} must be"):
        parse(_nested(key, ["momentumm"] if "tuple" in str(kind) else "momentumm"))


@pytest.mark.parametrize("key", ["seed", "search.trials", "executor.threads", "data.images"])
@pytest.mark.parametrize("truth", [True, False])
def test_truth_is_no_number(key: str, truth: bool) -> None:
    with pytest.raises(InputError, match=rf"^{key} must be a whole number.*got {truth}$"):
        parse(_nested(key, truth))


def test_a_group_is_no_value() -> None:
    with pytest.raises(InputError, match=r"^data is a group of settings, got 3$"):
        parse({"data": 3})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("trails", "search.trials or retrain.trials"),
        ("data.pth", "data.path"),
        ("epochs", "trainer.epochs or retrain.epochs"),
        ("model.weight", "model.weights"),
        ("tracking.rot", "tracking.root"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, near: str) -> None:
    assert str(unknown_key(key, list(KEYS))) == f"unknown setting {key!r}; did you mean {near}?"


def test_unknown_key_inside_a_group() -> None:
    with pytest.raises(InputError, match=r"^unknown setting 'data.sizes'; did you mean data.size\?$"):
        parse({"data": {"sizes": [1, 2]}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"path": "x"}}, "data.path is for data=folder and data=manifest"),
        ({"data": {"source": "manifest"}}, "data.path must name the manifest"),
        ({"data": {"source": "folder", "path": "x", "images": 400}}, "data.images is for data=simulated only"),
        ({"data": {"groups": "folder"}}, "data.groups=folder is for data=folder only"),
        ({"data": {"test": "rest"}}, "needs data.max_train_per_class=n"),
        ({"data": {"validation": "newest_month", "folds": 2}}, "needs data.folds=1"),
        ({"data": {"repeats": 2}}, "data.repeats needs data.folds of 2 or more"),
        ({"executor": {"name": "inline", "workers": 3}}, "executor.workers=3 needs executor=local or ray"),
        ({"data": {"folds": 2}, "search": {"refit": False}}, "search.refit=false needs data.folds=1"),
        ({"search": {"refit": False, "refit_epochs": 5}}, "search.refit_epochs=5 has no effect on search.refit=false"),
        ({"search": {"refit_epochs": None, "refit_rate": 0.5}}, "search.refit_rate=0.5 has no effect on search"),
        ({"data": {"folds": 2}, "search": {"refit_rate": 0.5}}, "search.refit_rate=0.5 has no effect on data.folds"),
        (
            {"space": {"optimizers": ["sgd"], "default_optimizer": "adam"}},
            "space.default_optimizer must be one of space.optimizers (sgd)",
        ),
        ({"space": {"lr_factor": [3.0, 2.0]}}, "space.lr_factor must be [low, high] with low <= high"),
        ({"space": {"freeze_depth": [3, 2]}}, "space.freeze_depth must be [low, high] with low <= high"),
        ({"space": {"default_lr_factor": 11.0}}, "space.default_lr_factor must be within space.lr_factor"),
        ({"search": {"study": "a/b"}}, "search.study must be letters"),
        ({"search": {"study": "x" * 201}}, "200 bytes at most, got 'xxx"),
        ({"search": {"study": "강" * 67}}, "200 bytes at most"),
        ({"search": {"study": "..."}}, "search.study must be letters"),
        ({"tracking": {"model_name": "a:b"}}, "tracking.model_name must be letters"),
        ({"tracking": {"experiment": "a\tb"}}, "tracking.experiment must be letters, digits"),
    ],
)
def test_rules_between_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse(values)
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_an_empty_mapping_gives_the_defaults() -> None:
    assert parse({}) == Settings()


def test_every_setting_has_a_meaning_and_accepts_its_default() -> None:
    plain = flatten(Settings())
    for key, (item, _) in KEYS.items():
        assert len(item.metadata["meaning"]) > 8, key
        assert _value(parse(_nested(key, plain[key])), key) == _value(Settings(), key)


_SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "search": st.fixed_dictionaries(
            {},
            optional={
                "trials": st.integers(1, 100_000),
                "study": st.none() | st.text("ab 강.-_9", min_size=1, max_size=20).filter(lambda t: t.strip(". ")),
                "fresh": st.booleans(),
            },
        ),
        "trainer": st.fixed_dictionaries(
            {}, optional={"weight_decay": st.floats(0, 1), "precision": st.sampled_from(["float32", "bfloat16"])}
        ),
        "space": st.fixed_dictionaries(
            {}, optional={"freeze_depth": st.none() | st.tuples(st.integers(0, 4), st.integers(4, 9)).map(list)}
        ),
        "tracking": st.fixed_dictionaries({}, optional={"root": st.text(min_size=1).map(lambda t: str(Path(f"a{t}")))}),
    },
)


@given(_SETTINGS)
def test_settings_survive_the_way_through_plain_values(values: dict[str, Any]) -> None:
    settings = parse(values)
    plain = to_plain(settings)
    assert parse(plain) == settings
    assert parse(json.loads(json.dumps(plain))) == settings
    assert set(flatten(settings)) == set(KEYS)
    assert [f.name for f in fields(settings)] == list(plain)
