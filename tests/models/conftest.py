"""The golden facts, and the same random numbers for every test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "golden.yaml").read_text())


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
