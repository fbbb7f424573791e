"""A trained network in a folder from which alone it can be rebuilt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.models.zoo import build
from pipeline.storage import read_json, sha256_file, write_json

WEIGHTS = "weights.safetensors"
CARD = "model.json"
INPUT = "input.safetensors"


@dataclass(frozen=True)
class Card:
    """What rebuilds a network around its weights."""

    experiment: str
    run: str
    network: str
    options: dict[str, Any]
    class_names: list[str]

    def build(self) -> nn.Module:
        """The network, with fresh weights."""
        return build(self.network, len(self.class_names), **self.options)


def save_network(folder: Path, network: nn.Module, card: Card) -> str:
    """Write weights and card; the weights' SHA-256, which the card holds too."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    digest = sha256_file(folder / WEIGHTS)
    write_json(folder / CARD, {**asdict(card), "weights_sha256": digest})
    return digest


def load_network(folder: str | Path) -> tuple[nn.Module, Card]:
    """The network of a model folder, in evaluation mode; ValueError if its weights are not those that were saved."""
    folder = Path(folder)
    values = read_json(folder / CARD)
    expected = values.pop("weights_sha256")
    found = sha256_file(folder / WEIGHTS)
    if found != expected:
        raise ValueError(f"{folder / WEIGHTS}: SHA-256 {found}, but {CARD} says {expected}: the file was altered")
    card = Card(**values)
    network = card.build()
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.eval(), card
