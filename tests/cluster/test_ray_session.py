"""Ray for a stage: a cluster that is not there is refused at once, and none is started before there is work."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import services, utils
from ray._private.node import Node

from infra.processes import free_ports
from pipeline import cluster
from pipeline.data.prepare import prepare
from pipeline.storage import StorageError
from tests.cluster.conftest import small_params
from tests.data.material import data


def negative(number: int) -> int:
    return -number


def test_an_address_at_which_nothing_answers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    refused = cluster.session(small_params().cluster)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127\.0\.0\.1:"), refused:
        pass
    assert time.monotonic() - began < 30, "Ray alone takes most of a minute"
    assert not ray.is_initialized()


def test_no_ray_to_be_found_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set))  # another's Ray may run on this machine
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    anywhere = small_params().cluster.model_copy(update={"address": "auto"})
    expected = r"no Ray cluster answers at auto \(.*; start it, or set RAY_ADDRESS"
    with pytest.raises(cluster.NoClusterError, match=expected), cluster.session(anywhere):
        pass
    assert not ray.is_initialized()


@pytest.mark.slow
def test_tasks_that_no_node_could_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_CORES", "0")
    hasty = small_params().cluster.model_copy(update={"joining_seconds": 0.5})
    with (
        cluster.mapping(hasty) as run_tasks,
        pytest.raises(ValueError, match=r"1 of 1 CPU each do not fit .*\(0 CPU\)"),
    ):
        run_tasks(negative, [1])


def test_ray_is_not_started_for_a_source_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="nowhere: cannot be read"),
        cluster.mapping(small_params().cluster) as run_tasks,
    ):
        prepare(data("cifar10", tmp_path / "nowhere"), tmp_path / "store", run_tasks=run_tasks)
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_ray_of_our_own_runs_neither_autoscaler_nor_dashboard_nor_reader_of_logs() -> None:
    started = Node.start_monitor, Node.start_log_monitor, Node.start_api_server, utils.get_dashboard_dependency_error
    with cluster.session(small_params().cluster):
        assert ray.get(ray.remote(negative).remote(3)) == -3
        running = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert any("gcs_server" in line for line in running)
    unwanted = ("/autoscaler/", "/log_monitor.py", "dashboard/dashboard.py")
    assert not [line for line in running if any(name in line for name in unwanted)]
    assert any(line.startswith("ray::DashboardAgent") for line in running)
    as_it_was = Node.start_monitor, Node.start_log_monitor, Node.start_api_server, utils.get_dashboard_dependency_error
    assert as_it_was == started, "others that start a Ray get all of it"


def refuse(number: int) -> int:
    raise (StorageError if number else RuntimeError)("nothing can be written")


@pytest.mark.slow
def test_tasks_share_one_session_which_ends_with_the_block_and_refuse_in_their_own_words() -> None:
    with cluster.mapping(small_params().cluster) as run_tasks:
        assert list(run_tasks(negative, [-1, 2])) == [1, -2]
        assert list(run_tasks(negative, [3])) == [-3]
        with pytest.raises(StorageError) as refused:
            list(run_tasks(refuse, [1]))
        assert str(refused.value) == "nothing can be written"
        with pytest.raises(RuntimeError, match=r"(?s)ray::refuse.*line \d+, in refuse.*nothing can be written"):
            list(run_tasks(refuse, [0]))
        assert ray.is_initialized()
    assert not ray.is_initialized()
