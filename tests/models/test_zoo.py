"""The zoo: names, options, errors and the contract of every network."""

import re

import pytest
import torch
import torchvision
from torch import nn

from pipeline.models import build, names
from pipeline.models.cifar import CifarNetwork
from pipeline.models.imagenet import ImageNetNetwork

PAPER = [
    *(
        "plain18",
        "plain34",
        "resnet18a",
        "resnet18b",
        "resnet34a",
        "resnet34b",
        "resnet34c",
        "resnet50",
        "resnet101",
        "resnet152",
    ),
    *("vgg16", "googlenet", "bn_inception", "prelu_net", "highway19", "highway32"),
    *("plain20", "plain32", "plain44", "plain56", "plain110"),
    *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
]
SMALL = {"vgg16": {"width": 0.05}, "prelu_net": {"width": 0.05}}


def small(name: str, num_classes: int) -> nn.Module:
    return build(name, num_classes, **SMALL.get(name, {}))


def test_every_network_of_the_paper_is_named():
    assert sorted(names()) == sorted(PAPER)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAPER if name != "resnet1202"])
def test_evaluation_returns_scores(name):
    network = small(name, 7).eval()
    with torch.no_grad():
        scores = network(torch.randn(2, 3, 40, 33))
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (2, 7)
    assert torch.isfinite(scores).all()
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["plain18", "resnet50", "vgg16", "bn_inception", "prelu_net", "resnet20", "highway19"])
def test_training_returns_scores(name):
    assert small(name, 7).train()(torch.randn(2, 3, 40, 33)).shape == (2, 7)


@pytest.mark.parametrize("form", ["paper", "torchvision"])
def test_googlenet_has_auxiliary_scores_in_training(form):
    network = build("googlenet", 7, form=form).train()
    outputs = network(torch.randn(2, 3, 64, 64))
    assert isinstance(outputs, tuple)
    assert [output.shape for output in outputs] == [(2, 7)] * 3
    sum(output.square().sum() for output in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        *(("resnet34a", 1), ("resnet50", 1), ("resnet20", 1), ("bn_inception", 1)),
        *(("vgg16", 32), ("googlenet", 15), ("prelu_net", 15), ("highway19", 4)),
    ],
)
def test_least_image_size(name, minimum):
    network = small(name, 3).eval()
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 3, minimum, minimum))).all()
        if minimum > 1:
            with pytest.raises(ValueError, match=f"are too small: this network needs {minimum}x{minimum}"):
                network(torch.randn(1, 3, minimum + 5, minimum - 1))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 32, 32, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"must have the shape (N, 3, H, W), not {shape}")):
        build("resnet20", 10)(torch.zeros(shape))


def test_imagenet_names_win_over_cifar_depths():
    assert isinstance(build("resnet50", 10), ImageNetNetwork)
    assert isinstance(build("plain50", 10), CifarNetwork)
    with torch.device("meta"):
        assert isinstance(build("resnet152", 10), ImageNetNetwork)


@pytest.mark.parametrize("name", ["resnet8", "plain14", "resnet26", "resnet164"])
def test_unlisted_depths_of_the_cifar_family(name):
    with torch.device("meta"):
        assert isinstance(build(name, 10), CifarNetwork)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        *(("resnet18", "resnet18a or resnet18b"), ("resnet34", "resnet34a"), ("resnet2", "resnet20")),
        *(("vgg", "vgg16"), ("gogglenet", "googlenet"), ("ResNet50", "resnet50")),
    ],
)
def test_unknown_name_suggests_and_lists(name, suggestion):
    with pytest.raises(ValueError, match=rf"unknown network '{name}'\. Did you mean .*{suggestion}") as caught:
        build(name, 10)
    assert all(known in str(caught.value) for known in PAPER)


@pytest.mark.parametrize("name", ["", "alexnet", "resnet021", "resnet21", "plain-20", "resnet20 "])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="unknown network"):
        build(name, 10)


@pytest.mark.parametrize(
    ("name", "option", "allowed"),
    [
        *(
            ("resnet50", "shortcut", "stride_in"),
            ("resnet20", "stride_in", "shortcut"),
            ("plain20", "shortcut", "none"),
        ),
        *(("resnet34a", "stride_in", "none"), ("vgg16", "dropout", "width"), ("googlenet", "width", "form")),
    ],
)
def test_unknown_option_names_the_allowed(name, option, allowed):
    with pytest.raises(ValueError, match=f"unknown option '{option}' of {name}: allowed are {allowed}$"):
        build(name, 10, **{option: "A"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50", {"stride_in": "conv5x5"}, "unknown stride_in 'conv5x5': use one of conv1x1, conv3x3"),
        ("googlenet", {"form": "caffe"}, "unknown form 'caffe' of googlenet: use paper or torchvision"),
        ("vgg16", {"width": 0}, "width must be positive, not 0"),
    ],
)
def test_option_values_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, 10, **options)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_number_of_classes_is_checked(num_classes):
    with pytest.raises(ValueError, match=f"num_classes must be at least 1, not {num_classes}"):
        build("resnet20", num_classes)


@pytest.mark.parametrize("name", ["resnet20", "googlenet", "highway19"])
def test_seed_determines_the_weights(name):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name, 10).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_default_device_places_the_network():
    assert {p.device.type for p in build("resnet20", 10).parameters()} == {"cpu"}
    with torch.device("meta"):
        assert {p.device.type for p in build("resnet20", 10).parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["resnet20", "resnet34a", "resnet50", "googlenet", "bn_inception", "highway19"])
def test_channels_last_gives_the_same_scores_and_stays(name):
    network = small(name, 5).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = network(images)
        network.to(memory_format=torch.channels_last)
        layouts = []
        last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
        last.register_forward_pre_hook(
            lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        scores = network(images.to(memory_format=torch.channels_last))
    scale = expected.abs().max()
    torch.testing.assert_close(scores / scale, expected / scale, atol=1e-5, rtol=0)
    assert all(layouts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["plain20", "resnet20", "resnet18a", "resnet50", "vgg16", "googlenet", "bn_inception", "prelu_net", "highway19"],
)
def test_forward_is_one_graph_for_the_compiler(name):
    network = small(name, 5).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images))


def test_vgg16_has_torchvisions_state():
    with torch.device("meta"):
        ours, theirs = build("vgg16", 10).state_dict(), torchvision.models.vgg16(num_classes=10).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_googlenet_in_torchvisions_form_gives_its_scores():
    theirs = torchvision.models.googlenet(num_classes=6, aux_logits=True, init_weights=False).eval()
    ours = build("googlenet", 6, form="torchvision").eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)
