"""Networks compiled for the device at hand, where that can be done."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import nn
from torch._inductor import list_options

from pipeline.compiled_norm import for_compiling

_ON_CPUS = {
    # With the heuristics, one thread alone sums over images with 16 channels, however many threads there are.
    "cpp.enable_tiling_heuristics": False,
    # Loops over 16 channels of bf16 load and store half vectors by masks: where they write what they read, each load
    # waits for the store before it.
    "inplace_buffers": False,
    # A residual sum's gradient is read by two branches: stored once, it is not summed anew in each pass of theirs.
    "realize_reads_threshold": 2,
}


def compiled(network: nn.Module, device: torch.device, setting: str) -> nn.Module:
    """The network compiled for each size of input; as it is, with a warning, where no C++ compiler is at hand.

    On processors its BN layers become such as compile well (`for_compiling`), which changes nothing else of them.
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
    if device.type != "cpu":
        return cast(nn.Module, torch.compile(network, dynamic=False))
    known = list_options()
    options: dict[str, Any] = {name: value for name, value in _ON_CPUS.items() if name in known}
    return cast(nn.Module, torch.compile(for_compiling(network), dynamic=False, options=options or None))
