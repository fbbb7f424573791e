"""The MLflow pages on this machine: `python -m pipeline.tracking.ui [port]`."""

from __future__ import annotations

import os
import subprocess
import sys

from pipeline.tracking import store

PORT = 5000


def command(uri: str, port: int = PORT) -> list[str]:
    """What serves the pages of a database, on loopback only; ValueError for a URI that is a server already."""
    if uri.startswith("http"):
        raise ValueError(f"{uri}: is a server; open it in a browser")
    serve = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    root = store.artifact_root()
    return [*serve, "--backend-store-uri", uri, *(["--default-artifact-root", root] if root else [])]


def main() -> int:
    """Serve the pages of the store at hand until interrupted."""
    uri = store.initialise()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    try:
        serve = command(uri, port)
    except ValueError as error:
        print(error)
        return 0
    print(f"http://127.0.0.1:{port} shows {uri}; Ctrl-C ends it", flush=True)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.run(serve, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
