"""Samples of this machine's load, on the page of a run."""

from __future__ import annotations

import threading

import pytest

from pipeline.tracking import store
from pipeline.tracking.system_metrics import SystemMetrics
from tests.tracking.test_runs import begin

pytestmark = pytest.mark.slow


def test_samples_come_until_stopped() -> None:
    samples: list[dict[str, float]] = []
    two = threading.Event()

    def take(sample: dict[str, float]) -> None:
        samples.append(sample)
        if len(samples) == 2:
            two.set()

    metrics = SystemMetrics(take, every=0.05)
    assert two.wait(30)
    metrics.stop()
    metrics._thread.join(10)
    assert not metrics._thread.is_alive()
    assert all(0 <= sample["system/cpu_utilization_percentage"] <= 100 for sample in samples)
    assert 0 < samples[0]["system/system_memory_usage_percentage"] < 100
    assert {"system/disk_usage_percentage", "system/network_receive_megabytes"} <= set(samples[0])


def test_mlflow_s_switch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    assert not SystemMetrics(lambda sample: None)._thread.is_alive()


@pytest.mark.parametrize(("given", "seconds"), [("2.5", 2.5), ("", 10.0), ("10s", 10.0), ("0", 10.0), ("-1", 10.0)])
def test_an_interval_that_is_none_is_passed_over(
    given: str, seconds: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", given)
    assert SystemMetrics(lambda sample: None)._every == seconds
    assert bool(caplog.messages) == (given in ("10s", "0", "-1"))


def test_they_are_logged_by_the_second_of_the_run_across_its_resumption(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    sent: list[int] = []
    for status in ("KILLED", "FINISHED"):
        training = begin()
        enough = threading.Event()
        training.log_load()
        log, counted = training._log_system, []

        def count(sample: dict[str, float], log=log, counted=counted, enough=enough) -> None:  # type: ignore[no-untyped-def]
            log(sample)
            counted.append(sample)
            if len(counted) == 3:
                enough.set()

        assert training._system is not None
        training._system._hand_on = count
        assert enough.wait(60)
        assert training.finish(status, limit=60)
        history = store.client().get_metric_history(str(training.run_id), "system/cpu_utilization_percentage")
        sent.append(len(history))
        assert [point.step for point in history] == sorted(point.step for point in history)
    assert 3 <= sent[0] < sent[1]


def test_samples_are_sent_a_minute_at_a_time_and_what_is_left_at_the_end(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "3600")
    training = begin()
    training.log_load()
    messages: list[object] = []
    put = training._outbox.put
    monkeypatch.setattr(training._outbox, "put", lambda message: (messages.append(message), put(message)))
    after = []
    for number in range(8):
        training._log_system({"system/a": float(number), "system/b": -float(number)})
        after.append(len(messages))
    assert after == [0, 0, 0, 0, 0, 1, 1, 1]
    assert training.finish(limit=60)
    for name, sign in (("system/a", 1.0), ("system/b", -1.0)):
        history = store.client().get_metric_history(str(training.run_id), name)
        assert sorted(point.value for point in history) == sorted(sign * number for number in range(8))
