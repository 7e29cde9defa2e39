"""The search, and what it leaves as plain values: `from search import load_study`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.notebook import Study, load_study
    from search.study.record import Trial

__all__ = ["Study", "Trial", "load_study"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: `python -m search --help` answers in a twentieth of a second.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Trial":
        from search.study import record

        return record.Trial
    from search.command_line.exits import name_home_and_user

    name_home_and_user()  # Matplotlib asks for it when it is imported
    from search import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
