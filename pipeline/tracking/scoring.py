"""What `mlflow models serve` answers to requests at fault: a 4xx whose reason can be read; and to an image as it is.

MLflow's scoring server fails with 500, before it asks the model, where a request has no content type, nests JSON some
thousand levels deep, or has an integer of thousands of digits; and its reason repeats the refused request, megabytes of
base64 and all. The model is loaded before the first request: there, in a process of that server and in no other, the
one function that answers is wrapped.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server import InvocationsResponse

MOST_BYTES = 100_000_000
"""Of a request's body."""
SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module that `mlflow models serve` has uvicorn import, and which loads the model."""
TOP_K = 5
"""Classes in the answer to an image that was sent as it is."""
_LONGEST_REASON = 800
_log = logging.getLogger(__name__)

Answer = Callable[[bytes, str | None, Any, Any], InvocationsResponse]


def install() -> bool:
    """Wrap what answers requests, once, where this process is MLflow's scoring server; whether it is one."""
    if SERVER not in sys.modules:
        return False
    if not hasattr(scoring_server.invocations, "__wrapped__"):
        scoring_server.invocations = answering(scoring_server.invocations)
    return True


def answering(invocations: Answer) -> Answer:
    """`invocations` of MLflow's scoring server, with errors of the request's as 413, 415 or 400 and a short reason.

    A body with a content type image/… is an image, whose five likeliest classes are the answer.
    """

    @functools.wraps(invocations)
    def answer(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> InvocationsResponse:
        if len(data) > MOST_BYTES:
            return InvocationsResponse(f"more than {MOST_BYTES:,} bytes", 413, "text/plain")
        if not (content_type or "").partition(";")[0].strip():
            return InvocationsResponse("no Content-Type; give application/json or image/jpeg", 415, "text/plain")
        try:
            return invocations(*_as_json(data, str(content_type), model), model, input_schema)
        except MlflowException as error:
            _log_trace(error)
            reason = error.message.rpartition("\nError: ")[2]
        except (ValueError, RecursionError) as error:  # of the parser, for what it refuses to read
            reason = f"the request cannot be read: {error}"
        raise MlflowException(_shortened(reason), error_code=BAD_REQUEST)

    return answer


def _as_json(body: bytes, content_type: str, model: Any) -> tuple[bytes, str]:
    if not content_type.strip().lower().startswith("image/"):
        return body, content_type
    classes = model.metadata.get_output_schema().inputs[0].shape[-1]
    tree = {"inputs": [base64.b64encode(body).decode("ascii")], "params": {"top_k": min(TOP_K, classes)}}
    return json.dumps(tree).encode(), scoring_server.CONTENT_TYPE_JSON


def _log_trace(error: MlflowException) -> None:
    trace = error.json_kwargs.get("stack_trace")
    if trace:
        _log.error("an unexpected error: %s", trace)


def _shortened(text: str) -> str:
    """At most some hundred characters of it, of both ends: what is wrong stands at either."""
    half = _LONGEST_REASON // 2
    return text if len(text) <= _LONGEST_REASON else f"{text[:half]} … {text[-half:]}"
