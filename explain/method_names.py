"""Names of the ways to draw a map of a block, in a file of their own so that `--help` lists them without torch."""

from __future__ import annotations

__all__ = ["BLOCK_METHODS", "CAM"]

CAM = "cam"
"""Class activation map: needs a head of pooling and one linear layer behind the block."""

BLOCK_METHODS = ("gradcam", "layercam", "hirescam", "xgradcam", "gradcampp", "activation", CAM)
"""The keys of `explain.attribution.METHODS` (a test compares them), then CAM."""
