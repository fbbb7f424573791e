"""Several DVC stages at once: DVC's graph says which may run, `dvc repro -s` runs each and decides whether it must."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import networkx
import psutil

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 600.0
"""For stages that were told to end: an iteration of training and its checkpoint may take minutes."""
SECONDS_TO_BE_TOLD = 20.0
"""After an interrupt that may have reached the stages or not."""
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock"]
HINTS = ("To track the changes with git", "\tgit add", "To enable auto staging", "\tdvc config", "Use `dvc push`")
Needs = dict[str, set[str]]
"""Stages in DVC's order, each with those of them that have to be finished before it."""


@dataclass
class Outcome:
    """How the stages ended, by name: those that succeeded, those that failed, and those that depend on a failed one."""

    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code: 0 when every stage succeeded."""
        return 1 if self.failed else 0


def plan(targets: Iterable[str] = (), force: bool = False) -> Needs:
    """The stages that DVC finds changed, and those after them; all when `force`.

    A stage after a changed one is left to `dvc repro -s`, which runs it only if its dependencies came out different.
    ValueError for targets that DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    names = list(targets)
    try:
        with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            graph = get_active_graph(repo.index.graph)
            steps = plan_repro(graph, collect_stages(repo, names) if names else None)
            changed = set() if force else set(repo.status(names or None, with_deps=bool(names)))
    except DvcException as error:
        raise ValueError(f"{' '.join(names) or 'all stages'}: {error}") from error
    order = [stage.addressing for stage in steps]
    edges = networkx.relabel_nodes(graph, {stage: stage.addressing for stage in graph})
    due = set(order) if force else _due(edges, set(order), changed)
    return {name: due & networkx.descendants(edges, name) for name in order if name in due}


def _due(edges: networkx.DiGraph, chosen: set[str], changed: set[str]) -> set[str]:
    return {name for name in chosen if changed & ({name} | networkx.descendants(edges, name))}


def run_stages(
    needs: Needs,
    jobs: int,
    environment: Mapping[str, str],
    options: Iterable[str] = (),
    on_finished: Callable[[str], None] = lambda stage: None,
) -> Outcome:
    """Run the stages, at most `jobs` at once, each by a `dvc repro -s` of its own with `options`.

    A failure holds up only what depends on it. `on_finished` is called with each stage that succeeded, between starts.
    Whatever ends this early (a signal, an error) ends the stages too, all at once, and is waited for. A terminal's
    Ctrl-C reaches them as well, and they are not told again, as a training told twice ends without a checkpoint: a
    second Ctrl-C does that.
    """
    outcome, running = Outcome(), dict[str, _Running]()
    try:
        while True:
            for stage in _ready(needs, outcome, running)[: jobs - len(running)]:
                running[stage] = _Running(stage, [*DVC, "repro", *options, "-s", stage], environment)
            if not running:
                break
            _collect(running, outcome, on_finished)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        psutil.wait_procs(_families(running), timeout=SECONDS_TO_END if _at_terminal() else SECONDS_TO_BE_TOLD)
        raise
    finally:
        _end(_families(running))
    ended = {*outcome.finished, *outcome.failed}
    outcome.skipped = [stage for stage in needs if stage not in ended]
    return outcome


def _ready(needs: Needs, outcome: Outcome, running: Mapping[str, object]) -> list[str]:
    """Stages that have what they need: DVC, which locks what a stage reads and writes, finds none of it taken."""
    gone = {*outcome.finished, *outcome.failed, *running}
    return [stage for stage, before in needs.items() if stage not in gone and before <= set(outcome.finished)]


def _collect(running: dict[str, _Running], outcome: Outcome, on_finished: Callable[[str], None]) -> None:
    for stage, process in list(running.items()):
        code = process.code()
        if code is None:
            continue
        del running[stage]
        (outcome.finished if code == 0 else outcome.failed).append(stage)
        if code == 0:
            on_finished(stage)
        else:
            print(f"{stage}: failed with exit code {code}; what does not depend on it goes on", flush=True)


def _families(running: Mapping[str, _Running]) -> list[psutil.Process]:
    return [process for stage in running.values() for process in stage.family()]


def _at_terminal() -> bool:
    """Whether a terminal's Ctrl-C interrupts this process, and its stages with it."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _end(processes: list[psutil.Process]) -> None:
    """Ask them to end, and wait: training keeps its latest checkpoint."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(processes, timeout=SECONDS_TO_END)


class _Running:
    """One stage's `dvc repro -s`, its output shown by whole lines that begin with the stage's name."""

    def __init__(self, stage: str, command: list[str], environment: Mapping[str, str]) -> None:
        self._stage = stage
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def code(self) -> int | None:
        """The exit code once it has ended and its last lines are shown."""
        code = self._process.poll()
        if code is not None:
            self._reader.join(5)
        return code

    def family(self) -> list[psutil.Process]:
        """It and what it started, as far as they live."""
        try:
            first = psutil.Process(self._process.pid)
            return [*first.children(recursive=True), first]
        except psutil.NoSuchProcess:
            return []

    def _show(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() and not line.startswith(HINTS):
                print(f"{self._stage} | {line.rstrip()}", flush=True)
