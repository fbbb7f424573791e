"""What every section of params.yaml is made of: strict, frozen sections and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Precision = Literal["auto", "fp32", "bf16"]
Percent = Annotated[float, Field(ge=0, le=100)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Size = Annotated[int, Field(ge=1)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Sizes = Annotated[tuple[Size, ...], BeforeValidator(_as_tuple)]


def _as_pair(value: Any) -> Any:
    if isinstance(value, list) and len(value) != 2:
        raise PydanticCustomError("pair", "give two figures, the smallest and the largest")
    return _as_tuple(value)


SizeRange = Annotated[tuple[Size, Size], BeforeValidator(_as_pair)]


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float):
        return value
    raise PydanticCustomError("plain", "give text, a number, true or false")


Option = Annotated[str | int | float | bool, BeforeValidator(_plain)]


class Section(BaseModel):
    """A part of the parameters: unknown keys and wrong types are errors, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
