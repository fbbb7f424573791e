"""Networks compiled for the device at hand, where that can be done."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn
from torch._inductor import list_options

from pipeline.compiled_norm import for_compiling

_WITH_BN = {
    # Loops over 16 channels of bf16 load and store half vectors by masks: where they write what they read, each load
    # waits for the store before it.
    "inplace_buffers": False,
    # A residual sum's gradient is read by two branches: stored once, it is not summed anew in each pass of theirs.
    "realize_reads_threshold": 2,
}
"""For networks with BN on processors, that is in training: those that predict have it folded into convolutions."""


def compiled(network: nn.Module, device: torch.device, setting: str) -> nn.Module:
    """The network compiled for each size of input; as it is, with a warning, where no C++ compiler is at hand.

    On processors its BN layers are changed in place to a form that compiles well (`for_compiling`). `setting` is the
    parameter that asked for it. Sizes are never left open, as torch would do after a second one, in later processes
    too: kernels for open sizes run their sums over images on one thread.
    """
    try:
        # Anew, as a cached product of this trifle would hide that the network itself cannot be compiled.
        torch.compile(torch.sin, options={"fx_graph_cache": False})(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or a broken compiler raises
        first_line = str(error).strip().partition("\n")[0]
        logging.getLogger(__name__).warning("%s: going on uncompiled, as compiling fails: %s", setting, first_line)
        return network
    options: dict[str, Any] = {}
    if device.type == "cpu" and for_compiling(network):
        known = list_options()
        options = {name: value for name, value in _WITH_BN.items() if name in known}
    return cast(nn.Module, torch.compile(network, dynamic=False, options=options or None))
