"""How large the images are that networks take, by name; known without building one, and without torch."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["INPUT_SIZES", "InputSize"]


class InputSize(NamedTuple):
    """Sides in pixels.

    Attributes:
        minimum: smallest that the network takes.
        native: that its pre-trained weights were trained at, or that it was made for.
    """

    minimum: int
    native: int


INPUT_SIZES: Final = {
    "efficientnet_lite0": InputSize(32, 224),
    "efficientnet_lite1": InputSize(32, 240),
    "efficientnet_lite2": InputSize(32, 260),
}
"""Of the networks that a look at images need not wait for; the registry has those of all."""
