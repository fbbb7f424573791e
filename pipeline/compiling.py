"""Networks compiled for the device at hand, where that can be done."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn
from torch._inductor import list_options

_ON_CPUS = {"cpp.enable_tiling_heuristics": False}
"""With the heuristics, one thread alone sums the gradients of a BN with 16 channels, however many threads there are."""


def compiled(network: nn.Module, device: torch.device, setting: str) -> nn.Module:
    """The network compiled for each size of input; as it is, with a warning, where no C++ compiler is at hand.

    `setting` is the parameter that asked for it. Sizes are never left open, as torch would do after a second one, in
    later processes too: kernels for open sizes run their sums over images on one thread.
    """
    try:
        # Anew, as a cached product of this trifle would hide that the network itself cannot be compiled.
        torch.compile(torch.sin, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or a broken compiler raises
        first_line = str(error).strip().partition("\n")[0]
        logging.getLogger(__name__).warning("%s: going on uncompiled, as compiling fails: %s", setting, first_line)
        return network
    known = list_options()
    chosen: dict[str, Any] = {name: value for name, value in _ON_CPUS.items() if device.type == "cpu" and name in known}
    return cast(nn.Module, torch.compile(network, dynamic=False, options=chosen or None))
