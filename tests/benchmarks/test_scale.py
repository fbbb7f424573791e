"""The arithmetic of many GPUs: rates, the bottleneck, hours and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.ours import preset
from benchmarks.page import PAGE, RESULTS
from benchmarks.scale import Assumptions, gradient_bytes, plan, runs_table, section, views_a_core
from pipeline.storage import read_json

ROOT = Path(__file__).parents[2]
PLENTY = replace(Assumptions(), gpu_rate=1000.0, s3_gbit_a_machine=1e6, cores_a_gpu=10_000, price=2.0)


def test_one_gpu_takes_the_schedules_images_by_its_rate() -> None:
    found = plan(1, 1, 500.0, "resnet50", PLENTY)
    assert found.bottleneck == "GPUs"
    assert found.images_per_second == pytest.approx(1000)
    assert found.testing == pytest.approx(30 * 50_000 / 1000 / 3600)
    assert found.hours == pytest.approx(600_000 * 256 / 1000 / 3600 + found.testing)
    assert found.dollars == pytest.approx(2 * found.hours)


def test_exchange_slows_several_machines_alone() -> None:
    assert plan(8, 1, 500.0, "resnet50", PLENTY).images_per_second == pytest.approx(8000)
    gradients = gradient_bytes("resnet50")
    step = 256 / 64 / 1000 + 0.3 * 2 * gradients * 7 / 8 / 50e9
    assert plan(64, 8, 500.0, "resnet50", PLENTY).images_per_second == pytest.approx(256 / step)


def test_small_machines_exchange_by_their_own_network_and_hide_no_more_than_the_backward_pass_takes() -> None:
    apart, exchange = replace(PLENTY, small_gbit_a_machine=10.0), 2 * gradient_bytes("resnet50") * 7 / 8 / 1.25e9
    compute = 256 / 8 / 1000
    assert 0.7 * exchange > compute * 2 / 3
    found = plan(8, 8, 500.0, "resnet50", apart).rates
    assert found["GPUs"] == pytest.approx(256 / (compute / 3 + exchange))


def test_networks_take_time_by_their_multiply_adds() -> None:
    rates = [plan(8, 1, 500.0, network, PLENTY).images_per_second for network in ("resnet50", "resnet152")]
    assert rates[0] / rates[1] == pytest.approx(11.3e9 / 3.8e9, rel=0.05)


def test_the_table_of_runs_has_all_of_the_presets() -> None:
    lines = runs_table(500.0, Assumptions()).splitlines()
    counted = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[2:]}
    assert counted.pop("all") == str(len(preset("imagenet")["runs"]))
    assert (len(counted), counted["resnet152"], counted["vgg16"]) == (13, "2", "1")


def test_the_scarcest_resource_is_the_bottleneck() -> None:
    slow_decoding = plan(8, 1, 10.0, "resnet50", replace(PLENTY, cores_a_gpu=2))
    assert (slow_decoding.bottleneck, slow_decoding.images_per_second) == ("decoding", pytest.approx(160 * 54 / 110))


def test_each_machine_reads_all_images_from_s3_once_and_waits_for_what_the_first_epoch_leaves() -> None:
    slow, fast = (plan(8, 8, 500.0, "resnet50", replace(PLENTY, small_gbit_a_machine=gbit)) for gbit in (0.1, 1e6))
    assert slow.reading == pytest.approx(1_281_167 * 110e3 / (0.1e9 / 8) / 3600)
    trained = 600_000 * 256 / slow.images_per_second / 3600
    assert slow.hours == pytest.approx(trained + slow.testing)
    assert slow.reading < 1_281_167 / slow.images_per_second / 3600, "the exchange of gradients takes longer still"
    scarce = plan(8, 1, 500.0, "resnet50", replace(PLENTY, s3_gbit_a_machine=0.1))
    epoch = 1_281_167 / 8000 / 3600
    assert scarce.hours == pytest.approx(600_000 * 256 / 8000 / 3600 + scarce.reading - epoch + scarce.testing)
    assert fast.reading < 1e-3


def test_the_presets_are_as_is_assumed() -> None:
    assert preset("imagenet")["training"]["test_every"] == Assumptions().test_every
    settings = yaml.safe_load((ROOT / "conf/cluster/ray.yaml").read_text(encoding="utf-8"))
    assert settings["loader_processes"] == Assumptions().cores_a_gpu


def test_gradients_of_resnet50_are_a_hundred_megabytes() -> None:
    assert gradient_bytes("resnet50") == pytest.approx(4 * 25.557e6, rel=1e-4)


def test_missing_measurement_is_named() -> None:
    with pytest.raises(ValueError, match="no figure of 'loader, training views on one core'"):
        views_a_core({"benchmarks": []})


def test_committed_page_shows_what_the_committed_figures_come_to() -> None:
    assert section(read_json(ROOT / RESULTS), Assumptions()) in (ROOT / PAGE).read_text(encoding="utf-8")
