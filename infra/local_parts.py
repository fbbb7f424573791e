"""The parts of the one-machine cluster: what each is started with, when it is ready, where it is found."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from infra import parts, processes
from infra.secret_files import Secrets, write_private

HOST = "127.0.0.1"
HEAD_ADDRESS = "127.0.0.2"
"""Ray takes 127.0.0.1 for the machine's outside address."""
BACKEND = "MLFLOW_BACKEND_STORE_URI"
"""Names a database for MLflow, such as postgresql://…; otherwise SQLite in the cluster's folder."""
USUAL_NODES, USUAL_CPUS = 2, 1
STORE_BYTES = 300_000_000
KNOWN_BY = {"s3": ("s3", "mlflow", "ray-"), "mlflow": ("mlflow", "ray-"), "ray": ("ray-",), "dashboard": ("ray-head",)}
"""The parts that were started with each port, by the beginnings of their names."""
SECONDS_TO_DRAIN = "5"
"""For which a node that is told to end lets its work go on."""


class LocalCluster:
    """The cluster of one folder: its state (ports, processes) and its secrets, kept there between commands."""

    USUAL_PORTS: ClassVar[dict[str, int]] = {"s3": 8333, "mlflow": 5001, "ray": 6379, "dashboard": 8265}

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder = folder
        self._state = state
        self._secrets = Secrets(folder)

    @classmethod
    def load(cls, folder: Path) -> LocalCluster:
        """The cluster as the last command left it."""
        path = folder / "state.json"
        return cls(folder, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def running(self) -> dict[str, bool]:
        """Each part that was started, and whether it lives."""
        return {name: processes.find(record) is not None for name, record in self._processes.items()}

    def answering(self) -> dict[str, bool]:
        """Each part that was started, and whether it does what it is there for."""
        nodes = self._living_nodes()
        known = {"s3": self._s3_answers, "mlflow": self._mlflow_answers, "ray-head": lambda: HEAD_ADDRESS in nodes}
        return {name: known[name]() if name in known else _address(name) in nodes for name in self._processes}

    def where(self, name: str) -> str:
        """A part's address."""
        ports = self._state["ports"]
        known = {"s3": self.endpoint, "mlflow": self.tracking_uri}
        known["ray-head"] = f"{self.gcs}, dashboard and jobs http://{HOST}:{ports['dashboard']}"
        return known.get(name) or f"{self._state['cpus']} CPU"

    @property
    def endpoint(self) -> str:
        """The S3 server's URL."""
        return f"http://{HOST}:{self._state['ports']['s3']}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's URL."""
        return f"http://{HOST}:{self._state['ports']['mlflow']}"

    @property
    def gcs(self) -> str:
        """Ray's address for drivers."""
        return f"{HEAD_ADDRESS}:{self._state['ports']['ray']}"

    def start(self, nodes: int | None, cpus: int | None, ports: dict[str, int]) -> bool:
        """Start every part that does not run, wait until each answers, and say whether there was any.

        Parts that died are started with the ports, keys and data they had, the nodes (None) as many and as large as
        before. StartError when one does not start, or where parts that run are other than is asked for.
        """
        nodes, cpus = self._choose_nodes(nodes, cpus)
        wanted = {"s3", "mlflow", "ray-head", *map(_node_name, range(1, nodes + 1))}
        records = {name: record for name, record in self._processes.items() if name in wanted}
        self._state |= {"cpus": cpus, "ports": self._choose_ports(ports), "processes": records}
        self._state["backend"] = self._choose_backend()
        if {name for name, lives in self.running().items() if lives} == wanted:
            return False
        self._secrets.make()
        self._start("s3", self._weed(), self._base(), self._s3_answers)
        parts.make_buckets(self.endpoint, self._secrets.keys("admin"))
        waits = [self._begin("mlflow", *self._mlflow(), self._mlflow_answers)]
        if processes.find(self._processes.get("ray-head")) is None:
            # Nodes of a head that died end within a minute, and join no other.
            processes.stop(*(record for name, record in self._processes.items() if name.startswith("ray-node")))
            self._keep_logs_of_ray()
            self._state["ray_folder"] = tempfile.mkdtemp(prefix="ray-")  # a socket's path has to be short
        waits.append(self._begin("ray-head", self._head(), self._node_environment(), self._dashboard_answers))
        for wait in waits:
            wait()
        for name in map(_node_name, range(1, nodes + 1)):
            # One by one: nodes that start at once in one session disturb each other.
            self._start(name, self._node(_address(name), cpus), self._node_environment(), self._joined(name))
        self._write_environment()
        return True

    def stop(self) -> list[str]:
        """Stop what was started here, S3 after those who use it; the names of those that ran. Ray's logs are kept."""
        stopped = []
        for wave in ([name for name in self._processes if name != "s3"], ["s3"] if "s3" in self._processes else []):
            lived = processes.stop(*(self._processes[name] for name in wave))
            stopped += [name for name, did in zip(wave, lived, strict=True) if did]
        self._keep_logs_of_ray()
        for key in ("processes", "ports", "backend", "cpus"):
            self._state.pop(key, None)
        (self.folder / "env").unlink(missing_ok=True)
        self._save()
        return stopped

    def _keep_logs_of_ray(self) -> None:
        """Copy them from the folder of a Ray that has ended, which goes."""
        if ray := self._state.pop("ray_folder", None):
            with contextlib.suppress(OSError):
                shutil.copytree(Path(ray) / "session_latest/logs", self.folder / "logs/ray", dirs_exist_ok=True)
            shutil.rmtree(ray, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a user's shell needs to use the cluster."""
        shell = {
            "RAY_ADDRESS": self.gcs,
            "RAY_API_SERVER_ADDRESS": f"http://{HOST}:{self._state['ports']['dashboard']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._secrets.token),
        }
        return shell | parts.client_environment(self.endpoint, self.tracking_uri, self._secrets.keys("project"))

    @property
    def _processes(self) -> dict[str, Any]:
        found: dict[str, Any] = self._state.get("processes", {})
        return found

    def _choose_nodes(self, nodes: int | None, cpus: int | None) -> tuple[int, int]:
        """How many nodes of how many CPUs: as asked for, as before, or the usual. StartError where others run."""
        before = {name: lives for name, lives in self.running().items() if name.startswith("ray-node")}
        running = [name for name, lives in before.items() if lives]
        nodes, size = nodes or len(before) or USUAL_NODES, self._state.get("cpus", USUAL_CPUS)
        beyond = set(running) - set(map(_node_name, range(1, nodes + 1)))
        if running and (cpus not in (None, size) or beyond):
            raise processes.StartError(
                f"{', '.join(running)} of {size} CPU {'runs' if len(running) == 1 else 'run'}, where {nodes} of"
                f" {cpus or size} {'is' if nodes == 1 else 'are'} asked for; `make cluster-down` first"
            )
        return nodes, cpus or size

    def _choose_backend(self) -> str:
        """MLflow's database: of the one that runs or died, else as this shell names it. StartError for another one."""
        asked, before = os.environ.get(BACKEND), self._state.get("backend")
        if asked and before and asked != before:
            raise processes.StartError(f"{BACKEND} names another database than MLflow has; `make cluster-down` first")
        return asked or before or f"sqlite:///{self.folder / 'mlflow.db'}"

    def _choose_ports(self, wanted: dict[str, int]) -> dict[str, int]:
        """The ports asked for, those of before, or the usual ones. StartError where running parts know another one."""
        before = self._state.get("ports", {})
        kept = {name: before.get(name) or processes.port(0, usual) for name, usual in self.USUAL_PORTS.items()}
        running = [part for part, lives in self.running().items() if lives]
        for name, port in kept.items():
            knowing = [part for part in running if part.startswith(KNOWN_BY[name])]
            if knowing and wanted[name] not in (0, port):
                raise processes.StartError(
                    f"--{name}-port {wanted[name]}: {', '.join(knowing)} run with {port}; `make cluster-down` first"
                )
        return {name: wanted[name] or port for name, port in kept.items()}

    def _write_environment(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()]
        write_private(self.folder / "env", "".join(lines))

    def _base(self) -> dict[str, str]:
        """This shell's environment without another cluster's settings."""
        kept = processes.environment_without("RAY_", "MLFLOW_", "AWS_", "RESNET_S3")
        programs = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        return kept | {"PYTHONUNBUFFERED": "1", "PATH": programs}

    def _node_environment(self) -> dict[str, str]:
        client = parts.client_environment(self.endpoint, self.tracking_uri, self._secrets.keys("project"))
        mine = {
            "RAY_AUTH_TOKEN_PATH": str(self._secrets.token),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": SECONDS_TO_DRAIN,
        }
        return self._base() | parts.RAY_SETTINGS | parts.NO_METRICS | client | mine

    def _weed(self) -> list[str]:
        program = _program("weed")
        others = dict(zip(parts.WEED_PORTS, processes.free_ports(len(parts.WEED_PORTS)), strict=True))
        data = self.folder / "s3"
        data.mkdir(exist_ok=True)
        config = str(self.folder / "s3.json")
        return parts.weed_command(program, str(data), config, self._state["ports"]["s3"], others, HOST)

    def _mlflow(self) -> tuple[list[str], dict[str, str]]:
        command = parts.mlflow_command(HOST, self._state["ports"]["mlflow"], workers=1)
        keys = parts.client_environment(self.endpoint, self.tracking_uri, self._secrets.keys("mlflow"))
        del keys["MLFLOW_TRACKING_URI"]
        return command, self._base() | keys | parts.mlflow_environment(self._state["backend"])

    def _head(self) -> list[str]:
        ports = self._state["ports"]
        more = ["--num-cpus=0", f"--temp-dir={self._state['ray_folder']}", *_ray_ports()]
        return _ray(parts.ray_head_command(HEAD_ADDRESS, ports["ray"], HOST, ports["dashboard"], *more))

    def _node(self, address: str, cpus: int) -> list[str]:
        return _ray(
            parts.ray_worker_command(
                self.gcs,
                f"--node-ip-address={address}",
                f"--num-cpus={cpus}",
                "--include-log-monitor=false",  # the head's reads the logs of all, which lie in one folder here
                *_ray_ports(),
            )
        )

    def _joined(self, name: str) -> Callable[[], bool]:
        """Whether a node that is to be started is there: the head takes one that died to be alive for a while."""
        before = set() if processes.find(self._processes.get(name)) else self._living_nodes().get(_address(name), set())
        return lambda: bool(self._living_nodes().get(_address(name), set()) - before)

    def _begin(self, name: str, command: list[str], environment: dict[str, str], ready: Any) -> Any:
        """Start a part unless it runs; what waits for it."""
        if processes.find(self._processes.get(name)) is None:
            self._state["processes"][name] = processes.start(name, command, environment, self.folder)
            self._save()
        record = self._processes[name]
        return lambda: processes.wait_until(ready, name, record, self.folder)

    def _start(self, name: str, command: list[str], environment: dict[str, str], ready: Any) -> None:
        self._begin(name, command, environment, ready)()

    def _save(self) -> None:
        write_private(self.folder / "state.json", parts.as_json(self._state))

    def _s3_answers(self) -> bool:
        # It has read its keys when it asks for some.
        return _status_of(f"{self.endpoint}/{parts.BUCKET}") == 403

    def _mlflow_answers(self) -> bool:
        return _status_of(f"{self.tracking_uri}/health") == 200

    def _dashboard_answers(self) -> bool:
        return HEAD_ADDRESS in self._living_nodes()

    def _living_nodes(self) -> dict[str, set[str]]:
        """The nodes that Ray's head takes to be alive, by address; none where it does not answer."""
        token = self._secrets.token.read_text(encoding="utf-8")
        url = f"http://{HOST}:{self._state['ports']['dashboard']}/api/v0/nodes"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        alive = [(node["node_ip"], node["node_id"]) for node in nodes if node["state"] == "ALIVE"]
        return {address: {node for at, node in alive if at == address} for address, _ in alive}


def _node_name(number: int) -> str:
    return f"ray-node-{number}"


def _address(node: str) -> str:
    """The loopback address of the node `ray-node-<number>`, after the head's."""
    return f"127.0.0.{2 + int(node.rpartition('-')[2])}"


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise processes.StartError(f"there is no program {name}; `make setup` installs it")
    return found


def _ray(command: list[str]) -> list[str]:
    return [_program("ray"), *command[1:], f"--object-store-memory={STORE_BYTES}"]


def _ray_ports() -> list[str]:
    """Ports that every node of one machine would otherwise take to be its own."""
    names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    return [f"--{name}={number}" for name, number in zip(names, processes.free_ports(len(names)), strict=True)]


def _status_of(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
