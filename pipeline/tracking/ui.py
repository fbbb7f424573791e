"""MLflow's pages on this machine, with a view of each experiment's errors: `python -m pipeline.tracking.ui [port]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psutil
from mlflow.entities import Experiment, Run

from pipeline.tracking import store

PORT = 5000
SECONDS_TO_END = 10.0
VIEW = "errors"
_SHARED_VIEW = "mlflow.sharedViewState."
"""Begins the key of an experiment's tag that holds a view, as the pages' own "Share" writes it."""
_FILTER = "tags.kind != 'report'"
_CHARTS = "^(training|test|holdout)/error$"
"""Which charts are shown, as a regular expression: the curves; the errors at the end are the table's."""
_OTHER_WAYS = "/multi_scale_"
"""Of averaging over scales, where an experiment reports them: they have no column."""
_TAGS = ("kind", "seed", "precision")
_SEARCHED = 50


class ServerError(ValueError):
    """The store is a server, which shows its pages itself."""


def command(uri: str, host: str = "127.0.0.1", port: int = PORT) -> list[str]:
    """What serves the pages of the database at `uri`, which it finds in its environment, as that may hold a password.

    ServerError for a URI that is a server already.
    """
    if uri.startswith("http"):
        raise ServerError(f"{store.shown_uri()}: is a server; open it in a browser")
    serve = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    root = store.artifact_root(uri)
    return [*serve, *(["--default-artifact-root", root] if root else [])]


def run_page(run_id: str) -> str:
    """The address of a run's page: on the server of MLFLOW_TRACKING_URI, else as `main` shows a database by default.

    Of the server's address the host and path alone: neither user nor password nor query. The store is not asked.
    """
    base = store.pages(os.environ.get("MLFLOW_TRACKING_URI", "")) or f"http://127.0.0.1:{PORT}"
    return f"{base}/#/runs/{run_id}"


def prepare_views(base: str) -> dict[str, str]:
    """Give each experiment that has runs a view of its errors, the lowest first; the views' addresses by experiment.

    A view has the test errors by protocol, the held-out error, the last training error, and which run it is. It is a
    tag of the experiment, written when it is not there as it should be.
    """
    client, addresses = store.client(), {}
    for experiment in client.search_experiments():
        runs = client.search_runs([experiment.experiment_id], max_results=_SEARCHED)
        if not any(run.data.metrics for run in runs):
            continue
        text = json.dumps(view_state(runs), sort_keys=True)
        if experiment.tags.get(f"{_SHARED_VIEW}{VIEW}") != text:
            client.set_experiment_tag(experiment.experiment_id, f"{_SHARED_VIEW}{VIEW}", text)
        addresses[experiment.name] = _address(base, experiment)
    return addresses


def view_state(runs: Sequence[Run]) -> dict[str, object]:
    """Columns, order and filter of the runs' table, in the form in which MLflow's pages share them."""
    names = {name for run in runs for name in run.data.metrics}
    errors = sorted(name for name in names if name.endswith("/top1_error"))
    tests = [name for name in errors if not name.startswith("holdout") and _OTHER_WAYS not in name]
    shown = [*tests, *[n for n in ("holdout/top1_error", "training/error", "training/loss") if n in names]]
    columns = [f"metrics.`{name}`" for name in shown] + [f"tags.`{name}`" for name in _TAGS]
    order = columns[0] if shown else "attributes.start_time"
    return {
        "searchFilter": _FILTER,
        "orderByKey": order,
        "orderByAsc": bool(shown),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "chartsSearchFilter": _CHARTS,
    }


def _address(base: str, experiment: Experiment) -> str:
    return f"{base}/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={VIEW}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the pages of the store at hand until interrupted; 2 where its database can't be used."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.ui", description=__doc__)
    parser.add_argument("port", nargs="?", type=int, default=PORT)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args(arguments)
    try:
        uri = store.initialise()
        with store.answered():
            addresses = prepare_views(uri if uri.startswith("http") else f"http://{options.host}:{options.port}")
        _announce(addresses)
        serve = command(uri, options.host, options.port)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 0 if isinstance(error, ServerError) else 2
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return _served(serve, {**os.environ, **settings})


def _served(serve: Sequence[str], environment: Mapping[str, str]) -> int:
    """The server's exit code; 0 once it was interrupted, and 143 once SIGTERM was handed on to all its processes."""
    server = subprocess.Popen(serve, env=environment)

    def end(*_: object) -> None:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(family, timeout=SECONDS_TO_END)
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.wait()
        return 0


def _announce(addresses: dict[str, str]) -> None:
    print("MLflow, a view of errors for each experiment (Ctrl-C ends it):")
    for experiment, address in addresses.items():
        print(f"  {experiment:12} {address}")
    if not addresses:
        print("  no runs yet")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
