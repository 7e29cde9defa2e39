"""`python -m explain`: hands over to the command, which loads models of the store; the library stays free of both."""

from __future__ import annotations

import sys

from search.explain.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
