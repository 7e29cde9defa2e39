from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from explain.attribution import block_maps


def difference(ours: Tensor, reference: Tensor) -> float:
    """Largest difference in units of the largest value."""
    return float((ours - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_half_precision_on_cpu(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], precision: torch.dtype, how: str
) -> None:
    expected = block_maps(tiny, images, tiny_blocks, 1)
    if how == "autocast":
        maps = block_maps(tiny, images, tiny_blocks, 1, autocast=precision)
    else:
        maps = block_maps(tiny.to(precision), images.to(precision), tiny_blocks, 1)
    for block in tiny_blocks:
        assert maps[block].dtype == torch.float32
        assert difference(maps[block], expected[block]) < 0.1


def test_maps_are_not_rounded_by_the_callers_autocast(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...]
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(maps.dtype == torch.float32 for maps in block_maps(tiny, images, tiny_blocks, 1).values())


@pytest.mark.parametrize("size", [1e-6, 1e3])
def test_float16_gradients_neither_vanish_nor_overflow(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], size: float
) -> None:
    """Gradients lie below float16's smallest number, or above its largest once they are enlarged."""
    with torch.no_grad():
        tiny.fc.weight.mul_(size)
    expected = block_maps(tiny, images, tiny_blocks, 1)
    maps = block_maps(tiny.half(), images.half(), tiny_blocks, 1)
    for block in tiny_blocks:
        assert torch.isfinite(maps[block]).all()
        assert difference(maps[block], expected[block]) < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_on_gpu(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], precision: torch.dtype
) -> None:
    expected = block_maps(tiny, images, tiny_blocks, 1)
    maps = block_maps(tiny.cuda(), images.cuda(), tiny_blocks, 1, autocast=precision)
    for block in tiny_blocks:
        assert maps[block].dtype == torch.float32
        assert difference(maps[block].cpu(), expected[block]) < 0.1
