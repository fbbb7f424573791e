"""Checkpoints on disk: safetensors and JSON, verified when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.storage import read_json, sha256_file, write_json

TENSORS = "state.safetensors"
VALUES = "state.json"


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete or not what was written."""


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Write a training's state into `folder`; the JSON comes last and holds the tensors' checksum."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    write_json(folder / VALUES, {**values, "tensors_sha256": sha256_file(folder / TENSORS)})


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A state that `write_checkpoint` wrote; DamagedCheckpointError when a file is missing, cut short or altered."""
    try:
        values = read_json(folder / VALUES)
        found = sha256_file(folder / TENSORS)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{folder}: {error}") from error
    if found != values.get("tensors_sha256"):
        raise DamagedCheckpointError(f"{folder / TENSORS}: its SHA-256 is {found}, not that of {VALUES}")
    return load_file(folder / TENSORS), values


def check_identity(values: dict[str, Any], identity: dict[str, Any]) -> None:
    """ValueError naming the keys in which a checkpoint's training differs from the one that would continue it."""
    differing = sorted(_differences(values["identity"], identity))
    if differing:
        raise ValueError(f"the checkpoint is of another training; differing: {', '.join(differing)}")


def _differences(one: Any, other: Any, key: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [d for k in keys for d in _differences(one.get(k), other.get(k), f"{key}.{k}" if key else k)]
    return [] if one == other else [key]
