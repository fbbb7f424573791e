"""The sources of images, a file each, behind one interface."""

from __future__ import annotations

from pipeline.data.sources.base import Listing, Piece, RunTasks, Sample, Source
from pipeline.data.sources.digits import Digits
from pipeline.schema import Data

__all__ = ["Listing", "Piece", "RunTasks", "Sample", "Source", "open_source"]


def open_source(data: Data) -> Source:
    """The source that `data` names; nothing is read yet."""
    match data.source:
        case "digits":
            return Digits()
        case _:
            raise ValueError(f"data.source: '{data.source}' is not there yet")
