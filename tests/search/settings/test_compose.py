"""Composition of conf/ and the command line; text reaches the settings unchanged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from search.settings.compose import as_yaml, compose_settings, configuration_folder, group_options
from search.settings.parsing import parse
from search.settings.plain import to_plain
from search.settings.schema import Settings


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in group_options().items() for o in options])
def test_every_option_composes(group: str, option: str) -> None:
    path = ["data.path=images"] if group == "data" and option != "simulated" else []
    composed = compose_settings([f"{group}={option}", *path])
    own = yaml.safe_load((configuration_folder() / group / f"{option}.yaml").read_text(encoding="utf-8"))
    plain = to_plain(composed)
    for key, value in own.items():
        place = plain if group == "experiment" else plain[group]
        if isinstance(value, dict):
            assert {name: place[key][name] for name in value} == value
        else:
            assert place[key] == value


def test_the_default_composition_differs_from_the_settings_by_the_number_of_images_alone() -> None:
    assert compose_settings([]) == parse({"data": {"images": 1300}})
    assert Settings().data.images is None


def test_an_override_beats_an_experiment_and_an_experiment_beats_a_group() -> None:
    assert compose_settings(["experiment=quick"]).search.trials == 6
    assert compose_settings(["experiment=quick", "search.trials=2"]).search.trials == 2
    assert compose_settings(["search.trials=2", "experiment=quick"]).search.trials == 2
    assert compose_settings(["search=median"]).search.pruner == "median"
    assert compose_settings(["experiment=null"]) == compose_settings([])


@pytest.mark.parametrize("experiment", ["null", *group_options()["experiment"]])
def test_every_experiment_takes_images_of_ones_own(experiment: str) -> None:
    for source in ("data=folder", "data.source=manifest"):
        data = compose_settings([source, "data.path=images", f"experiment={experiment}"]).data
        assert (data.source, data.path, data.images) == (source.partition("=")[2], Path("images"), None)
    with pytest.raises(InputError, match=r"data\.images is for data=simulated only, got 500"):
        compose_settings(["data=folder", "data.path=images", f"experiment={experiment}", "data.images=500"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data=null", "data must be one of folder, manifest, simulated, got 'null'"),
        ("search.trials=1,2", "search.trials must be a whole number >= 1 and <= 100000, got '1,2'"),
        ("search.trials=range(1,3)", "search.trials must be a whole number >= 1 and <= 100000, got 'range(1,3)'"),
        ("data.size={a:1}", "data.size must be a list of 2 of a whole number >= 8 and <= 2048 or auto, got '{a:1}'"),
        ("data.size=[1,", "data.size must be a list of 2 of a whole number >= 8 and <= 2048 or auto, got '[1,'"),
        ("data.size=", "data.size must be a list of 2 of a whole number >= 8 and <= 2048 or auto, got ''"),
        ("model.name=", "model.name must be text or a list of text, got ''"),
        ("+search.trials=2", "unknown setting '+search.trials'; did you mean search.trials?"),
        ("~data", "arguments must be key=value, got '~data'"),
        ("hydra.verbose=true", "unknown setting 'hydra.verbose'"),
        ("data=../../etc", "data must be one of"),
        ("_target_=os.system", "unknown setting '_target_'"),
        ("-m", "unknown option '-m'"),
    ],
)
def test_refusals(override: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        compose_settings([override])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


# Quoted text, null and ~ have a meaning of their own, as documented.
_TEXT = st.text(st.characters(exclude_characters="\0"), min_size=1).filter(
    lambda t: (
        t != "null" and not t.startswith("~") and not any(len(t) > 1 and t[0] == t[-1] == quote for quote in "'\"")
    )
)


@settings(deadline=None, max_examples=25)
@given(_TEXT)
@example("lot 3/강판, 새것")
@example("a'b\\'c\\")
@example("\\")
@example("\\\\'")
@example("${seed}")
@example("\\${seed}")
@example("a\\\\${seed}\\")
@example("${")
@example("$x {y} [z] (w) = , : # %")
@example("\udcff\udce9")
@example("line\nbreak\ttab\r")
@example("C:\\temp\\new 'x'")
@example("'")
@example("1e5")
@example("true")
def test_text_reaches_the_settings_unchanged(text: str) -> None:
    composed = compose_settings(["data=folder", f"data.path={text}", f"model.name={text}"])
    assert composed.data.path == Path(text)
    assert composed.model.name == text


def test_quotes_around_a_value_are_taken_off() -> None:
    assert compose_settings(["data=folder", "data.path='my images'"]).data.path == Path("my images")
    assert compose_settings(["data=folder", 'data.path="null"']).data.path == Path("null")


def test_yaml_of_a_configuration_is_that_configuration() -> None:
    composed = compose_settings(["data=folder", "data.path=강판 ${x}", "space.optimizers=[momentum,adam]"])
    assert parse(yaml.safe_load(as_yaml(composed))) == composed


def test_no_file_of_conf_is_long_or_names_a_target() -> None:
    files = sorted(configuration_folder().rglob("*.yaml"))
    assert len(files) > 10
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 20 and "_target_" not in text, file


def test_options_are_sorted() -> None:
    for options in group_options().values():
        assert all(first < second for first, second in pairwise(options))
