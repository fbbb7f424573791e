"""The C library's memory: freed blocks kept for the next allocation, so that each step finds its memory mapped."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt(3)."""
_LARGE_PAGES = "glibc.malloc.hugetlb"
"""Of GLIBC_TUNABLES, since glibc 2.35: 1 asks the system for pages of 2 MiB, where it leaves that to the programs."""


def environment() -> dict[str, str]:
    """What a process that trains is started with: variables that the C library reads before anything else runs.

    One arena, as a thread other than the first may have one of its own before `reuse_freed_memory` is called; and large
    pages, unless GLIBC_TUNABLES says something of them already.
    """
    tunables = [each for each in os.environ.get("GLIBC_TUNABLES", "").split(":") if each]
    if not any(each.startswith(f"{_LARGE_PAGES}=") for each in tunables):
        tunables.append(f"{_LARGE_PAGES}=1")
    return {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": ":".join(tunables)}


def reuse_freed_memory() -> bool:
    """Have this process keep what it frees; whether the C library can be told so (glibc alone can).

    Otherwise a block of some megabytes is given back to the system and asked for again at each step of training, and
    every page of it is faulted in and zeroed anew. No more is held than the largest amount that was in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    # One arena: those of other threads, and Ray trains in one, are cut into heaps of 64 MiB that are given back whole.
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
