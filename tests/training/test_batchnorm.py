"""Recomputed BN statistics are the strict average over the images given."""

import torch
from torch import nn

from pipeline.training.batchnorm import recompute_statistics, split_batch


def test_mean_and_variance_are_plain_averages_whatever_was_there_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    batches = [torch.randn(8, 3, 4, 4) * scale + scale for scale in (1.0, 2.0, 5.0)]
    nn.init.constant_(network[0].running_mean, 100.0)
    recompute_statistics(network, batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(network[0].running_mean, means)
    torch.testing.assert_close(network[0].running_var, variances)


def test_later_layers_see_what_training_shows_them_and_settings_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3)).train()
    batch = torch.randn(16, 3, 4, 4) * 7 + 3
    recompute_statistics(network, [batch])
    torch.testing.assert_close(network[1].running_mean, torch.zeros(3), atol=1e-5, rtol=0)
    assert network[0].momentum == 0.3
    assert network.training


def test_dropout_is_off_and_a_network_without_bn_is_left_alone() -> None:
    dropout = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2))
    recompute_statistics(dropout, [torch.ones(64, 2)])
    torch.testing.assert_close(dropout[1].running_mean, torch.ones(2))
    recompute_statistics(nn.Linear(2, 2), iter([]))


def test_split_batch_covers_every_image_once() -> None:
    parts = list(split_batch(torch.arange(10), 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.cat(parts).tolist() == list(range(10))
