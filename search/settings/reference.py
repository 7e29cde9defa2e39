"""`--help` and docs/configuration.md, both made from the metadata of the settings."""

from __future__ import annotations

from dataclasses import fields

from search.invocation import typed
from search.settings.compose import group_options
from search.settings.parsing import accepted
from search.settings.plain import flatten, key_paths, shown
from search.settings.schema import Settings

__all__ = ["configuration_page", "help_text", "setting_lines"]

_USAGE = """Usage: {it} [images=IMAGES] [GROUP=OPTION ...] [key=value ...]

Searches optimizer, learning rate and freeze depth for an image classifier that starts from a pre-trained network;
logs every trial in MLflow, tests the winner once and registers it. The same command again continues the study.

  {it}                                     the built-in simulated ultrasonic images
  {it} images=FOLDER                       FOLDER/<class>/* or FOLDER/<YYYY-MM>/<class>/*
  {it} images=FILE.csv                     columns path,label[,month,group,split,mask]
  {it} images=FOLDER experiment=quick      a first result in two or three minutes

  images=FOLDER    short for data=folder data.path=FOLDER; images=FILE for data=manifest data.path=FILE
  root=FOLDER      short for tracking.root=FOLDER

  --help       this page
  --cfg job    print the composed configuration and stop
  --version    print the version and stop
"""


def help_text() -> str:
    """The page that `--help` prints."""
    lines = [_USAGE.format(it=typed("search")), "Groups and their options (files of conf/)"]
    lines += [f"  {group}={'|'.join(options)}" for group, options in group_options().items()]
    lines += ["", "Settings (default) accepted values", *setting_lines()]
    return "\n".join(lines)


def setting_lines(prefix: str = "") -> list[str]:
    """Two lines for each setting whose key begins with `prefix`: default and accepted values, and meaning."""
    lines, values = [], flatten(Settings())
    for key, (item, kind) in key_paths().items():
        if not key.startswith(prefix):
            continue
        unit = f" {item.metadata['unit']}" if item.metadata["unit"] and values[key] != "auto" else ""
        lines.append(f"  {key} ({shown(values[key])}{unit}) {accepted(item, kind)}")
        lines.append(f"      {item.metadata['meaning']}")
    return lines


def configuration_page() -> str:
    """The page docs/configuration.md."""
    values = flatten(Settings())
    keys = key_paths()
    lines = [
        "# Configuration",
        "",
        "Made from `search/settings/schema.py` by `python -m search.settings.reference`; a test compares the two.",
        "Give settings as `key=value` and whole files of `conf/` as `group=option`:",
        "`python -m search data=folder data.path=IMAGES search.trials=15`.",
        "",
        "Settings marked * may change without making it another study. A path may begin with `~`, the home folder.",
        "",
        "| group | options |",
        "| --- | --- |",
        *(f"| `{group}` | {', '.join(f'`{o}`' for o in options)} |" for group, options in group_options().items()),
    ]
    by_title: dict[str, list[str]] = {"top level": []}
    for item in fields(Settings):
        chosen = [k for k in keys if k == item.name or k.startswith(f"{item.name}.")]
        by_title.setdefault(item.name if len(chosen) > 1 else "top level", []).extend(chosen)
    for title, chosen in by_title.items():
        lines += ["", f"## {title}", "", "| setting | default | accepted | meaning |", "| --- | --- | --- | --- |"]
        for key in chosen:
            entry, kind = keys[key]
            unit = (
                f" {entry.metadata['unit']}"
                if entry.metadata["unit"] and isinstance(values[key], int | float | list)
                else ""
            )
            star = "" if entry.metadata["identity"] else " *"
            words = accepted(entry, kind).replace("|", "\\|")
            meaning = entry.metadata["meaning"].replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{key}`{star} | `{shown(values[key])}`{unit} | {words} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(configuration_page(), end="")
