"""Checkpoints come back as written, and damage is seen."""

import re
from pathlib import Path

import pytest
import torch

from pipeline.training.checkpoints import (
    TENSORS,
    VALUES,
    DamagedCheckpointError,
    check_identity,
    read_checkpoint,
    write_checkpoint,
)

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)}


def test_tensors_and_values_come_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, {"iteration": 7, "curve": [{"x": 0.1}]})
    tensors, values = read_checkpoint(tmp_path)
    assert {name: torch.equal(tensors[name], STATE[name]) for name in STATE} == {"a": True, "b": True}
    assert (values["iteration"], values["curve"]) == (7, [{"x": 0.1}])


@pytest.mark.parametrize("name", [TENSORS, VALUES])
@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_damage_is_seen(tmp_path: Path, name: str, damage: str) -> None:
    write_checkpoint(tmp_path, STATE, {"iteration": 7})
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content.replace(content[-20:-10], b"0123456789") if name == TENSORS else b"{}")
    with pytest.raises(DamagedCheckpointError, match=str(tmp_path)):
        read_checkpoint(tmp_path)


def test_another_trainings_checkpoint_is_refused_with_the_differing_keys() -> None:
    mine = {"network": "resnet20", "training": {"batch_size": 64, "optimizer": {"learning_rate": 0.1}}}
    other = {"network": "resnet20", "training": {"batch_size": 32, "optimizer": {"learning_rate": 0.2}}}
    check_identity({"identity": mine}, mine)
    expected = (
        "differing: training.batch_size: 32 in the checkpoint, 64 now;"
        " training.optimizer.learning_rate: 0.2 in the checkpoint, 0.1 now"
    )
    with pytest.raises(ValueError, match=f"{re.escape(expected)}$"):
        check_identity({"identity": other}, mine)
