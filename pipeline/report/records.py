"""The records that earlier stages leave, checked on reading."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Percent = Annotated[float, Field(ge=0, le=100)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class Errors(_Record):
    """Errors of one protocol, in percent of `n_images`."""

    top1_error: Percent
    top5_error: Percent
    n_images: int = Field(ge=1)


class Sitting(_Record):
    """By what a training went on from an iteration, to the next sitting's or its end."""

    from_iteration: int = Field(ge=0)
    started: str
    git_commit: str | None = None
    git_dirty: bool | None = None
    torch: str
    hardware: dict[str, Any]
    workers: int


class Provenance(_Record):
    """Where a figure comes from; a figure that lacks any of the required fields is not shown."""

    parameters: dict[str, Any] = Field(min_length=1)
    git_commit: str | None
    git_dirty: bool | None = None
    data_digest: str = Field(min_length=1)
    packages: dict[str, str] = Field(min_length=1)
    hardware: dict[str, Any] = Field(min_length=1)
    wall_seconds: float = Field(ge=0)
    python: str | None = None
    precision: str | None = None
    seed: int | None = None
    workers: int | None = None
    started: str | None = None
    sittings: list[Sitting] | None = None
    """Of a training: more than one where it was taken up by another commit, or on other machines or workers."""


class TrainingRecord(_Record):
    """train.json of a model folder."""

    provenance: Provenance
    seed: int
    iterations: int = Field(ge=1)
    parameters: int | None = None
    """Trainable parameters of the network."""
    training_error: Percent | None = None
    warmup_ended: bool | None = None
    """None without a warm-up."""
    weights_sha256: str | None = None
    wall_seconds: float | None = None
    mlflow_run_id: str | None = None


class PrecisionError(_Record):
    """What a shorter number format changes in probabilities, against fp32's."""

    precision: str
    protocol: str
    n_images: int = Field(ge=1)
    max_difference: float = Field(ge=0)
    mean_difference: float = Field(ge=0)
    top1_disagreements: int = Field(ge=0)


class EvaluationRecord(_Record):
    """evaluate.json beside a run's predictions."""

    metrics: dict[str, Errors]
    provenance: Provenance
    weights_sha256: str | None = None
    """Of the weights that were evaluated."""
    precision_error: PrecisionError | None = None
    """None where all was computed in fp32."""
    mlflow_run_id: str | None = None


class EnsembleRecord(_Record):
    """results/<experiment>/ensembles/<name>.json: members, and errors under the protocols' names."""

    members: list[str]
    __pydantic_extra__: dict[str, Errors] = Field(init=False)

    @property
    def errors(self) -> dict[str, Errors]:
        """The ensemble's errors by protocol."""
        return dict(self.__pydantic_extra__)


class MembersRecord(_Record):
    """results/<experiment>/members/<name>.json: what is to say of an ensemble's members."""

    members: list[str]
    search: dict[str, Any] | None
    """How the members were chosen, and on what; None for declared ones."""
    leave_one_out: dict[str, dict[str, Errors]]
    """By protocol and member, the errors of the ensemble without it."""


class LayerResponse(_Record):
    """The standard deviation of one 3×3 layer's output, after BN and before ReLU or addition."""

    name: str
    std: float = Field(ge=0, allow_inf_nan=False)


class Responses(_Record):
    """responses.json: the layers in order, as Figure 7 has them."""

    layers: list[LayerResponse] = Field(min_length=1)
