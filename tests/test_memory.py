"""Freed memory is found again without page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.memory import environment

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

LARGE_PAGES = """
from pathlib import Path
import torch
from pipeline.memory import reuse_freed_memory

reuse_freed_memory()
held = torch.ones(2**24)
pages = Path("/proc/self/smaps_rollup").read_text().partition("AnonHugePages:")[2]
print(1024 * int(pages.split()[0]))
"""
"""Bytes in large pages, with 64 MiB in use."""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_large_blocks_are_found_mapped_in_a_thread_too() -> None:
    anew = 5 * 2**26 // 2**21  # by pages of 2 MiB at most
    assert _faults("usual") > anew
    assert _faults("reuse", **environment()) < anew / 4


def test_tunables_that_are_set_already_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
    assert environment()["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=0:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0:glibc.malloc.tcache_count=0")
    assert environment()["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=0:glibc.malloc.tcache_count=0"


def _large_pages_are_asked_for() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    glibc = platform.libc_ver()[0] == "glibc" and tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 35)
    return glibc and setting.exists() and "[madvise]" in setting.read_text(encoding="ascii")


@pytest.mark.skipif(not _large_pages_are_asked_for(), reason="glibc of 2.35 and a system that gives pages on demand")
def test_large_blocks_lie_in_large_pages() -> None:
    assert _output(LARGE_PAGES) < 2**21
    assert _output(LARGE_PAGES, **environment()) > 2**25


def _faults(way: str, **environment: str) -> int:
    return _output(FAULTS, way, **environment)


def _output(script: str, *arguments: str, **environment: str) -> int:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", script, *arguments]
    settings = {**os.environ, **environment}
    return int(subprocess.run(command, cwd=root, env=settings, capture_output=True, text=True, check=True).stdout)
