"""Names of the ways to draw a map of a block, in a file of their own so that `--help` lists them without torch."""

from __future__ import annotations

__all__ = ["ATTENTION", "BLOCK_METHODS", "CAM", "GRADCAM"]

GRADCAM = "gradcam"
"""Gradient-weighted class activation map."""

CAM = "cam"
"""Class activation map: needs a head of pooling and one linear layer behind the block."""

ATTENTION = "attention"
"""The network's own attention map: needs an attention branch behind the block."""

BLOCK_METHODS = (GRADCAM, "layercam", "hirescam", "xgradcam", "gradcampp", "activation", CAM, ATTENTION)
"""The keys of `explain.attribution.METHODS` (a test compares them), then CAM and the network's own attention."""
