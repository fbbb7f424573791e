"""The C library's memory: freed blocks kept for the next allocation, so that each step finds its memory mapped."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt(3)."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""For a process of which another thread than the first is to reuse memory: it may have an arena of its own already."""


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
