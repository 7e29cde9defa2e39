from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from explain.attribution import METHODS, block_maps
from explain.hooks import observing
from explain.signals import capture, spatial_blocks


def difference(ours: Tensor, reference: Tensor) -> float:
    """Largest difference in units of the largest value."""
    return float((ours - reference).abs().max() / reference.abs().max())


def captum_maps(model: nn.Module, block: str, images: Tensor, targets: Tensor) -> Tensor:
    maps = LayerGradCam(model, model.get_submodule(block)).attribute(images, targets, relu_attributions=True)
    return maps.detach()[:, 0]


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "hooks": sum(len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()),
        "values": [value.clone() for value in model.state_dict().values()],
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before["modes"] == after["modes"]
    assert before["flags"] == after["flags"]
    assert after["hooks"] == 0
    for one, other in zip(before["values"], after["values"], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(before["grads"], after["grads"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one[0] == other[0] and torch.equal(one[1], other[1]))


@pytest.mark.parametrize("order", [("stem", "middle", "deep"), ("deep", "stem", "middle"), ("middle",)])
def test_blocks_come_in_the_order_requested(tiny: nn.Module, images: Tensor, order: tuple[str, ...]) -> None:
    targets = torch.tensor([0, 3, 1])
    captured = capture(tiny, images, order, targets)
    assert [signals.block for signals in captured] == list(order)
    for signals in captured:
        assert signals.activations.shape == signals.gradients.shape
        reference = captum_maps(tiny, signals.block, images, targets)
        assert difference(METHODS["gradcam"](signals), reference) < 1e-5
    assert torch.equal(captured.targets, targets)
    assert torch.allclose(captured.logits, tiny(images), atol=1e-6)
    assert captured[order[0]].block == order[0]
    with pytest.raises(KeyError, match="'fc' was not captured"):
        captured["fc"]


def test_in_place_activations_do_not_reach_the_saved_tensors(
    make_tiny: Callable[..., nn.Module], images: Tensor, tiny_blocks: tuple[str, ...]
) -> None:
    inplace, plain = make_tiny(inplace=True), make_tiny(inplace=False)
    expected = capture(plain, images, tiny_blocks, 2)
    for _ in range(3):
        captured = capture(inplace, images, tiny_blocks, 2)
        for ours, reference in zip(captured, expected, strict=True):
            assert torch.equal(ours.activations, reference.activations)
            assert torch.allclose(ours.gradients, reference.gradients, atol=1e-7)
            assert (ours.activations < 0).any()


def test_a_network_that_starts_to_overwrite_is_noticed(
    make_tiny: Callable[..., nn.Module], images: Tensor, tiny_blocks: tuple[str, ...]
) -> None:
    model = make_tiny(inplace=False)
    expected = capture(model, images, tiny_blocks, 1)
    for name in ("act1", "act2", "act3"):
        model.get_submodule(name).inplace = True
    captured = capture(model, images, tiny_blocks, 1)
    for ours, reference in zip(captured, expected, strict=True):
        assert torch.equal(ours.activations, reference.activations)


class Ledger(TorchDispatchMode):
    """Counts copies of feature maps and the gradients each convolution computes."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0
        self.masks: list[tuple[bool, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.clone.default and args[0].ndim == 4:
            self.copies += 1
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(tuple(args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("frozen", [False, True])
def test_no_weight_gradient_no_copy_and_nothing_before_the_first_block(
    make_tiny: Callable[..., nn.Module], images: Tensor, tiny_blocks: tuple[str, ...], frozen: bool
) -> None:
    model = make_tiny(inplace=False).requires_grad_(not frozen)
    capture(model, images, tiny_blocks)
    with Ledger() as ledger:
        capture(model, images, tiny_blocks)
    assert ledger.masks == [(True, False, False)] * 2  # three convolutions, the first lies before the first output
    assert ledger.copies == 0


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_frozen_models_and_gradient_free_contexts(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], frozen: bool, context: Callable[[], Any]
) -> None:
    expected = block_maps(tiny, images, tiny_blocks, 1)
    tiny.requires_grad_(not frozen)
    with context():
        maps = block_maps(tiny, images * 1, tiny_blocks, 1)
    for block in tiny_blocks:
        assert torch.allclose(maps[block], expected[block], atol=1e-7)
        assert not maps[block].requires_grad


def test_everything_is_restored(tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...]) -> None:
    tiny.train()
    tiny.middle.eval()
    tiny.stem.requires_grad_(False)
    tiny.fc.weight.grad = torch.ones_like(tiny.fc.weight)
    before = state_of(tiny)
    capture(tiny, images, tiny_blocks)
    spatial_blocks(tiny, images)
    assert_same_state(before, state_of(tiny))
    assert not images.requires_grad


class BangError(RuntimeError):
    pass


class Explosive(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise BangError


@pytest.mark.parametrize("where", ["forward", "target", "backward"])
def test_everything_is_restored_after_an_error(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], where: str
) -> None:
    if where == "forward":
        tiny.dropout = Explosive()
    if where == "backward":
        tiny.act3 = Defective()
    tiny.train()
    tiny.deep.requires_grad_(False)
    before = state_of(tiny)
    with pytest.raises((BangError, ValueError)):
        capture(tiny, images, tiny_blocks, 99 if where == "target" else 0)
    assert_same_state(before, state_of(tiny))


class DefectiveFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise BangError


class Defective(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return DefectiveFunction.apply(value)


def test_no_hook_is_left_by_an_error_inside_the_context(tiny: nn.Module, tiny_blocks: tuple[str, ...]) -> None:
    with pytest.raises(BangError), observing(tiny, tiny_blocks, lambda *_: None):
        assert state_of(tiny)["hooks"] == 3
        raise BangError
    assert state_of(tiny)["hooks"] == 0


def test_dropout_and_batch_norm_are_in_eval_mode(tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...]) -> None:
    expected = block_maps(tiny, images, tiny_blocks, 1)
    maps = block_maps(tiny.train(), images, tiny_blocks, 1)
    for block in tiny_blocks:
        assert torch.equal(maps[block], expected[block])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_batch_equals_its_images_one_by_one(
    tiny: nn.Module, images: Tensor, tiny_blocks: tuple[str, ...], method: str, memory_format: torch.memory_format
) -> None:
    tiny.to(memory_format=memory_format)
    images = images.to(memory_format=memory_format)
    targets = torch.tensor([2, 0, 3])
    together = block_maps(tiny, images, tiny_blocks, targets, method=method)
    for place in range(3):
        alone = block_maps(tiny, images[place : place + 1], tiny_blocks, targets[place : place + 1], method=method)
        for block in tiny_blocks:
            assert torch.allclose(together[block][place], alone[block][0], rtol=1e-4, atol=1e-7)


def test_spatial_blocks(tiny: nn.Module, images: Tensor) -> None:
    names = spatial_blocks(tiny, images[:1])
    assert {"stem", "stem.0", "middle", "deep"} <= set(names)
    assert not {"fc", "dropout"} & set(names)
    assert spatial_blocks(nn.Sequential(nn.Flatten(), nn.Linear(960, 2)), images) == []
    assert spatial_blocks(nn.Flatten(), images) == []


def test_a_model_with_its_own_hooks_and_an_overridden_train_keeps_both(
    tiny: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def own_hook() -> Iterator[list[int]]:
        calls: list[int] = []
        handle = tiny.deep.register_forward_hook(lambda *_: calls.append(1))
        yield calls
        handle.remove()

    monkeypatch.setattr(type(tiny), "train", lambda self, mode=True: pytest.fail("train() was called"))
    with own_hook() as calls:
        capture(tiny, images, ["deep"])
        assert calls == [1]
        assert len(tiny.deep._forward_hooks) == 1


def test_a_container_and_its_last_module_are_one_block(images: Tensor) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model = nn.Sequential(body, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    for blocks in (["0", "0.1"], ["0.1", "0"]):
        one, other = capture(model, images, blocks, 1)
        assert torch.equal(one.activations, other.activations)
        assert torch.equal(one.gradients, other.gradients)


def test_a_training_step_under_way_is_not_disturbed(
    make_tiny: Callable[..., nn.Module], images: Tensor, tiny_blocks: tuple[str, ...]
) -> None:
    gradients = []
    for explained in (False, True):
        model = make_tiny()
        loss = model(images).logsumexp(1).sum()
        if explained:
            capture(model, images, tiny_blocks)
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


class Shuffled(nn.Module):
    """Puts out views: a chunk of a transposed tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).transpose(2, 3).chunk(2, dim=1)[0]


def test_outputs_that_are_views(images: Tensor) -> None:
    torch.manual_seed(0)
    tail = [nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    model = nn.Sequential(nn.Identity(), Shuffled(), *tail)
    maps = block_maps(model, images, ["1"], 1)["1"]
    assert torch.allclose(maps, cut_in_two(model, images, 1), atol=1e-7)


def cut_in_two(model: nn.Sequential, images: Tensor, target: int) -> Tensor:
    """Grad-CAM of module 1 by its definition, with the network cut in two."""
    A = model[1](model[0](images)).detach().clone().requires_grad_()
    hidden = A.relu()
    for part in list(model)[3:]:
        hidden = part(hidden)
    (G,) = torch.autograd.grad(hidden[:, target].sum(), A)
    return (G.mean((2, 3), keepdim=True) * A).sum(1).relu().detach()
