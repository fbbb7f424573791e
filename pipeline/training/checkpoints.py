"""Checkpoints on disk: safetensors and JSON, verified when read."""

from __future__ import annotations

import json
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
    """ValueError naming what differs between a checkpoint's training and the one that would continue it."""
    if differing := differences(values["identity"], identity):
        raise ValueError(f"the checkpoint is of another training; differing: {'; '.join(differing)}")


def differences(kept: Any, now: Any, key: str = "") -> list[str]:
    """Where two identities differ, by key: 'training.batch_size: 128 in the checkpoint, 64 now'."""
    if isinstance(kept, dict) and isinstance(now, dict):
        keys = sorted(kept.keys() | now.keys())
        return [d for k in keys for d in differences(kept.get(k), now.get(k), f"{key}.{k}" if key else k)]
    return [] if kept == now else [f"{key}: {json.dumps(kept)} in the checkpoint, {json.dumps(now)} now"]
