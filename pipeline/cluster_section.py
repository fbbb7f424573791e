"""The section `cluster` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.section import Section, Size


def _as_workers(value: Any) -> Any:
    counts = value if isinstance(value, list | tuple) and len(value) == 2 else [value, value]
    if all(isinstance(count, int) and not isinstance(count, bool) for count in counts) and 1 <= counts[0] <= counts[1]:
        return tuple(value) if isinstance(value, list) else value
    raise PydanticCustomError("workers", "give a number of at least 1, or [least, most]")


Workers = Annotated[int | tuple[int, int], BeforeValidator(_as_workers)]


class Cluster(Section):
    """Where and how training is executed; nothing here changes trained weights beyond rounding."""

    address: str | None
    """Ray cluster to join; null starts Ray on this machine (RAY_ADDRESS, where set, comes first)."""
    workers: Workers
    """How many share each mini-batch: a number, or [least, most], of which as many as there is room for."""
    cpus_per_worker: Size | None
    """CPUs, and threads, of a worker; null divides this machine's cores among the workers, at most a node's."""
    gpus_per_worker: float = Field(ge=0)
    storage: str | None
    """Path or URL for checkpoints, which all nodes see; null keeps them under checkpoints/."""
    loader_processes: int = Field(ge=0)
    """Processes that decode and crop for each worker; 0 does it in the worker."""
    checkpoint_every: Size
    """Iterations between checkpoints."""
    checkpoints_kept: Size
    checkpoint_patience_seconds: float = Field(default=600.0, gt=0)
    """How long training goes on without a checkpoint that could be written, as while S3 is away, before it fails."""
    max_failures: int = Field(ge=0)
    """How often lost workers are replaced before the training fails."""
    joining_seconds: float | None = Field(ge=0)
    """How long nodes are waited for that would hold the workers, before the stage fails; null waits without end, as
    for nodes that the cluster adds by itself."""
    resize_seconds: float = Field(gt=0)
    """Elastic training takes nodes that came meanwhile this often, from its latest checkpoint on."""
    progress_seconds: float = Field(gt=0)

    @model_validator(mode="after")
    def _whole_gpus(self) -> Cluster:
        if self.gpus_per_worker not in (0, 1) and not (self.gpus_per_worker < 1 and self.most_workers == 1):
            raise ValueError(
                f"gpus_per_worker: {self.gpus_per_worker:g} with {self.most_workers} workers, but a worker trains on"
                " one GPU and shares it with no other: give 0 or 1, or a fraction where there is one worker"
            )
        return self

    @property
    def least_workers(self) -> int:
        """The fewest workers that training may have."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The most workers that training may have, and evaluation has."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    def counts(self, batch_size: int, bn_images: int) -> list[int]:
        """The numbers of workers, fewest first, that share mini-batches evenly in parts of `bn_images`.

        ValueError, with those that would do, where none of what is asked for does.
        """
        shares = [count for count in range(1, batch_size // bn_images + 1) if batch_size // bn_images % count == 0]
        if found := [count for count in shares if self.least_workers <= count <= self.most_workers]:
            return found
        asked = self.workers if isinstance(self.workers, int) else list(self.workers)
        raise ValueError(
            f"cluster.workers: {asked} cannot share training.batch_size {batch_size} in parts of training.bn_images"
            f" {bn_images}; what can: {', '.join(map(str, shares))}"
        )
