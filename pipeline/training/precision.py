"""Number formats: which one the hardware runs fast, and autocast to it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch


def resolve_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """'auto' is bf16 where the device multiplies it in hardware (AMX, AVX512-BF16, Ampere or newer), else fp32."""
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
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
