"""Number formats: which one the hardware runs fast, and autocast to it."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch.nn import functional


def resolve_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """'auto' is bf16 where the device multiplies it in hardware and is faster for it, else fp32.

    That is so on GPUs of Ampere or newer and on processors with AMX; those with AVX512-BF16 alone differ (AMD's gain by
    it, some of Intel's lose), so that one convolution is tried in both formats.
    """
    if precision == "auto":
        return "bf16" if _fast_bf16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision: '{precision}' is not one of auto, fp32, bf16")
    return "bf16" if precision == "bf16" else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Autocast for a resolved precision; weights and their gradients stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def make_deterministic() -> None:
    """Kernels that give the same bits for the same input, at some cost in speed."""
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and _convolves_faster_in_bf16())


@functools.cache
def _convolves_faster_in_bf16() -> bool:
    """Whether this processor's best time for a convolution is lower in bf16; takes some 50 ms, draws no numbers."""
    images = torch.ones(8, 64, 32, 32).to(memory_format=torch.channels_last)
    weights = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last)
    short_images, short_weights = images.bfloat16(), weights.bfloat16()
    rounds = range(8)  # the first one finds kernels; others may be interrupted
    times = [(_seconds(images, weights), _seconds(short_images, short_weights)) for _ in rounds]
    fp32, bf16 = (min(way) for way in zip(*times, strict=True))
    return bf16 < fp32


@torch.inference_mode()
def _seconds(images: torch.Tensor, weights: torch.Tensor) -> float:
    began = time.perf_counter()
    functional.conv2d(images, weights, padding=1)
    return time.perf_counter() - began
