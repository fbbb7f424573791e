"""The script that MLflow runs to load a registered model ("models from code"); not to be imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

PACKAGE = "pipeline"
CODE = Path(__file__).with_name("code")


class ServedModel(PythonModel):
    """Class probabilities of images, by one network or an ensemble."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the members; ValueError names a file that was altered. A scoring server learns to refuse."""
        members, evaluation = (Path(context.artifacts[name]) for name in ("members", "evaluation"))
        with own_code():
            inference = importlib.import_module(f"{PACKAGE}.tracking.inference")
            self.model = inference.Model(members, evaluation)
            importlib.import_module(f"{PACKAGE}.tracking.scoring").install()

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> Any:
        """Probabilities float32 (N, classes); with params top_k, the likeliest classes. Bad requests are 400s."""
        try:
            return self.model.predict(model_input, params)
        except ValueError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


@contextmanager
def own_code() -> Iterator[None]:
    """Import from the code stored with the model, whatever package of the same name this process has loaded."""
    if not (CODE / PACKAGE).is_dir():  # while the model is being saved, this script lies in the package itself
        yield
        return
    others = _taken_out()
    sys.path.insert(0, str(CODE))
    try:
        yield
    finally:
        sys.path.remove(str(CODE))
        _taken_out()
        sys.modules.update(others)


def _taken_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in names}


mlflow.models.set_model(ServedModel())
