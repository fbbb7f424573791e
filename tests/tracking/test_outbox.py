"""Messages in order, kept while the other side is away, given up when it refuses; each said once."""

from __future__ import annotations

import threading

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from pipeline.tracking.outbox import Outbox


def test_a_refusal_after_an_absence_is_said_as_well(caplog: pytest.LogCaptureFixture) -> None:
    outbox, tries = Outbox("digits/resnet20-s3", first_wait=0.01), 0
    sent: list[int] = []
    later = threading.Event()

    def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError(f"try {tries}")
        sent.append(1)

    def refused() -> None:
        later.set()
        raise MlflowException("no such thing", INVALID_PARAMETER_VALUE)

    outbox.put(away)
    outbox.put(lambda: sent.append(2))
    outbox.put(refused)
    assert later.wait(60)
    outbox.put(lambda: sent.append(3))
    assert not outbox.close(60)
    assert sent == [1, 2]
    assert [record.message for record in caplog.records] == [
        "digits/resnet20-s3: MLflow cannot be reached (try 1); what is to be logged is kept and sent later",
        "digits/resnet20-s3: MLflow refuses what is logged, so nothing more will be: no such thing",
    ]
