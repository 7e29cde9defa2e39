"""From the command line to validated settings: Hydra composes the files of conf/, nothing else of it is used."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lightning_modules.errors import InputError, printable
from lightning_modules.home_folder import home_path
from search.settings.parsing import accepted, one_or_several, parse, unknown_key
from search.settings.plain import key_paths, to_plain
from search.settings.schema import Settings

__all__ = ["as_yaml", "compose_settings", "configuration_folder", "group_options"]

# An odd number of backslashes makes ${ plain text; OmegaConf takes that for a reference too, to nothing.
_REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\$\{")


def configuration_folder() -> Path:
    """The folder conf/: inside the installed package, or beside it in a checkout.

    Raises:
        InputError: neither is there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError("the configuration folder conf/ is missing from this installation: install thawline again")


def group_options() -> dict[str, tuple[str, ...]]:
    """Config group -> its options, from the files of conf/."""
    return {
        folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        for folder in sorted(configuration_folder().iterdir())
        if folder.is_dir() and folder.name != "__pycache__"
    }


def compose_settings(overrides: Sequence[str]) -> Settings:
    """Compose conf/ with `key=value` overrides and validate the result.

    Raises:
        InputError: an override that is no `key=value`, an unknown key or option, a value that is not accepted.
    """
    overrides = _whole_names(overrides)
    checked = [_checked(override) for override in overrides if override != "experiment=null"]
    # Imported here so that --help answers without Hydra.
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    logging.getLogger("hydra").setLevel(logging.ERROR)
    _check_values(checked)
    ConfigStore.instance().store(name="defaults_of_settings", node=to_plain(Settings()))
    try:
        with initialize_config_dir(str(configuration_folder().resolve()), version_base="1.3"):
            composed = compose("config", overrides=checked)
        _refuse_references(composed)
        if composed.data.source != "simulated" and not any(one.startswith("data.images=") for one in checked):
            composed.data.images = None  # of the simulated set, or of an experiment that makes it smaller
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"configuration: {printable('; '.join(lines[:2]))}") from error
    if not isinstance(values, dict):
        raise InputError(f"configuration must be a mapping, got {type(values).__name__}")
    return parse({str(key): value for key, value in values.items()})


def _whole_names(overrides: Sequence[str]) -> list[str]:
    """The settings that `images=` and `root=`, which every command takes, are short for.

    Raises:
        InputError: nothing is there, or the settings are given as well.
    """
    found: list[str] = []
    for override in overrides:
        name, separator, value = override.partition("=")
        if name in ("images", "root") and sum(other.startswith(f"{name}=") for other in overrides) > 1:
            raise InputError(f"{name}= must be given once, got it again as {override!r}")
        if name == "root" and separator:
            long = [f"tracking.root={value}"]
        elif name == "images" and separator:
            place = Path(home_path(value, name))
            if not value or not place.exists():
                raise InputError(
                    f"images must be a folder, IMAGES/<class>/*, or a table with the columns path and label, got "
                    f"{printable(value)!r}: no such file or folder"
                )
            long = [f"data={'folder' if place.is_dir() else 'manifest'}", f"data.path={value}"]
        else:
            found.append(override)
            continue
        for one in long:
            key = one.partition("=")[0]
            if any(other.startswith(f"{key}=") for other in overrides):
                raise InputError(f"{name}= stands for {' and '.join(w.partition('=')[0] for w in long)}=: give one")
        found += long
    return found


def _refuse_references(values: Any, key: str = "") -> None:
    """Refuse ${...} in what was composed: it could bring a password of the environment into a run's parameters."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(values, DictConfig):
        parts: list[Any] = list(values)
    else:
        parts = list(range(len(values)))
    for part in parts:
        name = f"{key}.{part}" if key else str(part)
        if OmegaConf.is_interpolation(values, part):
            text = str(OmegaConf.to_container(values, resolve=False)[part])  # type: ignore[index]
            if _REFERENCE.search(text):
                raise InputError(f"{printable(name)} must be a value, got {text!r}: references are not accepted")
        if isinstance(inner := values._get_node(part), (DictConfig, ListConfig)) and not inner._is_none():
            _refuse_references(inner, name)


def as_yaml(settings: Settings) -> str:
    """The composed configuration as YAML (`--cfg job`)."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_plain(settings)))


def _checked(override: str) -> str:
    """Refuse what Hydra would answer with several lines; quote text so that a path may hold any character."""
    key, separator, value = override.partition("=")
    if override.startswith("-"):
        raise InputError(f"unknown option {override!r}; accepted: --help, --cfg job, --version and key=value")
    if not separator or not key:
        raise InputError(f"arguments must be key=value, got {override!r}")
    groups = group_options()
    if key in groups:
        if value not in groups[key]:
            raise InputError(f"{key} must be one of {', '.join(groups[key])}, got {value!r}")
        return override
    known = key_paths()
    if key not in known:
        raise unknown_key(key, [*known, *groups])
    kind = known[key][1]
    if one_or_several(kind) and value.startswith("["):
        return override
    texts = {str, Path}
    textual = one_or_several(kind) or kind in texts or (type(None) in get_args(kind) and texts & set(get_args(kind)))
    if textual and value != "null" and not re.fullmatch(r"'.*'|\".*\"", value, re.DOTALL):
        # OmegaConf would read ${...} as a reference to another setting.
        escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", escaped)
        escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
        return f"{key}='{escaped}'"
    return override


def _check_values(overrides: Sequence[str]) -> None:
    """Refuse values that Hydra cannot read, that mean several runs, or that are mappings, naming the setting."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    known, parser = key_paths(), OverridesParser.create()
    for override in overrides:
        key, _, text = override.partition("=")
        if key not in known:
            continue
        try:
            parsed = parser.parse_override(override)
            usable = not parsed.is_sweep_override() and not isinstance(parsed.value(), dict)
        except HydraException:
            usable = False
        if not usable:
            raise InputError(f"{key} must be {accepted(*known[key])}, got {text!r}")
