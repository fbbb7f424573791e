"""A registered model's files: members' folders, checksums, protocols, the code that reads them, signature, pins."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from PIL import Image

from pipeline.models.saved import CARD, INPUT, WEIGHTS
from pipeline.provenance import digest_of
from pipeline.schema import Evaluation
from pipeline.storage import read_json, sha256_file, write_json
from pipeline.tracking.closure import copy_modules, import_closure, requirements
from pipeline.tracking.inference import CHECKSUMS, EVALUATION, default_protocol

FILES = (WEIGHTS, INPUT, CARD)
ENTRIES = ("pipeline.tracking.inference", "pipeline.tracking.scoring")
"""What the script below imports."""
SCRIPT = Path(__file__).with_name("served_model.py")


def save_package(
    path: Path, members: Mapping[str, Path], evaluation: Evaluation, example: np.ndarray | None, model: Model
) -> None:
    """Write the files of a registered model to a new folder `path`.

    `members` are model folders by run (in the order in which they are averaged); `example` is one image uint8
    (h, w, 3), grey where None. ValueError if a folder lacks a file or the members' classes differ.
    """
    class_names = common_class_names(members)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        _stage_members(staged / "members", members)
        (staged / EVALUATION).write_text(evaluation.model_dump_json(indent=2), encoding="utf-8")
        modules = import_closure(ENTRIES).values()
        copy_modules(modules, staged / "code")
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=model,
            python_model=str(SCRIPT),
            artifacts={"members": str(staged / "members"), "evaluation": str(staged / EVALUATION)},
            code_paths=[str(staged / "code" / "pipeline")],
            signature=signature(len(class_names), evaluation),
            input_example=_example_table(example, evaluation),
            pip_requirements=requirements([*modules, SCRIPT], more=["pandas"]),
        )
    for cache in path.rglob("__pycache__"):
        shutil.rmtree(cache)


def signature(num_classes: int, evaluation: Evaluation) -> ModelSignature:
    """images: a batch in any form of `as_images`; params protocol and top_k; out: float32 (N, num_classes)."""
    protocol = ParamSpec("protocol", DataType.string, default_protocol(evaluation.protocols.chosen()))
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(object), (-1,), "images")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
        params=ParamSchema([protocol, ParamSpec("top_k", DataType.long, 0)]),
    )


def weights_digest(members: Mapping[str, Path]) -> str:
    """What makes two registered models the same: a network's weights' SHA-256; an ensemble's members and theirs."""
    digests = {run: sha256_file(folder / WEIGHTS) for run, folder in members.items()}
    return next(iter(digests.values())) if len(digests) == 1 else digest_of(digests)


def package_digest(evaluation: Evaluation) -> str:
    """What else a package depends on: the protocols and our code."""
    modules = import_closure(ENTRIES)
    code = {name: sha256_file(path) for name, path in modules.items()}
    return digest_of([evaluation.model_dump(mode="json"), code, sha256_file(SCRIPT)])


def common_class_names(members: Mapping[str, Path]) -> list[str]:
    """The members' class names; ValueError where a folder is incomplete or they differ."""
    found: dict[str, list[str]] = {}
    for run, folder in members.items():
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder}: no {', '.join(missing)}; train {run} first")
        found[run] = read_json(folder / CARD)["class_names"]
    first, *others = found
    differing = [run for run in others if found[run] != found[first]]
    if differing:
        raise ValueError(f"{', '.join(differing)}: other classes than {first}; an ensemble's members must share them")
    return found[first]


def _stage_members(target: Path, members: Mapping[str, Path]) -> None:
    checksums = {}
    for run, folder in members.items():
        (target / run).mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(folder / name, target / run / name)
            checksums[f"{run}/{name}"] = sha256_file(target / run / name)
    write_json(target / CHECKSUMS, {"members": list(members), "files": checksums})


def _example_table(example: np.ndarray | None, evaluation: Evaluation) -> pd.DataFrame:
    """One image as base64 PNG, in the form that can be posted to a serving process."""
    image = np.full((*[_example_side(evaluation)] * 2, 3), 128, np.uint8) if example is None else example
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return pd.DataFrame({"images": [base64.b64encode(buffer.getvalue()).decode("ascii")]})


def _example_side(evaluation: Evaluation) -> int:
    sides = [
        getattr(p, "shorter_side", None) or getattr(p, "crop", None) for p in evaluation.protocols.chosen().values()
    ]
    return max((side for side in sides if side), default=32)
