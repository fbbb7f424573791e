"""Names as readers know them."""

import pytest

from pipeline.models import names as networks
from pipeline.report import names


@pytest.mark.parametrize(
    ("network", "label", "kind", "depth", "family"),
    [
        ("plain20", "plain-20", "plain", 20, "cifar"),
        ("resnet1202", "ResNet-1202", "resnet", 1202, "cifar"),
        ("resnet34b", "ResNet-34 B", "resnet", 34, "imagenet"),
        ("resnet50", "ResNet-50", "resnet", 50, "imagenet"),
        ("resnet152", "ResNet-152", "resnet", 152, "imagenet"),
        ("vgg16", "VGG-16", "other", None, "imagenet"),
        ("highway19", "Highway-19", "other", None, "cifar"),
        ("my_net", "my_net", "other", None, "other"),
    ],
)
def test_a_network_in_words(network, label, kind, depth, family):
    assert names.label(network) == label
    assert names.kind(network) == kind
    assert names.depth(network) == depth
    assert names.family(network) == family


def test_every_network_of_the_zoo_belongs_to_a_family():
    assert {names.family(network) for network in networks()} == {"cifar", "imagenet"}


def test_runs_stand_plain_first_then_by_depth_shortcut_and_seed():
    runs = ["vgg16-s0", "resnet110-s1", "resnet34b-s0", "resnet110-s0", "resnet34a-s0", "plain56-s0", "plain20-s0"]
    assert sorted(runs, key=names.run_order) == [
        "plain20-s0",
        "plain56-s0",
        "resnet34a-s0",
        "resnet34b-s0",
        "resnet110-s0",
        "resnet110-s1",
        "vgg16-s0",
    ]


def test_twins_share_a_size():
    assert names.size("plain34") == names.size("resnet34a") == "34"
    assert names.size("resnet34b") == "34b"
    assert names.size("vgg16") == "vgg16"


def test_protocols_stand_from_cheap_to_dear():
    found = ["new_one", "multi_scale", "ten_crop", "single_view", "center_crop"]
    ordered = sorted(found, key=names.protocol_order)
    assert ordered == ["single_view", "center_crop", "ten_crop", "multi_scale", "new_one"]
    assert [names.protocol_label(protocol) for protocol in ordered[1:3]] == ["1-crop", "10-crop"]
    assert names.protocol_label("new_one") == "new one"


def test_an_ensemble_is_not_a_run():
    assert names.is_run("resnet20-s0")
    assert not names.is_run("paper")
