"""The parts of a cluster, spelled once: their commands, their environment variables, who may touch which bucket.

The one-machine cluster runs these; tests hold compose.yaml, kubernetes/ and cloud/ to the same words.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

BUCKET = "resnet"
"""Checkpoints, DVC's remote, stores of images, jobs' results."""
MLFLOW_BUCKET = "mlflow"
"""Artifacts, which only the MLflow server touches."""
REGION = "us-east-1"
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # the GCS and raylets listen on all interfaces whatever they are told
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_JOB_STOP_WAIT_TIME_S": "60",  # a stopped job brings back what was finished
    "RAY_worker_niceness": "0",
}
NO_METRICS = {"RAY_enable_metrics_collection": "0", "RAY_enable_open_telemetry": "0"}
"""Ray's figures for Prometheus off, which nothing reads on one machine, and which have crashed Ray 2.60."""
MLFLOW_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
WEED_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "admin.port",
    "admin.port.grpc",
)


@dataclass(frozen=True)
class Keys:
    """An S3 identity's key pair."""

    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables by which clients find them."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def s3_identities(admin: Keys, project: Keys, mlflow: Keys) -> dict[str, Any]:
    """SeaweedFS's configuration: an administrator, who makes the buckets, and two identities of a bucket each."""
    return {
        "identities": [
            _identity("admin", admin, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("project", project, _limited(BUCKET)),
            _identity("mlflow", mlflow, _limited(MLFLOW_BUCKET)),
        ]
    }


def _identity(name: str, keys: Keys, actions: list[str]) -> dict[str, Any]:
    pair = {"accessKey": keys.access_key, "secretKey": keys.secret_key}
    return {"name": name, "credentials": [pair], "actions": actions}


def _limited(bucket: str) -> list[str]:
    return [f"{action}:{bucket}" for action in ("Read", "Write", "List", "Tagging")]


def weed_command(program: str, data: str, config: str, port: int, others: dict[str, int], host: str) -> list[str]:
    """SeaweedFS with its S3 gateway; `others` are the ports of its inner parts, by option."""
    return [
        program,
        "mini",
        f"-dir={data}",
        f"-ip={host}",
        f"-ip.bind={host}",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        f"-s3.config={config}",
        f"-s3.port={port}",
        *(f"-{name}={number}" for name, number in others.items()),
    ]


def mlflow_command(
    host: str, port: int, workers: int = 4, basic_auth: bool = False, python: str = sys.executable
) -> list[str]:
    """MLflow's server; where it keeps things is in `mlflow_environment`, as a database's URL may hold a password."""
    app = ["--app-name", "basic-auth"] if basic_auth else []
    command = [python, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    return [*command, "--workers", str(workers), *app]


def mlflow_environment(backend: str) -> dict[str, str]:
    """The server's variables besides its S3 keys: runs in `backend`, artifacts through the server to its bucket."""
    return {
        **MLFLOW_SETTINGS,
        "MLFLOW_BACKEND_STORE_URI": backend,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{MLFLOW_BUCKET}/artifacts",
        "MLFLOW_SERVE_ARTIFACTS": "true",
    }


def ray_head_command(address: str, port: int, dashboard_host: str, dashboard_port: int, *more: str) -> list[str]:
    """Ray's head with the dashboard, which takes jobs; it does not return while the node lives."""
    head = ["ray", "start", "--head", "--block", "--disable-usage-stats", f"--node-ip-address={address}"]
    return [*head, f"--port={port}", f"--dashboard-host={dashboard_host}", f"--dashboard-port={dashboard_port}", *more]


def ray_worker_command(head: str, *more: str) -> list[str]:
    """A further node of the cluster whose GCS is at `head`."""
    return ["ray", "start", "--block", "--disable-usage-stats", f"--address={head}", *more]


def client_environment(endpoint: str | None, tracking_uri: str, keys: Keys | None) -> dict[str, str]:
    """What a node, and a user's shell, need to reach the parts; without an endpoint, S3 is AWS's own."""
    found = {"RESNET_S3": f"s3://{BUCKET}", "MLFLOW_TRACKING_URI": tracking_uri, "AWS_DEFAULT_REGION": REGION}
    if endpoint:
        found["AWS_ENDPOINT_URL"] = endpoint
    return found | (keys.environment() if keys else {})


def as_json(tree: dict[str, Any]) -> str:
    """The text of a configuration file."""
    return json.dumps(tree, indent=2) + "\n"


def make_buckets(endpoint: str, admin: Keys) -> None:
    """Make the buckets that the S3 server at `endpoint` lacks."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=admin.access_key,
        aws_secret_access_key=admin.secret_key,
        region_name=REGION,
    )
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in {BUCKET, MLFLOW_BUCKET} - there:
        client.create_bucket(Bucket=bucket)
