"""Networks compiled for the device at hand, where that can be done."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn


def compiled(network: nn.Module, device: torch.device, setting: str, **options: Any) -> nn.Module:
    """The network compiled; as it is, with a warning, where nothing can be compiled, as without a C++ compiler.

    `setting` is the parameter that asked for it, `options` are torch.compile's.
    """
    try:
        # Anew, as a cached product of this trifle would hide that the network itself cannot be compiled.
        torch.compile(torch.sin, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or a broken compiler raises
        first_line = str(error).strip().partition("\n")[0]
        logging.getLogger(__name__).warning("%s: going on uncompiled, as compiling fails: %s", setting, first_line)
        return network
    return cast(nn.Module, torch.compile(network, **options))
