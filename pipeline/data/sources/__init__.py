"""The sources of images, a file each, behind one interface."""

from __future__ import annotations

from pipeline.data.sources.base import Listing, Piece, RunTasks, Sample, Source
from pipeline.data.sources.cifar10 import Cifar10
from pipeline.data.sources.class_folders import ClassFolders
from pipeline.data.sources.digits import Digits
from pipeline.data.sources.hf_parquet import HfParquet
from pipeline.data.sources.ilsvrc2012 import Ilsvrc2012
from pipeline.schema import Data
from pipeline.storage import absolute_url

__all__ = ["Listing", "Piece", "RunTasks", "Sample", "Source", "open_source"]


def open_source(data: Data) -> Source:
    """The source that `data` names; nothing is read yet."""
    if data.source == "digits":
        return Digits()
    kinds = {"cifar10": Cifar10, "ilsvrc2012": Ilsvrc2012, "class_folders": ClassFolders, "hf_parquet": HfParquet}
    assert data.url is not None  # the parameters' own check
    return kinds[data.source](absolute_url(data.url))
