"""`python -m search`: wires arguments, settings and the pipeline together."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lightning_modules.errors import BadImages, InputError


def main(arguments: Sequence[str]) -> int:
    """Run a search; returns the exit code: 0, 1 (trials kept failing), 2 (bad input), 130 (stopped by the user)."""
    # Read when torch is loaded. Threads that spin while they wait made training seven times slower on a machine that
    # something else was using too (docs/architecture.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if "--help" in arguments or "-h" in arguments:
            from search.reference import help_text

            print(help_text())
            return 0
        if "--version" in arguments:
            from importlib.metadata import version

            print(version("thawline"))
            return 0
        overrides = list(arguments)
        position = overrides.index("--cfg") if "--cfg" in overrides else len(overrides)
        show_only = overrides[position : position + 2] == ["--cfg", "job"]
        if show_only:
            del overrides[position : position + 2]
        from search.configuration import as_yaml, compose_settings

        for override in overrides:
            if override.startswith("retrain") and not show_only:
                raise InputError(f"{override.split('=')[0]} is a setting of python -m search.retrain, got {override!r}")
        settings = compose_settings(overrides)
        if show_only:
            print(as_yaml(settings), end="")
            return 0
        from rich.console import Console

        if settings.protocol == "thesis":
            from search.thesis import run_thesis

            run_thesis(settings, Console())
            return 0
        from search.pipeline import InterruptedSearchError, run_search
        from search.slots import StudyStalledError

        try:
            run_search(settings, Console())
        except InterruptedSearchError as stop:
            print(stop, file=sys.stderr)
            return 130
        except StudyStalledError as error:
            print(f"search: {error}", file=sys.stderr)
            return 1
    except InputError as error:
        print(f"search: {error}", file=sys.stderr)
        if isinstance(error, BadImages) and len(error.problems) > 1:
            for problem in error.problems:
                print(f"  {problem.path}: {problem.reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
