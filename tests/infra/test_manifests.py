"""Compose, Kubernetes and cloud files: sound by the schemas there are, and of the same words as the local cluster."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from infra import parts

INFRA = Path(__file__).parents[2] / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
KUBERNETES = [
    document
    for name in ("services", "raycluster", "rayjob")
    for document in yaml.safe_load_all((INFRA / f"kubernetes/{name}.yaml").read_text(encoding="utf-8"))
]
AWS = yaml.safe_load((INFRA / "cloud/aws.yaml").read_text(encoding="utf-8"))
VERSION = "1.31"


def ray_clusters() -> list[dict[str, Any]]:
    clusters = [found["spec"] for found in KUBERNETES if found["kind"] == "RayCluster"]
    clusters += [found["spec"]["rayClusterSpec"] for found in KUBERNETES if found["kind"] == "RayJob"]
    assert len(clusters) == 2
    return clusters


def ray_pods() -> list[dict[str, Any]]:
    return [group["template"] for c in ray_clusters() for group in (c["headGroupSpec"], *c["workerGroupSpecs"])]


def test_kubernetes_resources_are_of_their_schemas() -> None:
    plain = [document for document in KUBERNETES if not document["kind"].startswith("Ray")]
    assert {document["kind"] for document in plain} == {"StatefulSet", "Service", "Deployment"}
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template} for template in ray_pods()]
    for document in [*plain, *pods]:
        kubernetes_validate.validate(document, VERSION, strict=True)
    with pytest.raises(Exception, match="replica"):
        kubernetes_validate.validate({**plain[0], "spec": {**plain[0]["spec"], "replica": 1}}, VERSION, strict=True)


def test_the_cloud_file_is_of_rays_schema() -> None:
    schema = json.loads((Path(str(files(ray))) / "autoscaler/ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(AWS, schema)
    assert AWS["available_node_types"]["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_compose_runs_the_local_clusters_commands() -> None:
    services = COMPOSE["services"]
    assert services["mlflow"]["command"] == parts.mlflow_command("0.0.0.0", 5000, basic_auth=True, python="python")
    assert services["ray-node"]["command"] == parts.ray_worker_command("ray-head:6379")
    head = parts.ray_head_command("ray-head", 6379, "0.0.0.0", 8265, "--num-cpus=0")
    assert services["ray-head"]["command"] == [word for word in head if not word.startswith("--node-ip-address")]
    weed = parts.weed_command("weed", "/data", "/run/secrets/s3", 8333, {}, "s3")
    assert services["s3"]["command"] == [re.sub(r"(ip\.bind)=s3", r"\1=0.0.0.0", word) for word in weed]


def test_variables_are_the_local_clusters() -> None:
    client = set(parts.client_environment("http://s3", "http://mlflow", parts.Keys("a", "b")))
    node, mlflow = COMPOSE["services"]["ray-node"]["environment"], COMPOSE["services"]["mlflow"]["environment"]
    assert client <= set(node)
    assert set(parts.mlflow_environment("x")) | {"AWS_ENDPOINT_URL"} <= set(mlflow)
    assert mlflow["MLFLOW_ARTIFACTS_DESTINATION"] == parts.mlflow_environment("x")["MLFLOW_ARTIFACTS_DESTINATION"]
    image = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    settings = {**parts.RAY_SETTINGS, "MLFLOW_DISABLE_TELEMETRY": "true"}
    assert [name for name, value in settings.items() if f"{name}={value}" not in image] == []
    for template in ray_pods():
        variables = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
        assert variables["RESNET_S3"] == "s3://BUCKET", "a bucket's name is taken by one user of AWS alone"
        assert variables["RESNET_CACHE"] == "/cache/shards", "at a volume's root other folders lie"
    for cluster in ray_clusters():  # the operator sets RAY_AUTH_MODE and RAY_AUTH_TOKEN, and asks with the token itself
        assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert "-e RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]


def test_what_the_image_and_the_machines_need_is_there() -> None:
    image = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    assert image.index("mkdir /data && chown ray /data") < image.index("USER ray")
    assert "install --yes --no-install-recommends g++ libc6-dev openssh-client rsync wget" in image
    assert "NVIDIA_VISIBLE_DEVICES=all" in image
    for template in ray_pods():
        assert template["spec"]["securityContext"] == {"fsGroup": 1000}
    read = [word for command in AWS["head_start_ray_commands"] for word in command.split() if word.startswith("~/mlf")]
    assert read == ["~/mlflow.env;"]
    assert "/home/ray/mlflow.env" in AWS["file_mounts"]
    assert not [option for option in AWS["docker"]["run_options"] if "env-file" in option]


def test_identities_of_the_example_are_the_local_clusters() -> None:
    example = json.loads((INFRA / "s3.example.json").read_text(encoding="utf-8"))
    keys = {name: parts.Keys(name, "CHANGE-ME") for name in ("admin", "project", "mlflow")}
    assert example == parts.s3_identities(**keys)


def test_ports_are_published_on_loopback_alone_and_no_secret_is_written_down() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET", name) or "${" in value
    for template in [*ray_pods(), *(d["spec"]["template"] for d in KUBERNETES if "template" in d["spec"])]:
        for container in template["spec"]["containers"]:
            assert {"requests", "limits"} <= set(container["resources"])
            for entry in container["env"]:
                assert not re.search(r"PASSWORD|SECRET|TOKEN$", entry["name"]) or "valueFrom" in entry
