"""Freed memory is found again without page faults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.memory import ENVIRONMENT

FAULTS = """
import resource, sys, threading
import numpy as np
from pipeline.memory import reuse_freed_memory

def work():
    used_already = [bytes(1000) for _ in range(1000)]
    if sys.argv[1] == "reuse":
        assert reuse_freed_memory()
    def step():
        np.ones(2**23, np.uint8); np.ones(2**26, np.uint8)
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_large_blocks_are_found_mapped_in_a_thread_too() -> None:
    anew = 5 * 2**26 // 2**21  # by pages of 2 MiB at most
    assert _faults("usual") > anew
    assert _faults("reuse", **ENVIRONMENT) < anew / 4


def _faults(way: str, **environment: str) -> int:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", FAULTS, way]
    settings = {**os.environ, **environment}
    return int(subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True, check=True).stdout)
