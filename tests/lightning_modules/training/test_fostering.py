"""The entropy of maps in the loss: against create_graph, finite differences and the measures, on tiny networks."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from explain import MEASURES, capture
from explain.attribution import gradcam
from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.cam_gradient import gap_linear, gap_maps, gradient_maps
from lightning_modules.training.classifier import Classifier
from lightning_modules.training.fostering import Fostering, cam_entropy, check_target, map_scores, target_block

CLASSES = 3


def _gap() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))


def _layers() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, CLASSES))


def _net(head: Callable[[], nn.Sequential] = _gap, *, norm: bool = False, seed: int = 0) -> BlockNet:
    torch.manual_seed(seed)
    blocks = OrderedDict[str, nn.Module](
        first=nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh()),
        second=nn.Sequential(nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Tanh()),
    )
    net = BlockNet(blocks, head(), mean=(0.5,) * 3, std=(1.0,) * 3, architecture="tiny", pretrained=True)
    return net.double()


IMAGES = torch.rand(6, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def _loss(net: BlockNet, block: int, beta: float, cut: int = 0) -> Tensor:
    """What a trial minimises."""
    with torch.no_grad():
        activations = net.prefix(IMAGES, cut)
    logits, term = Fostering(net, block, beta).train_on(activations, LABELS, cut)
    return F.cross_entropy(logits, LABELS) + term


def _reference(net: BlockNet, block: int, beta: float) -> Tensor:
    """The same by the textbook: the whole network twice differentiable, entropies by the formula, live maps only."""
    A = net.prefix(IMAGES, block + 1)
    logits = net.suffix(A, block + 1)
    (G,) = torch.autograd.grad(logits.gather(1, LABELS[:, None]).sum(), A, create_graph=True)
    maps = F.relu((G.mean((2, 3), keepdim=True) * A).sum(1))
    terms = []
    for one in maps:
        if one.sum() > 0:
            share = one[one > 0] / one.sum()
            terms.append(-(share * share.log()).sum())
    return F.cross_entropy(logits, LABELS) + beta * torch.stack(terms).mean()


def _gradients(loss: Tensor, net: BlockNet) -> list[Tensor]:
    parameters = [p for p in net.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize(("head", "block"), [(_gap, 1), (_gap, 0), (_layers, 1), (_layers, 0)])
def test_gradients_are_those_of_a_graph_of_everything(head: Callable[[], nn.Sequential], block: int) -> None:
    net = _net(head).eval()
    ours, theirs = _loss(net, block, 0.7), _reference(net, block, 0.7)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    for one, other in zip(_gradients(ours, net), _gradients(theirs, net), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize(("head", "block"), [(_gap, 1), (_layers, 0)])
def test_gradients_are_finite_differences(head: Callable[[], nn.Sequential], block: int) -> None:
    net = _net(head, seed=3).eval()
    gradients = _gradients(_loss(net, block, 5.0), net)
    step = 1e-6
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        place = int(gradient.abs().argmax())
        flat = parameter.data.view(-1)
        values = []
        for sign in (1, -1):
            flat[place] += sign * step
            values.append(_loss(net, block, 5.0).item())
            flat[place] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(
            float(gradient.view(-1)[place]), rel=1e-5, abs=1e-9
        )


def test_gradients_are_the_closed_form() -> None:
    """d ce / d A_k = 1[M > 0] W_ck g and d ce / d W_ck = sum 1[M > 0] A_k g, with g = -(ln M_bar + ce) / sum M."""
    net = _net()
    A = torch.randn(6, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    linear = net.head[2]
    maps = gap_maps(A, LABELS, linear)
    ce, live = cam_entropy(maps)
    assert live.all()
    by_activation, by_weight = torch.autograd.grad(ce.sum(), (A, linear.weight))
    with torch.no_grad():
        total = maps.sum((1, 2), keepdim=True)
        g = torch.where(maps > 0, -((maps / total).clamp_min(1e-300).log() + ce[:, None, None]) / total, 0)
        W = linear.weight[LABELS]
        assert torch.allclose(by_activation, W[:, :, None, None] * g[:, None], atol=1e-12)
        expected = torch.zeros_like(linear.weight).index_add_(0, LABELS, (A * g[:, None]).sum((2, 3)))
        assert torch.allclose(by_weight, expected, atol=1e-12)


def test_maps_are_gradcam_of_the_true_class() -> None:
    for net, block in ((_net(_gap), 1), (_net(_layers), 1), (_net(_layers, norm=True), 0)):
        net.float().eval()
        signals = capture(net, IMAGES.float(), [f"blocks.{net.block_names[block]}"], LABELS)
        theirs = gradcam(signals.blocks[0])
        _, ours = Fostering(net, block, 0).observe(net.prefix(IMAGES.float(), 0), LABELS, 0)
        entropies = cam_entropy(ours)[0], MEASURES["ce"](theirs).float().nan_to_num(0)
        assert torch.allclose(*entropies, atol=1e-5)
    with torch.no_grad():
        A = _net().prefix(IMAGES, 2)
        linear = _net().head[2]
        analytic, general = gap_maps(A, LABELS, linear), gradient_maps(_net(), A, LABELS, 1, create_graph=False)
    assert torch.allclose(analytic / 16, general, atol=1e-14)


@given(st.lists(st.floats(0, 1e6, width=32), min_size=6, max_size=6))
def test_the_entropy_is_the_measure(values: list[float]) -> None:
    maps = torch.tensor(values, dtype=torch.float64).view(1, 2, 3).requires_grad_()
    entropy, live = cam_entropy(maps)
    (gradient,) = torch.autograd.grad(entropy.sum(), maps)
    assert torch.isfinite(gradient).all()
    assert bool(live) is (max(values) > 0)
    if live:
        assert entropy.item() == pytest.approx(MEASURES["ce"](maps.detach()).item(), abs=1e-9)
        assert -1e-9 <= entropy.item() <= math.log(6) + 1e-9
    else:
        assert entropy.item() == 0 and not gradient.any()


def test_a_step_down_the_gradient_sharpens_maps() -> None:
    """The sign: beta > 0 lowers the entropy, which a uniform map, a stationary point, shows at its largest."""
    net = _net().eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    before = cam_entropy(Fostering(net, 1, 1).observe(net.prefix(IMAGES, 0), LABELS, 0)[1])[0].mean()
    for _ in range(20):
        optimizer.zero_grad()
        _loss(net, 1, 5.0).backward()
        optimizer.step()
    after = cam_entropy(Fostering(net, 1, 1).observe(net.prefix(IMAGES, 0), LABELS, 0)[1])[0].mean()
    assert after < before - 0.1
    uniform = torch.ones(1, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cam_entropy(uniform)[0].sum(), uniform)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-12)


def test_dead_maps_are_masked_and_counted() -> None:
    net = _net()
    with torch.no_grad():
        net.head[2].weight.abs_()[0] = -1.0
    A = torch.rand(6, 4, 4, 4, dtype=torch.float64)  # positive: the maps of class 0 are dead
    fostering = Fostering(net, 1, 2.0)
    _, term = fostering.train_on(A, LABELS, 2)
    term.backward()
    assert torch.isfinite(net.head[2].weight.grad).all() and not net.head[2].weight.grad[0].any()
    ce, live = cam_entropy(gap_maps(A, LABELS, net.head[2]))
    assert live.tolist() == (LABELS != 0).tolist()
    assert term.item() == pytest.approx(2.0 * ce.sum().item() / 4)
    assert fostering.of_training() == {"ce": pytest.approx(term.item() / 2), "dead_maps": pytest.approx(1 / 3)}
    with torch.no_grad():
        net.head[2].weight[:] = -1.0
    fostering.start_epoch()
    assert fostering.train_on(A, LABELS, 2)[1].item() == 0.0
    every = fostering.of_training()
    assert math.isnan(every["ce"]) and every["dead_maps"] == 1


@pytest.mark.parametrize("head", [_gap, _layers])
def test_behind_a_frozen_target_only_the_head_moves(head: Callable[[], nn.Sequential]) -> None:
    net = _net(head).eval()
    net.blocks.requires_grad_(False)
    loss = _loss(net, 1, 0.7, cut=2)
    assert loss.item() == pytest.approx(_loss(net, 1, 0.7).item(), abs=1e-12)  # the same from the images on
    loss.backward()
    assert all(p.grad is None for p in net.blocks.parameters())
    assert any(bool(p.grad.any()) for p in net.head.parameters())
    reference = _net(head).eval()
    expected = _gradients(_reference(reference, 1, 0.7), reference)[-2]
    assert torch.allclose(list(net.head.parameters())[-2].grad, expected, atol=1e-12)


def test_what_lies_before_the_cut_cannot_be_fostered() -> None:
    with pytest.raises(ValueError, match="cut must be at most 1"):
        Fostering(_net(), 0, 1.0).observe(torch.zeros(2, 4, 4, 4), LABELS[:2], 2)


def test_batch_norm_behind_the_block_is_a_constant_and_stays_as_it_was() -> None:
    """In train mode, each image's gradient is its own; running statistics move once a step, as without fostering."""
    plain, net = _net(norm=True).train(), _net(norm=True).train()
    x = net.prefix(IMAGES, 0)
    plain.suffix(plain.prefix(IMAGES, 0), 0)
    logits, maps = Fostering(net, 0, 1.0).observe(x, LABELS, 0)
    assert all(module.training for module in net.modules())
    for one, other in zip(net.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)
    A = net.between(x, 0, 1)
    layer = net.blocks[1][1]
    mean, variance = (f(net.blocks[1][0](A), (0, 2, 3)) for f in (torch.mean, lambda t, d: t.var(d, correction=0)))
    reference = _net(norm=True).eval()
    reference.blocks[1][1].running_mean, reference.blocks[1][1].running_var = mean.detach(), variance.detach()
    with torch.no_grad():
        assert torch.allclose(reference.suffix(A, 1), logits)
    expected = gradient_maps(reference, A, LABELS, 0)
    assert torch.allclose(maps, expected, atol=1e-10)
    assert layer.momentum == 0.1


def test_dropout_does_not_reach_the_maps() -> None:
    net = _net(_layers).train()
    x = net.prefix(IMAGES, 0)
    torch.manual_seed(0)
    logits, maps = Fostering(net, 1, 1.0).observe(x, LABELS, 0)
    torch.manual_seed(0)
    assert torch.equal(net.suffix(x, 0), logits)  # and draws nothing from the generator before the logits do
    assert torch.allclose(maps, Fostering(net.eval(), 1, 1.0).observe(x, LABELS, 0)[1])


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(4, CLASSES)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)),
        _layers(),
    ],
    ids=["max pooling", "an activation", "no pooling", "two layers"],
)
def test_only_pooling_and_a_linear_layer_take_the_short_way(head: nn.Sequential) -> None:
    net = _net(lambda: head).float()
    A = torch.rand(2, 4, 4, 4)
    assert gap_linear(net, A) is None
    assert gap_linear(_net().float(), A) is not None
    assert gap_linear(_net(lambda: nn.Sequential(*_gap()[:2], nn.Dropout(0.5), _gap()[2])).float().train(), A)


def test_under_bfloat16_autocast_maps_are_computed_in_float32() -> None:
    for head in (_gap, _layers):
        net = _net(head).float().eval()
        x = net.prefix(IMAGES.float(), 0)
        with torch.autocast("cpu", torch.bfloat16):
            logits, maps = Fostering(net, 1, 1.0).observe(x, LABELS, 0)
            A = net.between(x, 0, 2)
        assert maps.dtype == torch.float32
        linear = gap_linear(net, A)
        expected = gap_maps(A, LABELS, linear) if linear is not None else gradient_maps(net, A.float(), LABELS, 1)
        assert torch.allclose(maps, expected, rtol=1e-6)
        loss = F.cross_entropy(logits.float(), LABELS) + cam_entropy(maps)[0].mean()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_micro_batches_give_the_same_gradient() -> None:
    """Where every map is live; elsewhere each part is averaged over its own live maps."""
    net = _net().eval()
    with torch.no_grad():
        net.head[2].weight.abs_()
    A = torch.rand(6, 4, 4, 4, dtype=torch.float64)
    model = Classifier(net, 0, "sgd", 1.0, fostering=Fostering(net, 1, 2.0))
    model.freeze_depth = 2  # batches are activations of the last block
    gradients = []
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        net.zero_grad()
        for part in parts:
            share = len(LABELS[part]) * len(parts) / len(LABELS)
            (model.training_step((A[part], LABELS[part], share)) / len(parts)).backward()  # as Lightning accumulates
        gradients.append(net.head[2].weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-14)


def test_beta_zero_takes_the_same_step() -> None:
    def step(fostering: bool, beta: float) -> list[Tensor]:
        net = _net(_layers, norm=True).float()
        made = Fostering(net, 1, beta) if fostering else None
        model = Classifier(net, 0, "momentum", 1.0, fostering=made).train()
        torch.manual_seed(5)
        model.training_step((net.prefix(IMAGES.float(), 0), LABELS, 1)).backward()
        return [p.grad for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(step(False, 0), step(True, 0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(step(False, 0), step(True, 1), strict=True))


def test_scores_of_maps() -> None:
    maps = torch.zeros(3, 2, 2)
    maps[0] = 1.0
    maps[1, 0, 0] = 2.0
    found = map_scores([maps[:2], maps[2:]])
    assert found["dead_maps"] == pytest.approx(1 / 3)
    assert found["ce"] == pytest.approx(math.log(4) / 2)
    assert found["ce_normalised"] == pytest.approx(0.5)
    assert found["cd"] == pytest.approx(1.5)
    assert found["relative_difference"] == pytest.approx(2.0)
    assert all(math.isnan(v) for v in map_scores([maps * math.nan]).values())
    assert math.isnan(map_scores([maps[2:]])["ce"])


def test_targets_are_checked() -> None:
    net = _net().float()
    assert target_block(net, None) == 1
    assert target_block(net, "first") == 0
    with pytest.raises(
        InputError, match=r"^trainer.fostering.block must be null or one of first, second, got 'third'$"
    ):
        target_block(net, "third")
    check_target(net, "first", (4, 4), 1)
    with pytest.raises(InputError, match=r"needs freeze depths of at most 1.*space.freeze_depth=\[0,1\]"):
        check_target(net, "first", (4, 4), 2)
    with pytest.raises(InputError, match="map of more than one position, got 1 x 1 at block second of 1 x 1 px"):
        check_target(net, None, (1, 1), 2)
    with pytest.raises(ValueError, match="beta must be 0 or more"):
        Fostering(net, 1, -1.0)
    with pytest.raises(ValueError, match=r"block must be in 0\.\.1"):
        Fostering(net, 2, 1.0)
