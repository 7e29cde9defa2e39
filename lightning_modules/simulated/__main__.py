"""`python -m lightning_modules.simulated`: the simulated images as folders by month, or their contact sheet."""

from __future__ import annotations

import sys

from lightning_modules.simulated.generator import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
